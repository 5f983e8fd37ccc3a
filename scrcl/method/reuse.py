"""Keep the memory of large arrays of a training step for those that come after them.

The C library gives it back to the system at once. The system clears every page that it hands out anew, and that took a
quarter of a step of many cells.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LARGE = 2**25  # bytes; of smaller ones the C library takes care, see `runtime.keep_freed_memory`
aten = torch.ops.aten


def _value_by_value(*args: Any) -> tuple[int, ...]:
    """Return the shape of what is computed from arrays of one shape, columns and numbers; else that of nothing."""
    shapes = [x.shape for x in args if isinstance(x, Tensor)]
    largest = max(shapes, key=math.prod)
    return largest if all(shape in (largest, (*largest[:1], 1)) for shape in shapes) else (0,)


# What makes large arrays in a step: the shape of the result, and the form that writes into memory it is given, by name.
_MAKERS: dict[Any, tuple[Callable[..., Any], Any, str]] = {
    aten.empty.memory_format: (lambda size: size, None, ""),
    aten.empty_like.default: (_value_by_value, None, ""),
    aten.new_empty.default: (lambda x, size: size, None, ""),
    aten.mm.default: (lambda a, b: (len(a), b.shape[1]), aten.mm.out, "out"),
    aten.add.Tensor: (_value_by_value, aten.add.out, "out"),
    aten.mul.Tensor: (_value_by_value, aten.mul.out, "out"),
    aten.threshold_backward.default: (_value_by_value, aten.threshold_backward.grad_input, "grad_input"),
    aten.leaky_relu_backward.default: (_value_by_value, aten.leaky_relu_backward.grad_input, "grad_input"),
}


def kept_memory(size: int, device: torch.device) -> AbstractContextManager[Any]:
    """Return the block within which memory is kept, where the largest arrays, of `size` values, are large enough.

    In it every operation passes through Python, which small steps would notice.
    """
    return KeptMemory() if device.type == "cpu" and 4 * size >= LARGE else nullcontext()


class KeptMemory(TorchDispatchMode):
    """Within the block, large arrays of a CPU take the memory of earlier ones of that size that nothing holds any more.

    What is computed stays the same, to the last bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: defaultdict[int, list[np.ndarray]] = defaultdict(list)  # by number of values

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # torch's switch; with it, every operation would take ten times as long here
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call one of torch's operations, with memory for its result where this has some; this is torch's protocol."""
        kwargs = kwargs or {}
        if func not in _MAKERS:
            return func(*args, **kwargs)
        shape_of, into, name = _MAKERS[func]
        shape = shape_of(*args)
        if 4 * math.prod(shape) < LARGE or not _are_plain(args, kwargs):
            return func(*args, **kwargs)
        memory = self._memory(shape)
        return memory if into is None else into(*args, **kwargs, **{name: memory})

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor whose values are not set."""
        kept = self._kept[math.prod(shape)]
        memory = kept.pop() if kept else np.empty(math.prod(shape), dtype=np.float32)
        lent = memory.reshape(shape)  # an array of its own, which ends with the tensor
        weakref.finalize(lent, kept.append, memory).atexit = False
        return torch.from_numpy(lent)


def _are_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether all tensors are dense float32 of a CPU, row by row, and the result will be."""
    wanted = kwargs.get("dtype") in (None, torch.float32) and kwargs.get("device") in (None, torch.device("cpu"))
    return wanted and all(
        x.is_cpu and x.layout == torch.strided and x.dtype == torch.float32 and x.is_contiguous()
        for x in args
        if isinstance(x, Tensor)
    )
