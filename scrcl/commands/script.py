"""Go from a command line to an exit code, as every command does.

Nothing heavy is imported before the flags are read.
"""

from __future__ import annotations

import gc
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from scrcl.disk import interrupts
from scrcl.disk.home import set_home
from scrcl.messages import UserError, did_you_mean, log, one_line, without_home
from scrcl.version import VERSION


class Command(NamedTuple):
    """What a command is for, and the module whose `main(argv, prog)` does it."""

    what: str
    module: str


COMMANDS = {
    "cells": Command("find cell types in scRNA-seq data", "cells"),
    "tissue": Command("find spatial domains in tissue", "tissue"),
    "markers": Command("rank marker genes, draw them, and write a report", "markers"),
    "fetch": Command("fetch published data sets", "fetch"),
    "doctor": Command("look at this machine, its packages, folders and data sets", "doctor"),
}
USAGE = f"""usage: scrcl COMMAND ...

Find cell types in scRNA-seq data and domains in spatial transcriptomics, without labels.

commands:
{chr(10).join(f"  {name:9}{command.what}" for name, command in COMMANDS.items())}

`scrcl COMMAND --help` shows the flags of a command; `scrcl --version` the version."""
_invocation: list[str] = []  # the words by which this process was started


def script(command: str, file: str) -> int:
    """What `python runSC.py` and its like do: run a command, with data and results beside the script.

    Parameters
    ----------
    command
        A name in `COMMANDS`.
    file
        The script's own `__file__`.

    Returns
    -------
    The exit code: 0, 2 after one sentence on bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    set_home(Path(file).resolve().parent)
    return run(command, sys.argv[1:], f"python {Path(file).name}")


def console(argv: Sequence[str] | None = None) -> int:
    """What the console command `scrcl` does: run the command that is named first, in the working folder."""
    argv = list(sys.argv[1:] if argv is None else argv)
    set_home(Path())
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if name in ("-V", "--version"):
        print(f"scrcl {VERSION}")
        return 0
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        print(f"Error: There is no command {name!r}{near}.", file=sys.stderr)
        return 2
    return run(name, argv[1:], f"scrcl {name}")


def run(command: str, argv: Sequence[str], prog: str) -> int:
    """Run a command; its exit code."""
    _invocation[:] = [*prog.split(), *argv]
    return guarded(lambda: import_module(f"scrcl.commands.{COMMANDS[command].module}").main(argv, prog))


@contextmanager
def loading() -> Iterator[None]:
    """Import large libraries within the block, for the rest of the process.

    Python's collector would look for garbage among hundreds of thousands of functions and classes while they are
    loaded, now and then during the run, and again when Python ends. They are none, and it takes 3 seconds in all.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()  # what is there now is not looked at again
        gc.enable()


def command_line() -> str:
    """The command line by which this process was started, for provenance; the user's home folder is `~` in it."""
    return without_home(shlex.join(_invocation))


def task_command(task: str) -> str:
    """Return how the analysis of cells (SC) or tissue (ST) is started, in the way this process was."""
    by_script = {"SC": "python runSC.py", "ST": "python runST.py"}
    by_console = {"SC": "scrcl cells", "ST": "scrcl tissue"}
    return (by_console if _invocation[:1] == ["scrcl"] else by_script)[task]


def guarded(main: Callable[[], None]) -> int:
    """Run main with messages on stderr, signals handled, and an exit code in place of a traceback on bad input."""
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        with interrupts.handled():
            main()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        return _no_memory(error)
    except KeyboardInterrupt:
        print("\nInterrupted. No half-written file is left.", file=sys.stderr)
        return 130
    except interrupts.Terminated:
        print("\nTerminated. No half-written file is left.", file=sys.stderr)
        return 143
    except RuntimeError as error:  # torch's OutOfMemoryError is one, and torch may not be loaded
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        return _no_memory(error)
    return 0


def _no_memory(error: BaseException) -> int:
    print(
        f"Error: There is not enough memory ({one_line(error)}); use a larger machine or fewer cells.", file=sys.stderr
    )
    return 2


def set_quiet(quiet: bool) -> None:
    """Whether only warnings, errors and the final table are said."""
    log.setLevel(logging.WARNING if quiet else logging.INFO)
