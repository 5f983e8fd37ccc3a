"""Signals that wait for the end of what must not be cut in two, and what an interrupted analysis leaves behind."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from scrcl.analysis import analyse
from scrcl.disk import interrupts
from scrcl.recipes import CellSettings
from scrcl.runtime import limited_threads


def test_a_signal_waits_for_the_end_of_the_block():
    after = []
    with interrupts.handled():
        with pytest.raises(interrupts.Terminated), interrupts.deferred() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            after.append(asked())
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            with interrupts.deferred():
                os.kill(os.getpid(), signal.SIGINT)
            after.append("outer")
            os.kill(os.getpid(), signal.SIGINT)  # the second does not wait
            after.append("never")
    assert after == [True, "outer"]
    with interrupts.handled(), pytest.raises(interrupts.Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_second_sigterm_neither_cuts_the_block_short_nor_what_ends_the_run():
    """Slurm and torchrun both send it, one after the other or with the clean-up between."""
    after = []
    with interrupts.handled(), pytest.raises(interrupts.Terminated):
        try:
            with interrupts.deferred():
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                after.append("the block")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            after.append("the clean-up")
    assert after == ["the block", "the clean-up"]
    with interrupts.handled(), pytest.raises(interrupts.Terminated):  # the next run can be ended again
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_threads_after_ctrl_c_in_a_notebook(counts, fast, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with limited_threads(2):
        with pytest.raises(KeyboardInterrupt):
            analyse(counts, CellSettings(**fast))
        assert torch.get_num_threads() == 2
