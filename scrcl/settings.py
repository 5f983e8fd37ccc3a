"""Settings with a type, a range and a text each: what they take, where they come from, and what is wrong with them.

A class of settings is a flat list of `name: type = default`; what a name means stands once, in a table of `Field`.
Order of precedence: the class's defaults, then YAML files, then flags. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from scrcl.messages import UserError, did_you_mean, log, one_line

PAPER = Path(__file__).parent / "paper"  # the published settings, a folder per task


class Field(NamedTuple):
    """What a setting means.

    group: its heading in --help; help: its text there; the others: its range, for lists that of every item;
    choices: what it takes, where that is a registry's names rather than a type.
    """

    group: str
    help: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()

    def fault(self, value: Any) -> str | None:
        """What is wrong with a number, or with the numbers of a list, in the words that follow its name; None for nothing."""
        ranged = any(bound is not None for bound in self[2:6])
        items = value if isinstance(value, list) else [value]
        if not ranged or not items or isinstance(items[0], str):
            return None
        if self.above is not None and min(items) <= self.above:
            return f"must be above {self.above:g}"
        if self.at_least is not None and min(items) < self.at_least:
            return "must not be negative" if self.at_least == 0 else f"must be at least {self.at_least:g}"
        if self.below is not None and max(items) >= self.below:
            return f"must be below {self.below:g}"
        return f"must be at most {self.at_most:g}" if self.at_most is not None and max(items) > self.at_most else None


@dataclass
class Settings:
    """What the settings of every script have in common: each has the type that it declares, and is in its range.

    Raises
    ------
    UserError
        On the first setting that is neither.
    """

    fields: ClassVar[dict[str, Field]] = {}
    words: ClassVar[dict[str, str]] = {}  # what stands for {words} in the texts
    published: ClassVar[str | None] = None  # folder of the published settings in `PAPER`, where there are any

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _coerce(f.name, getattr(self, f.name), hints[f.name], self.fields[f.name].choices)
            setattr(self, f.name, value)
            fault = self.fields[f.name].fault(value)
            if fault:
                shown = " ".join(map(str, value)) if isinstance(value, list) else value
                raise UserError(f"{flag(f.name)} {fault}, not {shown}.")

    @classmethod
    def help_of(cls, name: str, **words: str) -> str:
        """The text of a setting, with further words that stand for {words} in it."""
        return cls.fields[name].help.format(**cls.words, **words)


S = TypeVar("S", bound=Settings)


def flag(name: str) -> str:
    """How a setting is called on the command line."""
    return "--" + name.replace("_", "-")


def list_of(*items: Any) -> Any:
    """A default that is a list."""
    return dataclasses.field(default_factory=lambda: list(items))


def _coerce(name: str, value: Any, hint: Any, choices: tuple[str, ...] = ()) -> Any:
    """value as the field's type, or UserError; YAML reads 1e-3 as text and 2 as int where float is meant."""
    wrong = UserError(f"The setting {name} does not take the value {value!r}.")
    choices = choices or (typing.get_args(hint) if typing.get_origin(hint) is Literal else ())
    if choices:
        if value not in choices:
            near = did_you_mean(str(value), choices)
            raise UserError(
                f"The setting {name} does not take the value {value!r}; it takes {', '.join(choices)}{near}."
            )
        return value
    if typing.get_origin(hint) is list:
        items = value if isinstance(value, (list, tuple)) else [value]
        return [_coerce(name, item, typing.get_args(hint)[0]) for item in items]
    if hint is str and isinstance(value, (str, numbers.Real, Path)) and not isinstance(value, bool):
        if "\0" in str(value):  # no file and no column has such a name
            raise wrong
        return str(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        if math.isfinite(number) and (hint is float or number == int(number)):
            return hint(number)
    raise wrong


def load(settings_class: type[S], config: str | None, flags: dict[str, Any]) -> S:
    """Settings from the defaults, a YAML choice and flags (which win).

    Parameters
    ----------
    settings_class
        Which settings.
    config
        None, 'paper' (the published settings of this data set, or those for any other set), 'paper/NAME' (the published
        settings of NAME), or a YAML file, which may be the config.yaml of an earlier run.
    flags
        Settings by name.
    """
    values: dict[str, Any] = {}
    dataset = str(flags.get("dataset", vars(settings_class())["dataset"]))
    for path in _config_files(config, dataset, settings_class.published):
        found = read_yaml(path, settings_class)
        log.info("Settings of %s: %s.", path.name, ", ".join(f"{name} {value}" for name, value in found.items()))
        values |= found
    return settings_class(**(values | flags))


def _config_files(config: str | None, dataset: str, published: str | None) -> list[Path]:
    if config is None:
        return []
    if published is None or Path(config).is_file() or (config != "paper" and not config.startswith("paper/")):
        return [Path(config)]
    folder = PAPER / published
    name = config.removeprefix("paper").removeprefix("/")
    own = folder / f"{name or sample_folder(Path(dataset)).name.removesuffix('.h5ad')}.yaml"
    if name and not own.exists():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise UserError(
            f"There are no published settings for {name!r}{did_you_mean(name, known)}; there are some for {', '.join(known)}."
        )
    return list(dict.fromkeys([folder / "any.yaml", *([own] if own.exists() else [])]))


HD_BINS = ("square_008um", "square_016um", "square_002um")  # in the order of 10x's own advice
SPACE_RANGER = ("outs", "binned_outputs", *HD_BINS)  # names of folders that say nothing about the sample


def sample_folder(path: Path) -> Path:
    """The file or folder that is named after the sample: path, or what Space Ranger's own outs/ and the like are in."""
    if path.is_dir():
        path = path.resolve()  # of `.` too
    while path.name in SPACE_RANGER:
        path = path.parent
    return path


def read_yaml(path: Path, settings_class: type[Settings]) -> dict[str, Any]:
    """The settings in a YAML file: its top level, or under 'settings' (an earlier run's config.yaml)."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {path} is not valid YAML: {one_line(error)}.") from error
    content = {} if content is None else content
    if isinstance(content, dict) and set(content) == {"settings", "provenance"}:
        content = content["settings"]
    if not isinstance(content, dict):
        raise UserError(f"The settings file {path} must hold 'name: value' lines.")
    known = [f.name for f in dataclasses.fields(settings_class)]
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise UserError(
            f"The settings file {path} has an unknown setting {unknown[0]!r}{near}; --help lists all of them."
        )
    return content


def replaced(settings: S, changes: dict[str, Any]) -> S:
    """The settings with some of them changed.

    Raises
    ------
    TypeError
        For a name that is no setting, with the nearest one that is.
    """
    for name in changes:
        if name not in type(settings).fields:
            near = did_you_mean(name, type(settings).fields)
            raise TypeError(f"{type(settings).__name__} has no setting {name!r}{near}")
    return dataclasses.replace(settings, **changes)
