"""When elements of an output are zero, as a value: read from its notation once, and printed back as it.

``0*1+2`` reads: an element is zero where an element of input 0 or one of input 1 is, and one of input 2 is too; ``0/1``
that input 1 divides. Nothing at all means never, ``always`` that it is zero whatever the inputs hold. Where outputs
differ each has a sum of its own, separated by ``;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

from graphprune.relation.errors import NotationError

_TERM = r"(\d+(\*\d+)*)?(/\d+)?"
_SUM = re.compile(rf"{_TERM}(\+{_TERM})*")


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum of products of inputs.

    Attributes:
        products: for each product the inputs that are its factors. The product of nothing is zero, always: it stands
            alone.
        divisors: inputs that divide.
    """

    products: tuple[tuple[int, ...], ...] = ()
    divisors: tuple[int, ...] = ()

    @staticmethod
    @cache
    def parse(text: str) -> Sum:
        """Read one sum.

        Raises:
            NotationError: it is none.
        """
        if text == "always":
            return ALWAYS
        if text and _SUM.fullmatch(text) is None:
            raise NotationError(f"{text!r}: what is zero is a sum of products of inputs by number, as in '0*1+2'")
        terms = [term.partition("/")[::2] for term in text.split("+")]
        return Sum(
            tuple(tuple(int(f) for f in above.split("*")) for above, _ in terms if above),
            tuple(int(below) for _, below in terms if below),
        )

    @property
    def never(self) -> bool:
        """Whether it says nothing: no input makes it zero."""
        return self == NEVER

    @property
    def always(self) -> bool:
        """Whether it is zero whatever the inputs hold."""
        return self == ALWAYS

    @property
    def factors(self) -> tuple[int, ...]:
        """The inputs of all products, in order."""
        return tuple(i for product in self.products for i in product)

    @property
    def single(self) -> tuple[int, ...]:
        """The factors of its only product: any of them makes it zero alone. Nothing where there are several."""
        return self.products[0] if len(self.products) == 1 else ()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Every input that it speaks of."""
        return (*self.factors, *self.divisors)

    def __str__(self) -> str:
        if self.always:
            return "always"
        above = ["*".join(map(str, product)) for product in self.products]
        below = [f"/{divisor}" for divisor in self.divisors]
        return "+".join(a + b for a, b in zip_longest(above, below, fillvalue=""))


NEVER, ALWAYS = Sum(), Sum(((),))


@dataclass(frozen=True, slots=True)
class Zero:
    """When removed elements of a node's outputs are zero.

    Attributes:
        sums: one for each output, or one for all of them.
    """

    sums: tuple[Sum, ...] = (NEVER,)

    @staticmethod
    @cache
    def parse(text: str) -> Zero:
        """Read sums separated by ``;``.

        Raises:
            NotationError: one of them is none.
        """
        return Zero(tuple(map(Sum.parse, text.split(";"))))

    def of(self, output: int) -> Sum:
        """What makes an output zero."""
        return self.sums[output] if len(self.sums) > 1 else self.sums[0]

    def follows(self, number: int) -> bool:
        """Whether every output is zero exactly where one input is."""
        return all(own == Sum(((number,),)) for own in self.sums)

    @property
    def never(self) -> bool:
        """Whether no output is ever said to be zero."""
        return all(own.never for own in self.sums)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Every input that it speaks of."""
        return tuple(i for own in self.sums for i in own.inputs)

    def __str__(self) -> str:
        return ";".join(map(str, self.sums))
