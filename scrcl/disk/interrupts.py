"""Handle Ctrl-C and SIGTERM, by which job schedulers end a job: at once, or after work that must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """The system asks this process to end (SIGTERM).

    Like KeyboardInterrupt, it is no Exception, so no error handler catches it by mistake.
    """


_waiting: list[int] = []  # the signal that is waiting, if any
_blocks = 0  # how many deferred() blocks are open
_ending = False  # whether a SIGTERM has taken effect


@contextmanager
def handled() -> Iterator[None]:
    """Within the block, let SIGTERM raise Terminated, and let both it and Ctrl-C wait for `deferred` blocks.

    Once a SIGTERM has taken effect, others change nothing: `srun` and `torchrun` both pass it on, so one request may
    arrive twice. In threads other than the main one, which receive no signals, nothing changes.
    """
    global _ending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _waiting.clear()
        _ending = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block, let a signal wait for its end; a Ctrl-C after another signal does not wait.

    Yields
    ------
    A function that returns whether a signal is waiting.
    """
    global _blocks
    _blocks += 1
    try:
        yield lambda: bool(_waiting)
    finally:
        _blocks -= 1
        if _waiting and not _blocks:
            _end(_waiting.pop())


def _receive(number: int, frame: FrameType | None) -> None:
    """Let a signal wait while a `deferred` block is open; act on it otherwise, and on a Ctrl-C after another signal."""
    if number == signal.SIGTERM and _ending:
        return
    if _blocks and not (_waiting and number == signal.SIGINT):
        if not _waiting:
            _waiting.append(number)
        return
    _waiting.clear()
    _end(number)


def _end(number: int) -> None:
    """Raise the exception of a signal."""
    global _ending
    _ending = _ending or number == signal.SIGTERM
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
