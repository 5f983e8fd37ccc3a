"""What a run has done so far, kept on the disk so that another can go on from there to the same result."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from folders import write_safely
from utils import UserError, log, one_line

NAME = "checkpoint"  # of the folder, in that of the results
SETTINGS, TRAINING = "settings.json", "training.pt"


class Checkpoints:
    """The checkpoint of one run, in a folder of its own: written whole or not at all, and read as plain data only.

    folder: where, None for nowhere; it will hold settings.json (what decides the result), seed_S.pt (what a finished seed has
        given) and training.pt (the state of the seed in training).
    every: epochs from one state to the next; 0 for keeping nothing.
    resume: whether to go on from what is there.
    """

    def __init__(self, folder: Path | None = None, every: int = 0, resume: bool = False) -> None:
        self.folder = folder or Path(NAME)
        self.every = every if folder else 0
        self.resuming = resume and folder is not None
        self.resumed_from = ""  # in words, what of the checkpoint was used

    def open(self, decisive: Mapping[str, Any]) -> None:
        """Find what is there, and begin anew where it is not to be resumed.

        decisive: all that decides what a seed gives, in JSON's types. Raises UserError where the checkpoint differs in it.
        """
        here = json.loads(json.dumps(decisive))
        if self.resuming:
            there = self._settings()
            self.resuming = there is not None
            if there is None:
                log.info("There is no checkpoint in %s to resume: starting from the beginning.", self.folder)
            else:
                self._require_same(there, here)
        if self.every and not self.resuming:
            if (self.folder / SETTINGS).exists():
                log.info("The checkpoint in %s is replaced; --resume would have gone on from it.", self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            write_safely(self.folder / SETTINGS, json.dumps(here, indent=2).encode())

    def _settings(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
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
        found = self._read(f"seed_{seed}.pt")
        self.resumed_from = f"the end of seed {seed}" if found else self.resumed_from
        return found

    def training(self, seed: int) -> dict[str, Any] | None:
        """The last state of this seed's training, as it was kept, or None."""
        state = self._read(TRAINING)
        if state is None or state["seed"] != seed:
            return None
        self.resumed_from = f"epoch {state['epoch']} of seed {seed}"
        return state

    def is_due(self, epoch: int) -> bool:
        """Whether a state is to be kept after this epoch."""
        return self.every > 0 and epoch % self.every == 0

    def keep_training(self, state: Mapping[str, Any]) -> None:
        """Keep the state of a training: its 'seed' and 'epoch', and tensors, numbers, lists and dicts of any name."""
        self._write(TRAINING, state)

    def keep_seed(self, seed: int, found: Mapping[str, Any]) -> None:
        """Keep what a finished seed has given."""
        self._write(f"seed_{seed}.pt", found)

    def remove(self) -> None:
        """The run has ended well."""
        if self.every or self.resuming:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        if not self.resuming or not (self.folder / name).exists():
            return None
        try:
            return torch.load(self.folder / name, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for damaged files
            raise self._unreadable(name, error) from error

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self.every:
            buffer = io.BytesIO()
            torch.save(dict(content), buffer)
            write_safely(self.folder / name, buffer.getbuffer())

    def _unreadable(self, name: str, error: Exception) -> UserError:
        return UserError(f"{self.folder / name} cannot be read ({one_line(error)}); leave --resume out to start anew.")
