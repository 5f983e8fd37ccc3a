"""The paper's page: what it names is there, and it prints the network."""

from __future__ import annotations

import re
import sys
from importlib import import_module

import pytest

import model
from scrcl.method.network import Architecture, ScRCL


def resolve(name: str) -> object:
    """What a dotted name means, wherever its module ends and its attributes begin."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"scrcl(?:\.\w+)+", model.__doc__))))
def test_every_place_on_the_page_is_there(name):
    assert callable(resolve(name))


def test_the_page_holds_no_copy():
    assert model.ScRCL is ScRCL and all(getattr(model, name).__module__.startswith("scrcl.") for name in model.__all__)


def test_the_network_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["model.py", "--cells", "30", "--genes", "20", "--hidden", "8", "--refined", "4"])
    model.main()
    out = capsys.readouterr().out
    n_parameters = sum(value.numel() for value in ScRCL(30, 20, Architecture(8, 4, 0.1)).parameters())
    assert "gene_encoder.lin.weight" in out and "4 x 30" in out and f"{n_parameters:,} numbers" in out
