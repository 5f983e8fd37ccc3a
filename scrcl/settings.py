"""Settings with a type, a range and a text each: what they accept, where they come from, and what is wrong with them.

A class of settings is a flat list of `name: type = default`. What a name means is written once, in a table of `Field`.
Later sources win: the class's defaults, then YAML files, then flags. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from scrcl.messages import UserError, did_you_mean, log, one_line

PAPER = Path(__file__).parent / "paper"  # the published settings, one folder per task


class Field(NamedTuple):
    """What a setting means and accepts.

    Attributes
    ----------
    group
        Its heading in --help.
    help
        Its text in --help.
    above, at_least, below, at_most
        Its range; for a list, the range of every item.
    choices
        What it accepts, if these are the names in a registry rather than a type.
    is_path
        Whether `~` at its beginning stands for the home folder.
    """

    group: str
    help: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    is_path: bool = False

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a number, or with the numbers of a list, or None.

        The phrase is worded to follow the name of the setting.

        Parameters
        ----------
        value
            A value of the setting's type.
        """
        ranged = any(bound is not None for bound in self[2:6])
        items = value if isinstance(value, list) else [value]
        if not ranged or not items or isinstance(items[0], str):
            return None
        if self.above is not None and min(items) <= self.above:
            return f"must be above {self.above}"
        if self.at_least is not None and min(items) < self.at_least:
            return "must not be negative" if self.at_least == 0 else f"must be at least {self.at_least}"
        if self.below is not None and max(items) >= self.below:
            return f"must be below {self.below}"
        return f"must be at most {self.at_most}" if self.at_most is not None and max(items) > self.at_most else None


@dataclass
class Settings:
    """What the settings of every script share: each value has its declared type and is within its range.

    Attributes
    ----------
    fields
        What each setting means, by name.
    words
        What replaces {words} in the texts.
    published
        The folder in `PAPER` with the published settings, if there are any.

    Raises
    ------
    UserError
        On the first setting that has another type or is out of its range.
    """

    fields: ClassVar[dict[str, Field]] = {}
    words: ClassVar[dict[str, str]] = {}
    published: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            field = self.fields[f.name]
            value = _coerce(f.name, getattr(self, f.name), hints[f.name], field.choices)
            value = os.path.expanduser(value) if field.is_path else value
            setattr(self, f.name, value)
            fault = field.fault(value)
            if fault:
                shown = " ".join(map(str, value)) if isinstance(value, list) else value
                raise UserError(f"{flag(f.name)} {fault}, not {shown}.")

    @classmethod
    def help_of(cls, name: str, **words: str) -> str:
        """Return the text of a setting, with its {words} replaced.

        Parameters
        ----------
        name
            The setting.
        words
            Further words to replace.
        """
        return cls.fields[name].help.format(**cls.words, **words)


S = TypeVar("S", bound=Settings)


def flag(name: str) -> str:
    """Return a setting's flag on the command line."""
    return "--" + name.replace("_", "-")


def list_of(*items: Any) -> Any:
    """Return a default that is a list, for a field of a dataclass."""
    return dataclasses.field(default_factory=lambda: list(items))


def _coerce(name: str, value: Any, hint: Any, choices: tuple[str, ...] = ()) -> Any:
    """Return a value in the field's type, or raise UserError.

    YAML reads 1e-3 as text, and 2 as int where a float is meant.
    """
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
        if "\0" in str(value):  # no file and no column can have such a name
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
    """Return settings from the defaults, from YAML and from flags; flags win.

    Parameters
    ----------
    settings_class
        Which settings.
    config
        None, 'paper' (the published settings of this data set, or the ones for any other set), 'paper/NAME' (the
        published settings of NAME), or a YAML file, which may be the config.yaml of an earlier run.
    flags
        Settings by name.

    Raises
    ------
    UserError
        When a setting is unknown or has a wrong value, or the file cannot be read.
    """
    values: dict[str, Any] = {}
    dataset = str(flags.get("dataset", vars(settings_class())["dataset"]))
    for path in _config_files(config, dataset, settings_class.published):
        found = read_yaml(path, settings_class)
        log.info("Settings of %s: %s.", path.name, ", ".join(f"{name} {value}" for name, value in found.items()))
        values |= found
    return settings_class(**(values | flags))


def _config_files(config: str | None, dataset: str, published: str | None) -> list[Path]:
    """Return the YAML files that config means."""
    if config is None:
        return []
    if published is None or Path(config).is_file() or (config != "paper" and not config.startswith("paper/")):
        return [Path(config)]
    folder = PAPER / published
    name = config.removeprefix("paper").removeprefix("/")
    own = folder / f"{name or sample_name(Path(dataset))}.yaml"
    if name and not os.path.isfile(own):
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise UserError(
            f"There are no published settings for {name!r}{did_you_mean(name, known)}; "
            f"there are some for {', '.join(known)}."
        )
    return list(dict.fromkeys([folder / "any.yaml", *([own] if os.path.isfile(own) else [])]))


HD_BINS = ("square_008um", "square_016um", "square_002um")  # in the order that 10x recommends
SPACE_RANGER = ("outs", "binned_outputs", "segmented_outputs", *HD_BINS)  # folders that say nothing about the sample
MATRICES = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix", "filtered_gene_bc_matrices", "raw_gene_bc_matrices")
SAY_NOTHING = (*SPACE_RANGER, *MATRICES, "filtered_gene_bc_matrices_h5", "cell_feature_matrix", "filtered_matrix")
ENDINGS = (
    *(".h5ad", ".h5mu", ".h5", ".hdf5", ".loom", ".zarr", ".gef", ".mtx", ".csv", ".tsv", ".txt", ".tab"),
    *(".gz", ".zip"),
)


def sample_name(path: Path) -> str:
    """Return the name of the sample, which is that of the path, or of a folder around it, without an ending.

    Names that 10x's software gives to every sample, such as outs/ and filtered_feature_bc_matrix.h5, are skipped. A
    link keeps its own name.
    """
    if os.path.exists(path):  # unlike Path.exists, no error for an impossible name
        path = Path(os.path.abspath(path))  # gives `.` a name too
    while (without_ending(path.name) in SAY_NOTHING or path.parent.name in MATRICES) and path.parent != path:
        path = path.parent
    return without_ending(path.name)


def without_ending(name: str) -> str:
    """Return a file's name without the endings of its format and its packing."""
    while (ending := next((end for end in ENDINGS if name.lower().endswith(end)), None)) and len(name) > len(ending):
        name = name[: -len(ending)]
    return name


def read_yaml(path: Path, settings_class: type[Settings]) -> dict[str, Any]:
    """Read the settings in a YAML file, at its top level or under 'settings', as in an earlier run's config.yaml.

    Parameters
    ----------
    path
        The file.
    settings_class
        Which settings.

    Raises
    ------
    UserError
        When the file cannot be read, or holds an unknown setting.
    """
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
