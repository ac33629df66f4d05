"""What TensorRT's sparse kernels could read of a model, told without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.analysis import int8, sparsity
from graphprune.analysis.patterns import SPARSE, Pattern
from graphprune.analysis.reasons import Reason
from graphprune.analysis.shapes import Witness
from graphprune.analysis.sparsity import Layer
from graphprune.analysis.web import Web
from graphprune.model import Model


@dataclass(frozen=True)
class Told:
    """A product with a weight.

    Attributes:
        layer: the product, and the state of its weight.
        breaks: where it is quantised why it is not 8 bits in and out, which sparse kernels want; else None.
        quantised: whether it is.
    """

    layer: Layer
    breaks: Reason | None
    quantised: bool

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Everything that speaks against a sparse kernel."""
        return self.layer.reasons if self.breaks is None else (*self.layer.reasons, self.breaks)

    @property
    def eligible(self) -> bool:
        """Whether nothing does."""
        return not self.reasons

    def to_json(self) -> dict[str, object]:
        """The quantised part as plain data; None where there is none."""
        int8_ = None
        if self.quantised:
            reason, remedy = ("", "") if self.breaks is None else (self.breaks.text, self.breaks.remedy)
            int8_ = {"in_and_out": self.breaks is None, "reason": reason, "remedy": remedy}
        return {"eligible": self.eligible, "reasons": [str(r) for r in self.reasons], "int8": int8_}


def forecast(model: Model, witness: Witness, net: Web, half: bool = False, pattern: Pattern = SPARSE) -> Sequence[Told]:
    """Every product of an activation with a weight, in the order of the nodes.

    Args:
        model: in canonical form.
        witness: its sizes and types.
        net: its web.
        half: judge float32 weights as the float16 that they will be converted to.
        pattern: the pattern.
    """
    products = {p.index: p for p in int8.products(model, witness, net)}
    found = []
    for layer in sparsity.layers(model, witness, net, half, pattern):
        product = products.get(layer.index)
        found.append(Told(layer, None if product is None else product.breaks, product is not None))
    return found
