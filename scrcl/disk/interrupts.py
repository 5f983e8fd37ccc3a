"""Ctrl-C and SIGTERM, by which job schedulers end a job: at once, or after what must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """The system asks this process to end (SIGTERM). As with KeyboardInterrupt, no handler of errors takes it for one."""


_waiting: list[int] = []  # the signal that waits, if one does
_blocks = 0  # deferred() blocks that are open


@contextmanager
def handled() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated, and deferred() is respected by it and by Ctrl-C.

    In threads other than the main one, which receive no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _waiting.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block a signal waits for its end; the value tells whether one does. A second signal does not wait."""
    global _blocks
    _blocks += 1
    try:
        yield lambda: bool(_waiting)
    finally:
        _blocks -= 1
        if _waiting and not _blocks:
            _end(_waiting.pop())


def _receive(number: int, frame: FrameType | None) -> None:
    if _blocks and not _waiting:
        _waiting.append(number)
        return
    _waiting.clear()
    _end(number)


def _end(number: int) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
