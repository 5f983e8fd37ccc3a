"""How many cells training takes at a time, by the memory that there may be."""

from __future__ import annotations

import pytest

from scrcl.messages import UserError
from scrcl.prepare import plan


def test_plan_takes_the_largest_block_that_fits_and_refuses_what_cannot():
    sizes = {"n_cells": 1_000_000, "n_genes": 2000, "n_stored": 10**8, "n_neighbors": 15, "hidden": 256}
    blocks = [plan.plan(**sizes, max_memory=limit).block for limit in (1000, 30, 20)]
    assert blocks == [0, plan.BLOCKS[0], plan.BLOCKS[0]]
    tight = plan.plan(**sizes).gib
    assert plan.plan(**sizes, max_memory=tight - 0.1).block < plan.BLOCKS[0]
    with pytest.raises(UserError, match="too little: 1000000 cells x 2000 genes at --hidden 256 need about 1"):
        plan.plan(**sizes, max_memory=4)
    assert plan.plan(**sizes, refined_width=64).gib > tight + 0.8  # 44 more columns, 4 MB each, six times
    small = sizes | {"n_cells": 3000, "n_stored": 10**5}
    assert plan.plan(**small).block == 0 and plan.plan(**small).gib < 2


def test_a_card_takes_the_largest_block_that_it_holds():
    sizes = {"n_cells": 1_000_000, "n_genes": 2000, "n_stored": 10**8, "n_neighbors": 15, "hidden": 256}
    on = [plan.plan(**sizes, card_memory=gib) for gib in (80, 36, 24)]
    assert [found.block for found in on] == [1_000_000, plan.CARD_BLOCKS[0], plan.CARD_BLOCKS[1]]
    assert on[0].gib > on[1].gib > on[2].gib
    assert plan.plan(**sizes, card_memory=80, max_memory=16).block == plan.CARD_BLOCKS[2]  # the smaller of both counts
    assert plan.plan(**sizes, max_memory=1000).block == 0  # and so does the card's, however much is allowed
    assert plan.plan(**sizes, card_memory=24, max_memory=1000) == on[2]
    small = sizes | {"n_cells": 3000, "n_stored": 10**5}
    assert plan.plan(**small, card_memory=80) == plan.plan(**small)
    with pytest.raises(UserError, match="The card's memory of 8 GiB is too little: .* GiB; use --device cpu"):
        plan.plan(**sizes, card_memory=8)


def test_plan_in_words():
    assert plan.Plan(0, 1.26).in_words() == "all cells at once; about 1.3 GiB of memory"
    assert plan.Plan(512, 9.0).in_words() == "512 cells at a time, values kept sparse; about 9.0 GiB of memory"
