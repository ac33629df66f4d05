"""ONNX Runtime, and the inputs that it is given."""
