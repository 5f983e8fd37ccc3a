"""What a run has done so far, kept on the disk so that another can go on from there to the same result."""

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

NAME = "checkpoint"  # of the folder, in that of the results
SETTINGS, TRAINING = "settings.json", "training.pt"
OURS = re.compile(r"settings\.json|training\.pt|seed_\d+\.pt|\.(settings\.json|training\.pt|seed_\d+\.pt)-\d+")
STATE = {"seed", "epoch", "history", "model", "optimizer", "random", "random_cuda"}
SEED = {"labels", "clustered", "model", "history"}


class Checkpoints:
    """The checkpoint of one run, in a folder of its own: written whole or not at all, and read as plain data only.

    folder: where, None for nowhere; it will hold settings.json (what decides the result), seed_S.pt (what a finished seed has
        given) and training.pt (the state of the seed in training). Other files in it are an error, never removed.
    every: epochs from one state to the next; 0 for keeping nothing.
    resume: whether to go on from what is there.
    """

    def __init__(self, folder: Path | None = None, every: int = 0, resume: bool = False) -> None:
        self.folder = folder or Path(NAME)
        self.every = every if folder else 0
        self.resume = resume and folder is not None
        self.resuming = False  # whether there is something to go on from
        self.wanted = self.every > 0 or self.resume
        self.is_ours = False  # whether what is in the folder is of this run
        self.resumed_from = ""  # in words, what of the checkpoint was used

    def open(self, fingerprint: Mapping[str, Any]) -> None:
        """Find what is there, and begin anew where it is not to be resumed.

        fingerprint: all that decides what a seed gives, in JSON's types. Raises UserError where the checkpoint differs in it,
        or where the folder holds something else.
        """
        here = json.loads(json.dumps(fingerprint))
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
        self.folder.mkdir(exist_ok=True)
        foreign = [path.name for path in self.folder.iterdir() if not OURS.fullmatch(path.name)]
        if foreign:
            raise UserError(
                f"The checkpoint cannot be kept in {self.folder}, which holds a {foreign[0]} of somebody else; choose another folder with --output."
            )
        if (self.folder / SETTINGS).exists():
            log.info("The checkpoint of an earlier run in %s is replaced.", self.folder)
        for path in self._own_files():
            path.unlink()
        write_safely(self.folder / SETTINGS, json.dumps(here, indent=2).encode())

    def _own_files(self) -> Iterator[Path]:
        return (path for path in list(self.folder.iterdir()) if OURS.fullmatch(path.name))

    def _settings(self) -> dict[str, Any] | None:
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
        for name in {**here, **there}:
            if there.get(name) != here.get(name):
                raise UserError(
                    f"The checkpoint in {self.folder} is of another run: {name} was {there.get(name)} and is {here.get(name)} now; "
                    "repeat the run as it was, or leave --resume out to start anew."
                )

    def seed(self, seed: int) -> dict[str, Any] | None:
        """What a finished seed has given, as it was kept, or None."""
        found = self._read(f"seed_{seed}.pt", SEED)
        self.resumed_from = f"the end of seed {seed}" if found else self.resumed_from
        return found

    def training(self, seed: int) -> dict[str, Any] | None:
        """The last state of this seed's training, as it was kept, or None."""
        state = self._read(TRAINING, STATE)
        if state is None or state["seed"] != seed:
            return None
        self.resumed_from = f"epoch {state['epoch']} of seed {seed}"
        return state

    def is_due(self, epoch: int) -> bool:
        """Whether a state is to be kept after this epoch."""
        return self.every > 0 and epoch % self.every == 0

    def keep_training(self, state: Mapping[str, Any]) -> None:
        """Keep the state of a training, of the names in STATE: tensors, numbers, lists and dicts."""
        self._write(TRAINING, state)

    def keep_seed(self, seed: int, found: Mapping[str, Any]) -> None:
        """Keep what a finished seed has given, of the names in SEED."""
        self._write(f"seed_{seed}.pt", found)

    def remove(self) -> None:
        """The results are in place: remove this run's checkpoint, and nothing else."""
        if self.is_ours:
            for path in self._own_files():
                path.unlink(missing_ok=True)
            with suppress(OSError):  # something else has come into it
                self.folder.rmdir()

    def _read(self, name: str, names: set[str]) -> dict[str, Any] | None:
        path = self.folder / name
        if not self.resuming or not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as file:  # torch does not look at the checksums
                if file.testzip() is not None:
                    raise ValueError("a checksum does not fit")
            found = torch.load(path, map_location="cpu", weights_only=True)
            if set(found) != names:
                raise ValueError("it holds something else")
            return found
        except Exception as error:  # torch raises many types for damaged files
            raise self._unreadable(name, error) from error

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self.every:
            buffer = io.BytesIO()
            torch.save(dict(content), buffer)
            write_safely(self.folder / name, buffer.getbuffer())

    def _unreadable(self, name: str, error: Exception) -> UserError:
        return UserError(f"{self.folder / name} cannot be read ({one_line(error)}); leave --resume out to start anew.")
