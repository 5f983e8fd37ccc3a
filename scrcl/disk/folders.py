"""Folders of results that survive whatever ends a run: locked, and replaced as a whole or not at all.

The files of a run are first written to a folder `.unfinished-*` beside them. When all are there and on
the disk, one rename to `.finished` decides that they hold; then each takes its place. A process that is killed before
the rename has changed nothing, and one that is killed after it leaves moves that the next run or reader makes (complete).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

import filelock
import yaml

from scrcl.disk import interrupts
from scrcl.messages import UserError, one_line

RUN_MARKS = ("config.yaml", "markers.yaml")  # the files by which a folder is known as that of an earlier run
LOCK = ".lock"
LARGEST_MARK = 1_000_000  # signs
UNFINISHED = ".unfinished-"  # starts the name of a folder that is being filled
FINISHED = ".finished"  # the folder of files that only have to be moved
MOVES = "moves.json"  # in FINISHED: which files to move, and which older ones to remove


def refuse_to_overwrite(inputs: Sequence[Path], folder: Path, names: Sequence[str]) -> None:
    """Raise UserError where one of the inputs would be overwritten by a file of these names in folder."""
    written = {(folder / name).resolve() for name in names}
    endangered = [path for path in inputs if path.resolve() in written]
    if endangered:
        raise UserError(f"The results would overwrite the input {endangered[0]}; choose another folder with --output.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make folder if need be, and keep it for this process alone; the system frees it when the process dies.

    Blocks may be nested. A new folder into which nothing was written is removed at the end.
    Raises UserError where another process has it, or where it cannot be written.
    """
    new = not os.path.exists(folder)  # unlike Path.exists, no error for an impossible name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"Another run is writing to {folder}; wait for its end, or choose another folder with --output."
        ) from None
    except OSError as error:
        raise UserError(
            f"The output folder {folder} cannot be written: {error.strerror}; choose another with --output."
        ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:  # the outermost block
            with suppress(OSError):  # Windows removes no open file
                os.unlink(folder / LOCK)  # one who waits for it sees that it is gone
        lock.release()
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def staged(folder: Path, owned: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files replace those of folder when the block ends well; folder is locked meanwhile.

    Until then folder's own files stay whole, and after an error nothing has changed.
    owned: every file name that a run may write; those that this run did not write
    are removed at the end, so that nothing of an earlier run stands beside the
    results of this one.
    Raises UserError where the folder cannot be written, the disk is full, or files
    of these names are there that no run has written.
    """
    with locked(folder), _sentence_on_failure(folder):
        complete(folder)
        for left_over in folder.glob(f"{UNFINISHED}*"):  # of a run that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        _refuse_foreign(folder, owned)
        stage = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            yield stage
            with interrupts.deferred():
                _commit(stage, folder, owned)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _sentence_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        raise UserError(f"The results could not be written to {folder}: {reason}.") from error


def _refuse_foreign(folder: Path, owned: Sequence[str]) -> None:
    foreign = [name for name in owned if (folder / name).exists()]
    if foreign and not any(_is_of_a_run(folder / mark) for mark in RUN_MARKS):
        raise UserError(
            f"The folder {folder} has a {foreign[0]} that is not of an earlier run; choose another with --output."
        )


def _is_of_a_run(mark: Path) -> bool:
    """Whether a run has written this file; somebody's own settings may have its name."""
    try:
        with mark.open(encoding="utf-8") as file:
            content = yaml.safe_load(file.read(LARGEST_MARK))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and set(content) == {"settings", "provenance"}


def _commit(stage: Path, folder: Path, owned: Sequence[str]) -> None:
    written = [name for name in owned if (stage / name).exists()]
    moves = {"move": written, "remove": [name for name in owned if name not in written]}
    (stage / MOVES).write_text(json.dumps(moves), encoding="utf-8")
    for name in (*written, MOVES):
        flush(stage / name)
    flush(stage)
    os.replace(stage, folder / FINISHED)
    complete(folder)


def complete(folder: Path) -> None:
    """Make the moves that a run in folder had decided on, as far as they are not yet made; the caller has the lock."""
    finished = folder / FINISHED
    if not finished.is_dir():
        return
    if (finished / MOVES).exists():  # else all are made
        moves = _read_moves(finished / MOVES)
        for name in moves["remove"]:
            (folder / name).unlink(missing_ok=True)
        for name in moves["move"]:
            if (finished / name).exists():
                os.replace(finished / name, folder / name)
        flush(folder)
        (finished / MOVES).unlink()
    shutil.rmtree(finished)


def _read_moves(path: Path) -> dict[str, list[str]]:
    """What to move and what to remove. Raises UserError unless all of it is in the folder itself: it may be somebody else's."""
    try:
        moves = json.loads(path.read_text(encoding="utf-8"))
        names = [*moves["move"], *moves["remove"]]
        if any(name != PureWindowsPath(name).name or name in ("", ".", "..") for name in names):  # knows / and \\
            raise ValueError("it names files elsewhere")
        return moves
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not of a run ({one_line(error)}); remove {path.parent}.") from error


def complete_for_reading(folder: Path) -> None:
    """complete, before folder is read. Raises UserError where another run is at it, or where it cannot be done."""
    if os.path.isdir(folder / FINISHED):
        with locked(folder), _sentence_on_failure(folder):
            complete(folder)


def write_safely(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: under another name first, then renamed."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")  # mkstemp's files are nobody else's to read
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def flush(path: Path) -> None:
    """Bring a file or folder to the disk, so that a power cut does not take it; where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM):  # not on this kind of file system
            raise
    finally:
        os.close(handle)
