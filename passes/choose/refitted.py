"""Refits of a whole pruned model at no new observation: all readers of what goes at once, from second moments at hand.

What a reader's weights become depends only on which of its rows go (see ``surgeon.change``), so that candidates which
differ in a few widths share nearly all of the solves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.rulings import first
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.passes.choose import surgeon
from graphprune.relation import Values
from graphprune.rewrite.removal import Removal, Selection
from graphprune.rewrite.rewrite import rewrite

MEMORY = 1 << 29
"""Bytes of solves that are kept; those that were not used for longest go first."""


class Refitted:
    """Pruned models whose readers are refitted.

    Args:
        analysis: of the original.
        contractions: of the original on calibration inputs.
    """

    def __init__(self, analysis: Analysis, contractions: Sequence[Contraction]) -> None:
        self.analysis = analysis
        self.products = {p.output: p for p in find_products(analysis.model, analysis.rulings, shared=True)}
        self.contractions = [c for c in contractions if c.adjustable]
        self._changes: OrderedDict[tuple[int, bytes], Values] = OrderedDict()
        self._held = 0

    def without(self, selection: Selection) -> Model:
        """The model without some classes.

        Args:
            selection: removed classes by group id.

        Raises:
            InputError: the selection names no group, a pinned class, or everything.
        """
        done = rewrite(self.analysis, selection)
        products = {product.output: product for product in find_products(done.model, self.analysis.rulings)}
        editor = Editor(done.model)
        for contraction in self.contractions:
            output = first(self.analysis.model.nodes[contraction.node])
            rows = contraction.summed.kept(done.removal.kept)
            if output in products and len(rows) < contraction.summed.size:
                self._refit(editor, done.model, contraction, products[output], done.removal)
        return editor.finish()

    def _refit(
        self, editor: Editor, model: Model, contraction: Contraction, product: Product, removal: Removal
    ) -> None:
        """Give one reader the weights that make up for its rows that went."""
        rows = contraction.summed.kept(removal.kept)
        before = self.products[product.output]
        groups, outputs = (
            self.analysis.rulings.span(product.output, before.form, part).kept(removal.kept)
            for part in (before.form.groups, before.form.outputs)
        )
        change = self._change(contraction, rows)[groups][:, :, outputs]
        held = model.array(product.weight)
        matrix = product.matrix(held)
        if matrix.shape != (change.shape[0], len(rows), change.shape[2]):
            return
        editor.renew(product.weight, product.weight_of(matrix + change[:, rows], held))
        if not product.inner:
            mean = contraction.mean[groups]
            product.shift(editor, model, -np.einsum("gi,gio->go", mean, change))

    def _change(self, contraction: Contraction, rows: Values) -> Values:
        """How its weights change when only some rows stay."""
        key = contraction.node, rows.tobytes()
        if key in self._changes:
            self._changes.move_to_end(key)
            return self._changes[key]
        gone = np.setdiff1d(np.arange(contraction.summed.size), rows)
        found = surgeon.change(contraction, gone).astype(np.float32)
        self._changes[key], self._held = found, self._held + found.nbytes
        while self._held > MEMORY and len(self._changes) > 1:
            self._held -= self._changes.popitem(last=False)[1].nbytes
        return found
