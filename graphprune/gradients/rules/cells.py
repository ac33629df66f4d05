"""Cells of RNN, GRU and LSTM: one step, as an expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back
from graphprune.gradients.terms import Term

Activation = Callable[[Term, float, float], Term]

ACTIVATIONS: dict[str, tuple[Activation, float | None, float | None]] = {
    "affine": (lambda x, a, b: x * a + b, 1.0, 0.0),
    "elu": (lambda x, a, b: (x > 0).where(x, ((x > 0).where(0, x).unary("Exp") - 1) * a), 1.0, None),
    "hardsigmoid": (lambda x, a, b: x.unary("HardSigmoid", alpha=a, beta=b), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: x.unary("LeakyRelu", alpha=a), 0.01, None),
    "relu": (lambda x, a, b: x.unary("Relu"), None, None),
    "scaledtanh": (lambda x, a, b: (x * b).unary("Tanh") * a, 1.0, 1.0),
    "sigmoid": (lambda x, a, b: x.unary("Sigmoid"), None, None),
    "softplus": (lambda x, a, b: x.unary("Softplus"), None, None),
    "softsign": (lambda x, a, b: x.unary("Softsign"), None, None),
    "tanh": (lambda x, a, b: x.unary("Tanh"), None, None),
    "thresholdedrelu": (lambda x, a, b: (x > a).where(x, 0), 1.0, None),
}
"""By name in small letters: the function of input, alpha and beta, and what these are by default; None: not taken."""

_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@dataclass(frozen=True)
class Cell:
    """A step of one direction, written as an expression of what it has, by name.

    That is: ``x``, what the input adds to the gates, in an RNN and an LSTM together with what the hidden state adds;
    this, in a GRU, is ``r``, for the first two gates only where it is the state that is reset; the states ``h`` (in a
    GRU) and ``c``; peepholes ``p0``, ``p1``, ``p2``; and ``R``, the weights of a state that was reset.

    Attributes:
        op: the operator.
        acts: activations.
        coupled: an LSTM forgets what it does not take in.
        late: a GRU resets what the hidden state adds, not this state.
    """

    op: str
    acts: Sequence[Callable[[Term], Term]]
    coupled: bool
    late: bool

    @classmethod
    def of(cls, b: Back, which: int) -> Cell:
        """The cell of a direction."""
        op = b.node.op_type
        count = len(_DEFAULTS[op])
        names = [n.decode() if isinstance(n, bytes) else n for n in b.attr("activations") or _DEFAULTS[op] * 2]
        given = [list(b.attr(name) or []) for name in ("activation_alpha", "activation_beta")]
        acts = []
        for name in names[: (which + 1) * count]:
            if name.lower() not in ACTIVATIONS:
                raise NoGradientError(f"its activation {name} is not known")
            function, *usual = ACTIVATIONS[name.lower()]
            a, c = (0.0 if u is None else held.pop(0) if held else u for u, held in zip(usual, given, strict=True))
            acts.append(_with(function, a, c))
        return cls(op, acts[-count:], bool(b.attr("input_forget", 0)), bool(b.attr("linear_before_reset", 0)))

    @property
    def early(self) -> bool:
        """Whether it is the state that is reset, before it meets weights."""
        return self.op == "GRU" and not self.late

    def run(self, v: Mapping[str, Term]) -> dict[str, Term]:
        """States after the step; and what an early reset kept of the state."""
        return {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.op](v)

    def _rnn(self, v: Mapping[str, Term]) -> dict[str, Term]:
        return {"h": self.acts[0](v["x"])}

    def _gru(self, v: Mapping[str, Term]) -> dict[str, Term]:
        f, g = self.acts
        x, r = parted(v["x"], 3), parted(v["r"], 2 if self.early else 3)
        z, reset = f(x[0] + r[0]), f(x[1] + r[1])
        if self.early:
            kept = reset * v["h"]
            n = g(x[2] + kept @ v["R"])
            return {"h": n + z * (v["h"] - n), "kept": kept}
        n = g(x[2] + reset * r[2])
        return {"h": n + z * (v["h"] - n)}

    def _lstm(self, v: Mapping[str, Term]) -> dict[str, Term]:
        f, g, h = self.acts
        c = v["c"]
        i, o, keep, n = parted(v["x"], 4)
        if "p0" in v:
            i, keep = i + v["p0"] * c, keep + v["p2"] * c
        i = f(i)
        new = (1 - i if self.coupled else f(keep)) * c + i * g(n)
        return {"h": f(o + v["p1"] * new if "p1" in v else o) * h(new), "c": new}


def _with(function: Activation, a: float, b: float) -> Callable[[Term], Term]:
    return lambda x: function(x, a, b)


def parted(x: Term, count: int) -> tuple[Term, ...]:
    """Equal parts of the last axis."""
    return x.tape.ops("Split", x, kinds=[None] * count, axis=-1, num_outputs=count)
