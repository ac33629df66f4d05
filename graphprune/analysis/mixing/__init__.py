"""Changes of basis: which classes of a group may be replaced by linear combinations of themselves, and where.

Where every node that a group passes is linear along it, ``x`` may become ``x R`` with any invertible R, if what sums
over it becomes ``R^-1 W``: nothing that the model computes changes. The classes of a group stand on an axis once, or
several times (in every head): each such row of elements, one for each class, is a *strand*. Strands that meet are of
one *space* and change by one matrix; where a sum runs over two of them (queries with keys, a tensor with a weight), the
one changes by R and the other by ``R^-T``, which is its *sign*. A node that knows of lengths alone (a root mean square)
lets orthogonal matrices pass; so does a strand that would have to change by both.

All is read off relations (``terms``, ``mixed``, ``isotropic``, ``centring``) and index maps; no operator is named.
"""

from graphprune.analysis.mixing.mixing import Gain, Meeting, Mixing, NotLinear, Segment
from graphprune.analysis.mixing.walk import find_mixing

__all__ = ["Gain", "Meeting", "Mixing", "NotLinear", "Segment", "find_mixing"]
