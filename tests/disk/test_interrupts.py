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
            for _ in range(2):  # slurm and torchrun both send it
                os.kill(os.getpid(), signal.SIGTERM)
            after.append(asked())
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            with interrupts.deferred():
                os.kill(os.getpid(), signal.SIGINT)
            after.append("outer")
            os.kill(os.getpid(), signal.SIGINT)  # the second does not wait
            after.append("never")
        with pytest.raises(interrupts.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert after == [True, "outer"]


def test_threads_after_ctrl_c_in_a_notebook(counts, fast, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with limited_threads(2):
        with pytest.raises(KeyboardInterrupt):
            analyse(counts, CellSettings(**fast))
        assert torch.get_num_threads() == 2
