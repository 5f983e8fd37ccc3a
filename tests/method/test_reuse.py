"""Memory of large arrays is used again when nothing holds it, and what is computed stays the same."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.nn.functional import leaky_relu_, relu_

from scrcl.method import reuse
from scrcl.method.reuse import KeptMemory, kept_memory

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch):
    monkeypatch.setattr(reuse, "LARGE", 4)


def test_memory_is_used_again_when_nothing_holds_it():
    with KeptMemory():
        first = torch.empty(5, 3)
        second = torch.empty(5, 3)
        places = first.data_ptr(), second.data_ptr()
        assert places[0] != places[1]
        del first
        third = torch.empty_like(second)
        assert third.data_ptr() == places[0]
        part = second[1:]
        del second
        assert third.new_empty(5, 3).data_ptr() not in places  # a part of it is in use
        del part
        assert torch.empty(3, 5).data_ptr() == places[1]  # the number of values decides
        assert torch.empty(4, 3).data_ptr() not in places


def test_other_tensors_are_left_alone():
    with KeptMemory() as kept:
        torch.empty(5, 3, dtype=torch.float64)
        torch.empty(5, 3, dtype=torch.int64)
        torch.empty_like(torch.zeros(5, 3).T)
        torch.zeros(5, 3).double().new_empty(5, 3)
        assert torch.empty_like(torch.zeros(3, 5).T).shape == (5, 3)
        assert not kept._kept


def test_small_arrays_are_left_alone(monkeypatch):
    monkeypatch.setattr(reuse, "LARGE", 64)
    with KeptMemory() as kept:
        torch.empty(5, 3)
        assert not kept._kept
        torch.empty(4, 4)
        assert list(kept._kept) == [16]


def test_memory_is_kept_on_a_cpu_alone_and_where_arrays_are_large():
    assert isinstance(kept_memory(1, CPU), KeptMemory)
    assert not isinstance(kept_memory(0, CPU), KeptMemory)
    assert not isinstance(kept_memory(10, torch.device("cuda")), KeptMemory)


def test_nothing_is_kept_after_the_block():
    with KeptMemory() as kept:
        one = torch.empty(5, 3)
        del one
        (memory,) = kept._kept[15]
        ended = weakref.ref(memory)
        del memory
    del kept
    gc.collect()
    assert ended() is None


def test_values_and_gradients_stay_the_same():
    def computed() -> list[torch.Tensor]:
        torch.manual_seed(3)
        x, w = torch.randn(6, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
        h = leaky_relu_(x @ w)
        both = relu_(h * 2.0) + h * x.sum(1, keepdim=True)
        (both * both).sum().backward()
        return [both.detach().clone(), x.grad.clone(), w.grad.clone()]

    asked = computed()
    with KeptMemory() as kept:
        for _ in range(3):
            for found, expected in zip(computed(), asked):
                assert torch.equal(found, expected)
        assert kept._kept


def test_errors_are_those_of_torch():
    with KeptMemory(), pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))
