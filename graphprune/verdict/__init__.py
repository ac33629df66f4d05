"""Will it run there, and how fast: ONNX's checker, ONNX Runtime, TensorRT, timing."""
