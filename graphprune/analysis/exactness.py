"""Whether masking a group is the same as removing it.

The proof zeroes the slices of a group's weights in the original. That equals removal where every sum that runs over
removed elements adds only zeros. Zeros are followed from the weights through the graph, by the ``zero`` expressions
of the relations; where a sum meets something else the group is statistical, and where a division would meet a zero it
cannot be masked at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.analysis.coupling import Chosen, Coupled, Statistic, Traced
from graphprune.analysis.web import Tensor, Web
from graphprune.model import Use
from graphprune.relation import Relation, Slot


@dataclass
class _Carrier:
    """One input of a node that carries labelled dims."""

    dims: set[int]
    zero: bool


def judge(web: Web, group: Coupled) -> None:
    """Note the sums that masking does not reproduce, and pin the group where masking divides by zero."""
    labelled: dict[int, set[int]] = {}
    for vertex in group.labels:
        if vertex >= web.axes:
            node, dim = web.dim(vertex)
            labelled.setdefault(node, set()).add(dim)
    zeros: dict[Tensor, bool] = {}
    for node in sorted(labelled):
        relation = web.relations[node]
        assert relation is not None
        _judge_node(web, group, node, relation, labelled[node], zeros)


def _judge_node(
    web: Web, group: Coupled, node: int, relation: Relation, dims: set[int], zeros: dict[Tensor, bool]
) -> None:
    carriers = _carriers(web, node, relation, dims, zeros)
    made = relation.zero.of(0)
    for i in made.divisors:
        if i in carriers and carriers[i].zero:
            vertex = web.dim_start[node] + min(carriers[i].dims)
            group.pinned[:] = True
            group.reasons.append(Traced("masking it would divide by zero", web.names[node], vertex=vertex))
    on_output: set[int] = set()
    for axes in relation.outputs:
        on_output |= relation.reach(axes) if axes is not None else set()
    makes = any(axes is not None for axes in relation.outputs)
    sums = relation.sums.products or made.products
    named = {d for (side, _), d in relation.counts.items() if side == "in"}
    for d in sorted(dims - named):  # what positions name is never what is removed
        dim, vertex = relation.dims[d], web.dim_start[node] + d
        if dim.choice is not None:
            group.choices.append(Chosen(_CHOSEN, web.names[node], vertex=vertex, choice=dim.choice))
        elif dim.statistic is not None:
            over = (0,) if relation.sums.never else relation.sums.factors
            over = tuple(i for i in over if i in _bare(d, carriers))
            group.statistics.append(Statistic(dim.statistic, web.names[node], vertex=vertex, inputs=over, centred=True))
        elif ((d not in on_output and makes) or dim.summed) and not _vanishes(d, carriers, sums, only_carriers=True):
            text = "a sum runs over it, and what is removed need not be zero"
            over = _to_mask(d, carriers, sums)
            group.statistics.append(Statistic(text, web.names[node], vertex=vertex, inputs=over))
    for k, axes in enumerate(relation.outputs):
        if axes is None:
            continue
        own = relation.reach(axes) & dims
        if own:
            tensor = web.tensors[(node, ("out", k))]
            products = relation.zero.of(k).products
            zeros[tensor] = all(
                relation.dims[d].choice is not None
                or (d in named and not any(d in c.dims for c in carriers.values()))
                or _vanishes(d, carriers, products, only_carriers=d in named)
                for d in own
            )


_CHOSEN = "a choice is made along it, and what is removed is never chosen"


def _bare(dim: int, carriers: dict[int, _Carrier]) -> tuple[int, ...]:
    """Inputs that carry a dim, first things first."""
    return tuple(i for i, c in sorted(carriers.items()) if dim in c.dims)


def _to_mask(dim: int, carriers: dict[int, _Carrier], products: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """One input for each product over a dim that does not vanish: were it zero there, the sum would be exact."""
    found = []
    for product in products:
        over = [i for i in product if i in carriers and dim in carriers[i].dims]
        if over and not any(carriers[i].zero for i in over):
            found.append(over[0])
    return tuple(dict.fromkeys(found)) or _bare(dim, carriers)[:1]


def _carriers(
    web: Web, node: int, relation: Relation, dims: set[int], zeros: dict[Tensor, bool]
) -> dict[int, _Carrier]:
    found = {}
    for i, axes in enumerate(relation.inputs):
        if axes is None:
            continue
        own = relation.reach(axes) & dims
        if own:
            slot: Slot = ("in", i)
            tensor = web.tensors[(node, slot)]
            masked = isinstance(tensor, Use) and relation.masks.get(i, 0) is not None
            found[i] = _Carrier(own, masked or zeros.get(tensor, False))
        else:
            found[i] = _Carrier(set(), False)
    return found


def _vanishes(
    dim: int, carriers: dict[int, _Carrier], products: tuple[tuple[int, ...], ...], only_carriers: bool
) -> bool:
    """Whether every product is zero on removed elements of a dim.

    Args:
        dim: the dim.
        carriers: by input.
        products: the relation's zero expression.
        only_carriers: skip products without this dim (a bias beside a sum over input channels).
    """
    any_product = False
    for product in products:
        if not product:
            any_product = True
            continue
        present = [carriers[i] for i in product if i in carriers]
        if not present:
            continue
        if only_carriers and not any(dim in c.dims for c in present):
            continue
        any_product = True
        if not any(dim in c.dims and c.zero for c in present):
            return False
    return any_product
