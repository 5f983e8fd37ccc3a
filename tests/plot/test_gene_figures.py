"""Which cells the figures of marker genes are drawn from."""

from __future__ import annotations

from grouped import grouped

from scrcl.genes.ranking import GROUP
from scrcl.plot import genes


def test_parts_of_groups():
    cells = grouped([[i] for i in range(9)], list("aaaaaabbc"), ["x"])
    assert list(genes.at_most_per_group(cells, 2).obs[GROUP].value_counts(sort=False)) == [2, 2, 1]
    equal = genes.equal_groups(cells, 4)
    assert list(equal.obs[GROUP].value_counts(sort=False)) == [4, 4, 4] and equal.obs_names.is_unique
    assert list(equal.X.toarray().ravel()[4:]) == [6, 6, 7, 7, 8, 8, 8, 8]
    first = equal.X.toarray().ravel()[:4]
    assert len(set(first)) == 4 and list(first) == sorted(first)
