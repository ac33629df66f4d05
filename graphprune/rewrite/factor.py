"""Weights become products of two: where ``W = A B``, a node multiplies by A, and one behind it by B.

The first of them is the node as it was, with a weight of fewer outputs; what it added comes behind the second. The
second is a MatMul, or along channels in front of other axes a convolution of one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from onnx import NodeProto, helper

from graphprune.analysis.factors import Site, axis_of
from graphprune.analysis.products import Product
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.relation import Values
from graphprune.run.moments import FloatArray


@dataclass(frozen=True)
class Factors:
    """A weight as a product of two.

    Attributes:
        site: the weight.
        left: shape ``[sums, rank]``.
        right: shape ``[rank, outputs]``.
        shift: what is added to each output to make up for the mean of what is lost, None for nothing.
    """

    site: Site
    left: FloatArray
    right: FloatArray
    shift: FloatArray | None = None

    @property
    def rank(self) -> int:
        """What the second of them sums over."""
        return self.left.shape[1]


def factor(model: Model, factors: Sequence[Factors]) -> Model:
    """The model with some weights as products of two.

    Args:
        model: in canonical form, as the sites speak of it.
        factors: what weights become.
    """
    editor = Editor(model)
    for one in factors:
        if one.site.product is not None:
            _product(editor, model, one, one.site.product)
        else:
            _table(editor, model, one)
    return editor.finish()


def _product(editor: Editor, model: Model, one: Factors, product: Product) -> None:
    node, form = product.node, product.form
    narrow = replace(product, sizes={**product.sizes, form.outputs[0]: one.rank})
    held = tuple(prod(narrow.sizes[n] for n in axis) for axis in form.held)
    first = replace(narrow, shape=held).read_of(one.left[None].astype(np.float32)).astype(product.dtype)
    editor.redirect(node, form.w, editor.constant(product.weight, first, node))
    bias = None
    if form.slot is not None and product.bias is not None:
        value = product.added(model)
        assert value is not None
        bias = (value.reshape(-1) + (0 if one.shift is None else one.shift)).astype(product.dtype)
        editor.redirect(node, form.slot, "")
        del editor.nodes[node].input[_length(editor.nodes[node]) :]
    elif one.shift is not None:
        product.shift(editor, model, one.shift[None])
    output, last = product.output, axis_of(product) == len(form.made) - 1
    raw = editor.name(output)
    editor.nodes[node].output[0] = raw
    right = one.right if last else one.right.T.reshape(*one.right.T.shape, *[1] * (len(form.made) - 2))
    weight = editor.constant(product.weight, right.astype(product.dtype), node)
    inputs = [raw, weight]
    if bias is not None and not last:
        inputs.append(editor.constant(product.bias or output, bias, node))
    made = editor.name(output) if bias is not None and last else output
    editor.append(helper.make_node("MatMul" if last else "Conv", inputs, [made], name=raw), node)
    if bias is not None and last:
        held_bias = editor.constant(product.bias or output, bias, node)
        editor.append(helper.make_node("Add", [made, held_bias], [output], name=made), node)


def _length(node: NodeProto) -> int:
    """How many inputs a node has without absent ones at the end."""
    return max((k + 1 for k, name in enumerate(node.input) if name), default=0)


def _table(editor: Editor, model: Model, one: Factors) -> None:
    site = one.site
    kind: Values = model.array(site.weight)[:0]
    left = editor.constant(site.weight, one.left.astype(kind.dtype), min(site.lookups))
    right = editor.constant(site.weight, one.right.astype(kind.dtype), min(site.lookups))
    for node in site.lookups:
        names = editor.nodes[node].input
        position = next(k for k, name in enumerate(names) if model.root(name) == site.weight)
        editor.redirect(node, position, left)
        editor.behind(node, "MatMul", right)
