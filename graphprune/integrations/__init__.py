"""Where graphprune stands in other tools' pipelines: Olive, onnx-ir, Polygraphy.

One module a tool, imported by that tool and by nothing here: ``import graphprune`` needs none of them.
"""
