"""Is a proto a model: the one place that looks, before anything else does.

Three things are looked at, in this order:

1. :mod:`structure`: what this program relies on, and what no reader of ONNX files takes: text, operator sets, graphs,
   nodes, tensors and where their data lies, functions. Each fault is one line that names file, node and tensor.
2. :mod:`verdict`: ONNX's own checker with full inference of types and shapes. It asks for more than ONNX Runtime does,
   and exporters know that; so where it complains ONNX Runtime is asked, and what that loads is a model.
3. Whether ONNX Runtime makes something of it is seen when it is run.

Code behind may trust the model.
"""
