"""Products of activations with constants: what they sum over, as rows of a matrix, and the weight as the other.

``rows(x) @ matrix(weight) + bias`` is what a node makes of ``x``, one product for each group. Which nodes are products,
and how, their relations say (see ``graphprune.analysis.forms``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from graphprune.analysis.forms import Cut, Form, Letter, solve
from graphprune.analysis.origins import Index, Lost, Way, shape_of, way
from graphprune.analysis.protos import decoded
from graphprune.analysis.rulings import Computed, Rulings, first
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Shape, Values
from graphprune.run.moments import FloatArray

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, eq=False)
class Product:
    """A product of an activation with a constant.

    Attributes:
        node: index of the node in the model.
        input, output: the activation, and what the node makes first.
        form: how the node is a product.
        way: from the node back to the constant.
        shape: of the weight as the node reads it.
        sizes: of the letters of the weight.
        dtype: of the weight as the node reads it.
        bias: name of the constant that is added to each output, None where there is none.
        adder: index of the node that adds it, where that is another one.
    """

    node: int
    input: str
    output: str
    form: Form
    way: Way
    shape: Shape
    sizes: Mapping[Letter, int]
    dtype: npt.DTypeLike
    bias: str | None = None
    adder: int | None = None

    @property
    def weight(self) -> str:
        """Name of the constant that is its weight."""
        return self.way.source

    @property
    def inner(self) -> bool:
        """Whether the product is a step inside the node."""
        return self.form.inner

    @property
    def positions(self) -> int:
        """Places in the window of a convolution, 1 for others."""
        return prod(self.form.places.values())

    @property
    def widths(self) -> tuple[int, int]:
        """Groups, and what a row of one sums over."""
        form = self.form
        return prod(self.sizes[n] for n in form.groups), prod(self.sizes[n] for n in form.sums)

    def reads_as(self, other: Product) -> bool:
        """Whether it sums the same rows as another one, as queries, keys and values do."""
        mine, others = (
            (
                *(one.input, one.form.read, one.form.groups, one.form.rows, one.form.sums, one.form.window),
                {n: one.sizes[n] for n in (*one.form.groups, *one.form.sums)},
            )
            for one in (self, other)
        )
        return mine == others

    @property
    def layout(self) -> tuple[object, ...]:
        """How the weight is read: alike where it becomes the same matrix."""
        form, roles = self.form, dict[Letter, tuple[str, int]]()
        for role in ("groups", "sums", "outputs"):
            roles.update((n, (role, k)) for k, n in enumerate(getattr(form, role)))
        axes = tuple(tuple((*roles[n], self.sizes[n]) for n in axis) for axis in form.held)
        return self.shape, axes, form.inner, form.window is not None and form.window.backward

    @cached_property
    def order(self) -> Index | None:
        """For each element as the node reads it the element of the constant; None where they follow each other."""
        order = self.way.order()
        flat = None if order is None else order.reshape(-1)
        return None if flat is None or bool((np.diff(flat) == 1).all()) else order

    def matrix(self, weight: Values) -> Values:
        """The weight as ``[groups, sums, outputs of a group]``, float32."""
        return self.arranged(weight.astype(np.float32))

    def arranged(self, weight: Values) -> Values:
        """The same in the type of the weight."""
        value: Values = (weight if self.order is None else weight.reshape(-1)[self.order]).reshape(self.shape)
        value = self.form.window.turned(value) if self.form.window is not None else value
        letters, sizes = _flat(self.form.held), self.sizes
        apart: Values = value.reshape([sizes[n] for n in letters])
        wanted = (self.form.groups, self.form.sums, self.form.outputs)
        turned = apart.transpose([letters.index(n) for part in wanted for n in part])
        return turned.reshape([prod(sizes[n] for n in part) for part in wanted])

    def read_of(self, matrix: Values) -> Values:
        """A matrix as a weight that the node reads."""
        letters = _flat(self.form.held)
        wanted = [*self.form.groups, *self.form.sums, *self.form.outputs]
        apart = matrix.reshape([self.sizes[n] for n in wanted])
        made: Values = apart.transpose([wanted.index(n) for n in letters]).reshape(self.shape)
        return self.form.window.turned(made) if self.form.window is not None else made

    def weight_of(self, matrix: Values, like: Values) -> Values:
        """The inverse of :meth:`matrix`, in the shape and type of another weight."""
        made = self.read_of(matrix)
        if self.order is not None:
            back = np.empty_like(made.reshape(-1))
            back[self.order.reshape(-1)] = made.reshape(-1)
            made = back
        return made.reshape(like.shape).astype(like.dtype)

    def choose(self, x: Values, most: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Some rows of a product.

        Args:
            x: the input.
            most: number of rows.
            rng: which chooses them.

        Returns:
            Their numbers, ascending, and for each the sample that it is of.
        """
        sizes = self._rows(x)
        count = prod(sizes)
        chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
        return chosen, chosen * (sizes[0] if sizes else 1) // max(count, 1)

    def rows(self, x: Values, chosen: IntArray) -> Values:
        """What these rows hold: ``[groups, n, sums]``."""
        form = self.form
        letters, sizes = _flat(form.read), self._solved(form.read, x)
        if form.window is not None:
            kernel = [self.sizes[n] for n in form.places]
            seen = form.window.view(x, kernel)
            sizes = {**sizes, **self._solved(form.read, seen)}
            letters += list(form.places)
            x = seen
        return self._pick(x, letters, sizes, (form.rows, form.groups, form.sums), chosen)

    def results(self, y: Values, chosen: IntArray) -> Values:
        """What these rows come to in an output: ``[groups, n, outputs of a group]``."""
        form, letters = self.form, _flat(self.form.made)
        own = {*form.groups, *form.outputs}
        rows = [n for n in form.rows if n in letters]
        rest = tuple(n for n in letters if n not in rows and n not in own)  # of size 1
        return self._pick(y, letters, self._solved(form.made, y), ((*rest, *rows), form.groups, form.outputs), chosen)

    def _rows(self, x: Values) -> list[int]:
        sizes, window = self._solved(self.form.read, x), self.form.window
        if window is not None:
            space = window.space([x.shape[a] for a in window.input], [self.sizes[n] for n in self.form.places])
            sizes.update(zip((self.form.read[a][0] for a in window.input), space, strict=True))
        return [sizes[n] for n in self.form.rows]

    def _solved(self, cut: Cut, value: Values) -> dict[Letter, int]:
        found = solve(cut, value.shape[: len(cut)], self.sizes)
        assert found is not None, f"{self.output!r}: a tensor of shape {value.shape} is not what its relation says"
        return found

    @staticmethod
    def _pick(
        value: Values,
        letters: list[Letter],
        sizes: Mapping[Letter, int],
        wanted: tuple[tuple[Letter, ...], ...],
        chosen: IntArray,
    ) -> Values:
        """Some rows of a tensor, ``[groups, n, what is left]``, single precision."""
        rows = [sizes[n] for n in wanted[0]]
        apart = value.reshape([sizes[n] for n in letters]).transpose([letters.index(n) for p in wanted for n in p])
        found = apart[np.unravel_index(chosen, rows)] if rows else apart[None][chosen]
        found = found.reshape(len(chosen), *(prod(sizes[n] for n in part) for part in wanted[1:]))
        return np.ascontiguousarray(found.transpose(1, 0, 2), dtype=np.float32)

    def added(self, model: Model) -> FloatArray | None:
        """The bias, ``[groups, outputs of a group]``, None where there is none."""
        if self.bias is None:
            return None
        value = model.array(model.root(self.bias)).astype(np.float64)
        letters = [*self.form.groups, *self.form.outputs]
        if self.adder is not None:
            made = [n for n in _flat(self.form.made) if n in letters]
            value = value.reshape([self.sizes[n] for n in made]).transpose([made.index(n) for n in letters])
        return value.reshape(prod(self.sizes[n] for n in self.form.groups), -1)

    def beside(self, change: Values) -> Values:
        """Numbers for each output, ``[groups, outputs of a group]``, as the node takes them or one adds them to it."""
        return change.reshape(-1) if self.form.slot is not None else _beside(self.form, self.sizes, change)

    def shift(self, editor: Editor, model: Model, change: Values) -> None:
        """Add to the bias; where there is none, one is made.

        Args:
            editor: of the model.
            model: the model.
            change: shape ``[groups, outputs of a group]``, in any order that is flat.
        """
        node = self.node if self.adder is None else self.adder
        change = self.beside(change)
        if self.bias is not None:
            before = model.array(model.root(self.bias))
            value = (before.astype(np.float64) + change.reshape(before.shape)).astype(before.dtype)
            if editor.renew(self.bias, value):
                return
            position = self.form.slot if self.adder is None else list(editor.nodes[node].input).index(self.bias)
            assert position is not None
            editor.redirect(node, position, editor.constant(self.bias, value, node))
            return
        made = editor.constant(f"{self.output}/bias", change.astype(self.dtype), self.node)
        if self.form.slot is not None:
            editor.redirect(self.node, self.form.slot, made)
        else:
            editor.behind(self.node, "Add", made)


def alike(products: Iterable[Product]) -> list[list[Product]]:
    """Products in the sets that sum the same rows, in the order of the first of each."""
    found: list[list[Product]] = []
    for product in products:
        own = next((one for one in found if product.reads_as(one[0])), None)
        if own is None:
            found.append([product])
        else:
            own.append(product)
    return found


def _flat(cut: Cut) -> list[Letter]:
    return [n for axis in cut for n in axis]


def _beside(form: Form, sizes: Mapping[Letter, int], change: Values) -> Values:
    """Numbers for each output in the shape that broadcasts to output 0."""
    letters = [*form.groups, *form.outputs]
    made = [n for n in _flat(form.made) if n in letters]
    value = change.reshape([sizes[n] for n in letters]).transpose([letters.index(n) for n in made])
    return value.reshape(_shape_beside(form, sizes))


def _shape_beside(form: Form, sizes: Mapping[Letter, int]) -> Shape:
    own = {*form.groups, *form.outputs}
    shape = [prod(sizes[n] for n in axis if n in own) for axis in form.made]
    return tuple(shape[min(form.channels, default=len(shape)) :])


def find_products(model: Model, rulings: Rulings, shared: bool = False) -> list[Product]:
    """Every product of the main graph, in the order of the nodes; of a node that makes several the first.

    Args:
        model: the model.
        rulings: what is known of its nodes, or of those of the model that it was made of.
        shared: also those whose weight is read elsewhere.
    """
    ways = rulings.constants(model)
    found = []
    for index, node in enumerate(model.nodes):
        ruling = rulings.of(node)
        if ruling is not None and ruling.forms:
            made = (_product(model, rulings, ways, index, form) for form in ruling.forms)
            product = next((p for p in made if p is not None), None)
            found += [product] if product is not None and (shared or _own(model, product)) else []
    return found


def _product(model: Model, rulings: Rulings, ways: Computed, index: int, form: Form) -> Product | None:
    """A node as a product, where its weight is a constant of floats, as it is or moved or converted."""
    node, ruling = model.nodes[index], rulings.of(model.nodes[index])
    if ruling is None or ruling.kinds[form.w] not in FLOATS:
        return None
    try:
        found = way(model, ways, index, form.w)
    except Lost:
        return None
    source, kind = model.sources[found.source], ruling.kinds[form.w]
    if not found.moved or source.kind == "fill" or source.dtype not in FLOATS or kind is None:
        return None
    step = found.steps[0] if found.steps else None
    shape = source.shape if step is None else tuple(shape_of(step.relation, step.relation.outputs[step.output] or ()))
    sizes = form.sizes(shape, decoded(node))
    if sizes is None:
        return None
    dtype, bias, adder = helper.tensor_dtype_to_np_dtype(kind), None, None
    if form.slot is not None:
        bias = node.input[form.slot] if form.slot < len(node.input) and node.input[form.slot] else None
    elif not form.inner:
        bias, adder = _added(model, rulings, first(node), _shape_beside(form, sizes))
    added = None if bias is None else model.sources.get(model.root(bias))
    if bias is not None and (added is None or added.dtype not in FLOATS):
        return None
    return Product(index, node.input[form.x], first(node), form, found, shape, sizes, dtype, bias, adder)


def _own(model: Model, product: Product) -> bool:
    """Whether nothing else reads the weight of a product, nor anything between."""
    return all(
        len(model.uses.get(name, ())) == 1
        and name not in model.output_names
        and not any(name in names for names in model.captured.values())
        for name in product.way.names
    )


def _added(model: Model, rulings: Rulings, output: str, shape: Shape) -> tuple[str | None, int | None]:
    """The bias that a following node adds."""
    for node, other in joined(model, rulings, output):
        source = model.sources.get(model.root(other))
        if source is not None and source.dtype in FLOATS and source.shape == shape:
            return other, node
    return None, None


def joined(model: Model, rulings: Rulings, output: str) -> Iterator[tuple[int, str]]:
    """The node that adds something to a tensor that nothing else reads, and what it adds."""
    uses = model.uses.get(output, [])
    if len(uses) == 1 and output not in model.output_names and rulings.joins(model.nodes[uses[0].node]):
        yield uses[0].node, model.nodes[uses[0].node].input[1 - uses[0].input]
