"""Save what a run has done so far, so that a later run can continue from there to the same result."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from scrcl.disk.folders import write_safely
from scrcl.messages import UserError, log, one_line

NAME = "checkpoint"  # the folder, within the folder of the results
SETTINGS, TRAINING = "settings.json", "training.pt"
OWN_FILES = re.compile(r"settings\.json|training\.pt|seed_\d+\.pt|\.(settings\.json|training\.pt|seed_\d+\.pt)-\d+")
STATE = {"seed", "epoch", "history", "model", "optimizer", "random", "random_cuda"}
SEED = {"labels", "voters", "clustered", "model", "history"}


class Checkpoints:
    """The checkpoint of one run, in a folder of its own.

    Files are written whole or not at all, and are read as plain data only.

    Parameters
    ----------
    folder
        Where to keep it, or None for nowhere. It will hold settings.json (everything that decides the result),
        seed_S.pt (what a finished seed returned) and training.pt (the state of the seed in training). Other files in it
        are an error, and are never removed.
    every
        Epochs from one saved state to the next; 0 to save nothing.
    resume
        Whether to continue from what the folder holds.
    """

    def __init__(self, folder: Path | None = None, every: int = 0, resume: bool = False) -> None:
        self.folder = folder or Path(NAME)
        self.every = every if folder else 0
        self.resume = resume and folder is not None
        self.resuming = False  # whether there is something to continue from
        self.wanted = self.every > 0 or self.resume
        self.is_ours = False  # whether the folder's content belongs to this run
        self.resumed_from = ""  # what part of the checkpoint was used, for people to read

    def open(self, fingerprint: Mapping[str, Any]) -> None:
        """Find what the folder holds, and start afresh unless the run resumes from it.

        Parameters
        ----------
        fingerprint
            Everything that decides what a seed returns, in JSON's types.

        Raises
        ------
        UserError
            When the checkpoint has another fingerprint, or when the folder holds something else.
        """
        here = json.loads(json.dumps(fingerprint))  # in the types that reading it back gives
        there = self._settings() if self.resume else None
        self.resuming, self.resumed_from = there is not None, ""
        if self.resume and there is None:
            log.info("There is no checkpoint in %s to resume: starting from the beginning.", self.folder)
        if there is not None:
            self._require_same(there, here)
        elif self.every:
            self._begin(here)
        self.is_ours = self.every > 0 or self.resuming

    def _begin(self, here: Mapping[str, Any]) -> None:
        """Make the folder, remove the checkpoint of an earlier run, and save the fingerprint of this one."""
        self.folder.mkdir(exist_ok=True)
        foreign = [path.name for path in self.folder.iterdir() if not OWN_FILES.fullmatch(path.name)]
        if foreign:
            raise UserError(
                f"The checkpoint cannot be kept in {self.folder}, which holds {foreign[0]}, a file that no run has "
                "written; choose another folder with --output."
            )
        if (self.folder / SETTINGS).exists():
            log.info("The checkpoint of an earlier run in %s is replaced.", self.folder)
        for path in self._own_files():
            path.unlink()
        write_safely(self.folder / SETTINGS, json.dumps(here, indent=2).encode())

    def _own_files(self) -> Iterator[Path]:
        """Return the files of a checkpoint in the folder."""
        return (path for path in list(self.folder.iterdir()) if OWN_FILES.fullmatch(path.name))

    def _settings(self) -> dict[str, Any] | None:
        """Return the fingerprint in the folder, or None."""
        try:
            there = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
            if not isinstance(there, dict):
                raise ValueError("it holds no settings")
            return there
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(SETTINGS, error) from error

    def _require_same(self, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        """Raise UserError when two fingerprints differ."""
        for name in {**here, **there}:
            if there.get(name) != here.get(name):
                raise UserError(
                    f"The checkpoint in {self.folder} belongs to another run: "
                    f"{name} was {there.get(name)} and is {here.get(name)} now; "
                    "repeat the run as it was, or leave --resume out to start anew."
                )

    def seed(self, seed: int) -> dict[str, Any] | None:
        """Return what a finished seed returned, as it was saved, or None."""
        found = self._read(f"seed_{seed}.pt", SEED)
        self.resumed_from = f"the end of seed {seed}" if found else self.resumed_from
        return found

    def training(self, seed: int) -> dict[str, Any] | None:
        """Return the last saved state of this seed's training, or None."""
        state = self._read(TRAINING, STATE)
        if state is None or state["seed"] != seed:
            return None
        self.resumed_from = f"epoch {state['epoch']} of seed {seed}"
        return state

    def is_due(self, epoch: int) -> bool:
        """Return whether a state is to be saved after this epoch."""
        return self.every > 0 and epoch % self.every == 0

    def keep_training(self, state: Mapping[str, Any]) -> None:
        """Save the state of a training: tensors, numbers, lists and dicts under the names in STATE."""
        self._write(TRAINING, state)

    def keep_seed(self, seed: int, found: Mapping[str, Any]) -> None:
        """Save what a finished seed returned, under the names in SEED."""
        self._write(f"seed_{seed}.pt", found)

    def remove(self) -> None:
        """Remove this run's checkpoint, and nothing else; to be called once the results are in place."""
        if self.is_ours:
            for path in self._own_files():
                path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds something else by now
                self.folder.rmdir()

    def _read(self, name: str, names: set[str]) -> dict[str, Any] | None:
        """Read one file of the checkpoint, or return None when there is nothing to resume from."""
        path = self.folder / name
        if not self.resuming or not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as file:  # torch does not check the checksums
                if file.testzip() is not None:
                    raise ValueError("a checksum does not fit")
            found = torch.load(path, map_location="cpu", weights_only=True)
            if set(found) != names:
                raise ValueError("it holds something else")
            return found
        except Exception as error:  # torch raises many types for damaged files
            raise self._unreadable(name, error) from error

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one file of the checkpoint, unless nothing is to be saved."""
        if self.every:
            buffer = io.BytesIO()
            torch.save(dict(content), buffer)
            write_safely(self.folder / name, buffer.getvalue())

    def _unreadable(self, name: str, error: Exception) -> UserError:
        """Return the error for a file that cannot be read."""
        return UserError(f"{self.folder / name} cannot be read ({one_line(error)}); leave --resume out to start anew.")
