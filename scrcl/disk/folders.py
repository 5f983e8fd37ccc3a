"""Keep folders of results intact however a run ends: they are locked, and replaced as a whole or not at all.

The files of a run are first written to a folder `.unfinished-*` inside the folder of results. When all of them are on
disk, one rename to `.finished` decides that they count; then each file is moved into place. If a process is killed
before the rename, it has changed nothing. If it is killed after the rename, the next run or reader makes the moves that
are left (`complete`).
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

RUN_MARKS = ("config.yaml", "markers.yaml")  # one of these shows that an earlier run wrote the folder
LOCK = ".lock"
LARGEST_MARK = 1_000_000  # characters
UNFINISHED = ".unfinished-"  # how the name of a folder begins while it is being filled
FINISHED = ".finished"  # the folder of files that only need to be moved
MOVES = "moves.json"  # in FINISHED: which files to move, and which older ones to remove


def refuse_to_overwrite(inputs: Sequence[Path], folder: Path, names: Sequence[str]) -> None:
    """Raise UserError when the results would overwrite an input.

    Parameters
    ----------
    inputs
        The input files.
    folder, names
        The folder of results, and the names of the files to be written there.
    """
    written = {(folder / name).resolve() for name in names}
    endangered = [path for path in inputs if path.resolve() in written]
    if endangered:
        raise UserError(f"The results would overwrite the input {endangered[0]}; choose another folder with --output.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and lock it for this process; the system frees the lock when the process dies.

    Blocks may be nested. A new folder in which nothing was written is removed at the end.

    Parameters
    ----------
    folder
        The folder of results.

    Raises
    ------
    UserError
        When another process has locked it, or when it cannot be written.
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
            with suppress(OSError):  # Windows cannot remove an open file
                os.unlink(folder / LOCK)  # whoever waits for the lock sees that it is gone
        lock.release()
        if new:
            with suppress(OSError):  # the folder is not empty
                folder.rmdir()


@contextmanager
def staged(folder: Path, owned: Sequence[str]) -> Iterator[Path]:
    """Give a temporary folder whose files replace those of `folder` when the block ends well.

    Until then the folder's own files stay as they are, and after an error nothing has changed. `folder` is locked
    meanwhile.

    Parameters
    ----------
    folder
        The folder of results.
    owned
        Every file name that a run may write. At the end, the files of these names that this run did not write are
        removed, so that nothing of an earlier run is left among its results.

    Raises
    ------
    UserError
        When the folder cannot be written, the disk is full, or there are files of these names that no run has written.
    """
    with locked(folder), _sentence_on_failure(folder):
        complete(folder)
        for left_over in folder.glob(f"{UNFINISHED}*"):  # left by a run that was killed
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
    """Turn an OSError into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        raise UserError(f"The results could not be written to {folder}: {reason}.") from error


def _refuse_foreign(folder: Path, owned: Sequence[str]) -> None:
    """Raise UserError when the folder has a file of one of these names, but no run has written the folder."""
    foreign = [name for name in owned if (folder / name).exists()]
    if foreign and not any(_is_of_a_run(folder / mark) for mark in RUN_MARKS):
        raise UserError(
            f"The folder {folder} contains {foreign[0]}, which no earlier run has written; "
            "choose another with --output."
        )


def _is_of_a_run(mark: Path) -> bool:
    """Return whether a run has written this file, since a user's own settings may have the same name."""
    try:
        with mark.open(encoding="utf-8") as file:
            content = yaml.safe_load(file.read(LARGEST_MARK))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and set(content) == {"settings", "provenance"}


def _commit(stage: Path, folder: Path, owned: Sequence[str]) -> None:
    """Flush the new files to disk, decide by one rename that they count, and move them into place."""
    written = [name for name in owned if (stage / name).exists()]
    moves = {"move": written, "remove": [name for name in owned if name not in written]}
    (stage / MOVES).write_text(json.dumps(moves), encoding="utf-8")
    for name in (*written, MOVES):
        for path in (*(stage / name).rglob("*"), stage / name):
            flush(path)
    flush(stage)
    os.replace(stage, folder / FINISHED)
    complete(folder)


def complete(folder: Path) -> None:
    """Make the moves that a run in the folder decided on but has not made; the caller holds the lock.

    Parameters
    ----------
    folder
        The folder of results.

    Raises
    ------
    UserError
        When the list of moves was not written by a run.
    """
    finished = folder / FINISHED
    if not finished.is_dir():
        return
    if (finished / MOVES).exists():  # otherwise all moves are made
        moves = _read_moves(finished / MOVES)
        for name in moves["remove"]:
            _remove(folder / name)
        for name in moves["move"]:
            if (finished / name).exists():
                if (finished / name).is_dir():  # a folder cannot replace another
                    _remove(folder / name)
                os.replace(finished / name, folder / name)
        flush(folder)
        (finished / MOVES).unlink()
    shutil.rmtree(finished)


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_moves(path: Path) -> dict[str, list[str]]:
    """Read what to move and what to remove, and raise UserError unless every name is in the folder itself.

    A file with other names may be somebody else's.
    """
    try:
        moves = json.loads(path.read_text(encoding="utf-8"))
        names = [*moves["move"], *moves["remove"]]
        # PureWindowsPath knows both / and \\ as separators.
        if any(name != PureWindowsPath(name).name or name in ("", ".", "..") for name in names):
            raise ValueError("it names files elsewhere")
        return moves
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} was not written by a run ({one_line(error)}); remove {path.parent}.") from error


def complete_for_reading(folder: Path) -> None:
    """Call `complete` before the folder is read.

    Raises
    ------
    UserError
        When another run is writing to the folder, or when the moves cannot be made.
    """
    if os.path.isdir(folder / FINISHED):
        with locked(folder), _sentence_on_failure(folder):
            complete(folder)


def write_safely(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: first under another name, which is then renamed."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")  # no mkstemp, whose files only their owner can read
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
    """Flush a file or folder to disk, where the system can, so that a power cut does not lose it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # These mean that this kind of file system cannot flush.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM):
            raise
    finally:
        os.close(handle)
