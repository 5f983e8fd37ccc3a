"""Command-line flags made of a class of settings: one per setting, in its groups, with its text and default."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from scrcl.commands.script import set_quiet
from scrcl.messages import UserError, did_you_mean
from scrcl.settings import S, Settings, flag, load
from scrcl.version import VERSION


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a UserError's one sentence, with the flag that was meant where one is near."""

    def __init__(self, prog: str, description: str | None, **settings: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        self.add_argument("--version", action="version", version=f"scrcl {VERSION}")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags in argv."""
        given, unknown = self.parse_known_args(argv)
        if unknown:
            wrong = unknown[0].partition("=")[0]
            if not wrong.startswith("-"):
                raise UserError(f"{wrong!r} stands where no word is expected; --help lists all flags.")
            near = did_you_mean(wrong, self._option_string_actions)
            raise UserError(f"There is no flag {wrong}{near}; --help lists all flags.")
        return given

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[0].upper()}{message[1:]}; --help lists all flags.")


def parse(
    settings_class: type[S],
    argv: Sequence[str],
    prog: str,
    description: str | None,
    words: dict[str, str] | None = None,
    **short: str,
) -> S:
    """Settings from a command line.

    Parameters
    ----------
    settings_class
        Which settings.
    argv
        The command line without the command itself.
    prog
        The command, as --help shows it.
    description
        What it does, for --help.
    words
        What stands for {words} in the settings' texts, beside the class's own.
    short
        Further flags, each a short way of writing --dataset, with its text.
    """
    parser = build_parser(settings_class, prog, description, words)
    for name, text in short.items():
        parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse(argv))
    set_quiet(given.pop("quiet", False))
    named = [f"--{name}" for name in short if given.pop(name, False)]
    named += ["--dataset"] * ("dataset" in given) + ["the data set by itself"] * ("dataset_alone" in given)
    if len(named) > 1:
        raise UserError(f"{named[0]} and {named[1]} were both given; leave one of them out.")
    if named and named[0].removeprefix("--") in short:
        given["dataset"] = named[0].removeprefix("--")
    if "dataset_alone" in given:
        given["dataset"] = given.pop("dataset_alone")
    return load(settings_class, given.pop("config", None), given)


def build_parser(
    settings_class: type[Settings], prog: str, description: str | None, words: dict[str, str] | None = None
) -> Parser:
    """Return a parser with one flag per setting; a flag that is not given is absent from the namespace.

    Parameters
    ----------
    settings_class, prog, description, words
        As for `parse`.
    """
    parser = Parser(prog, description, argument_default=argparse.SUPPRESS)
    parser.add_argument("dataset_alone", nargs="?", metavar="DATASET", help="the same as --dataset")
    parser.add_argument(
        "--config",
        metavar="FILE|paper|paper/NAME" if settings_class.published else "FILE",
        help="YAML file with settings (that of an earlier run repeats it)"
        + (", or the published settings" if settings_class.published else ""),
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but warnings, errors and the final table")
    hints, defaults = typing.get_type_hints(settings_class), settings_class()
    groups: dict[str, Any] = {}
    for f in dataclasses.fields(settings_class):
        field, default = settings_class.fields[f.name], getattr(defaults, f.name)
        if field.group not in groups:
            groups[field.group] = parser.add_argument_group(field.group)
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        text = settings_class.help_of(f.name, **(words or {})).replace("%", "%%")
        groups[field.group].add_argument(
            flag(f.name), help=f"{text} (default: {shown or 'none'})", **_argument(hints[f.name], f.name, field.choices)
        )
    if "seeds" in hints:
        groups["run"].add_argument("--seed", dest="seeds", type=_one_seed, metavar="N", help="this one seed alone")
    return parser


def _one_seed(text: str) -> list[int]:
    return [int(text)]


class _NumberOrList(argparse.Action):
    """--seeds 5 means how many, --seeds 5 15 which: a single value is stored as a number."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def _argument(hint: Any, name: str, choices: tuple[str, ...]) -> dict[str, Any]:
    """How argparse reads a setting of this type."""
    if choices or typing.get_origin(hint) is Literal:
        return {"choices": choices or typing.get_args(hint)}
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        action = {"action": _NumberOrList} if name == "seeds" else {}
        return action | {"type": item, "nargs": "+", "metavar": "NAME" if item is str else "N"}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": {int: "N", float: "X"}.get(hint, name.upper())}
