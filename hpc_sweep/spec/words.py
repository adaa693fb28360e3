"""Texts of a spec, each checked by itself: what may stand where."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hpc_sweep import placeholders
from hpc_sweep.errors import nearest

WORD = re.compile(r"[\w./:+@=,][\w./:+@=,-]*")
"""What may stand in a job script as it is: neither a shell nor a queue reads more into it."""

_OPTION = re.compile(r"--\w[\w-]*|-[A-Za-z]|-[lW] ?\w+")
_SCRATCH = re.compile(r"(?:[\w./:+@=,-]|\$\w+|\$\{\w+\})+", re.ASCII)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unique(names: list[str]) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} named more than once")
    return names


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("a metric's name is made of letters, digits and _ ([A-Za-z_]\\w*)")
    return name


def _walltime(value: str) -> str:
    days, dash, clock = value.rpartition("-")
    fields = [*([days] if dash else []), *clock.split(":")]
    if clock.count(":") not in (1, 2) or not all(f.isdecimal() for f in fields):
        raise ValueError("write HH:MM:SS or D-HH:MM:SS")
    return value


def _one_line(value: str) -> str:
    if len(value.splitlines()) > 1 or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must be one line without control characters")
    return value


def _word(value: str) -> str:
    if not WORD.fullmatch(value):
        raise ValueError("goes into job scripts: letters, digits and ._:+@=,-/ can, no - at first")
    return value


def _known_placeholders(value: str) -> str:
    wrong = placeholders.unknown(value)
    if wrong:
        known = ", ".join(f"{{{name}}}" for name in placeholders.NAMES)
        hint = nearest(wrong[0], placeholders.NAMES)
        raise ValueError(
            f"{{{wrong[0]}}} is no placeholder; known are {known}{hint} (double other braces)"
        )
    return value


def _option(value: str) -> str:
    if not _OPTION.fullmatch(value):
        raise ValueError("write an option, such as --mem, -A or -l select")
    return value


def _directive(value: str) -> str:
    if not value.startswith("-"):
        raise ValueError("a directive begins with its option, such as --qos=long or -l select=1")
    return value


def _scratch_folder(value: str) -> str:
    if not _SCRATCH.fullmatch(value):
        raise ValueError("may have letters, digits, ._:+@=,-/ and variables such as $TMPDIR")
    return value


def _command(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is no command line: {error}") from None
    return value


def _rule(rules: dict[str, str]) -> dict[str, str]:
    for pattern, name in rules.items():
        try:
            re.compile(pattern).sub(name, "")
        except (re.error, IndexError) as error:
            raise ValueError(
                f"{pattern!r}: {name!r} is no regular expression with a replacement: {error}"
            ) from None
    return rules


def _place(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path has no NUL character")
    if "://" not in value:
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError("nobody's home is known by that name; write the path out") from None
    return value


def _loader(value: str) -> str:
    module, _, function = value.rpartition(":")
    if not module or not function.isidentifier():
        raise ValueError("write module:function")
    return value


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Word = Annotated[Line, AfterValidator(_word)]
Option = Annotated[Line, AfterValidator(_option)]
Filled = Annotated[Line, AfterValidator(_known_placeholders)]
Directive = Annotated[Filled, AfterValidator(_directive)]
Walltime = Annotated[Line, AfterValidator(_walltime)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Place = Annotated[Name, AfterValidator(_place)]
MaybeNames = Annotated[list[Name], BeforeValidator(_as_list), AfterValidator(_unique)]
Names = Annotated[
    list[Name], BeforeValidator(_as_list), Field(min_length=1), AfterValidator(_unique)
]
Places = Place | Annotated[list[Place], Field(min_length=1), AfterValidator(_unique)]
Loader = Annotated[Line, AfterValidator(_place), AfterValidator(_loader)]
Metric = Annotated[str, AfterValidator(_identifier)]
Metrics = Annotated[list[Metric], Field(min_length=1), AfterValidator(_unique)]
Scorers = Annotated[dict[Metric, Name], Field(min_length=1)]
Step = str | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]
Command = Annotated[Line, AfterValidator(_command)]
PlaceLine = Annotated[Line, AfterValidator(_place)]
ScratchFolder = Annotated[Line, AfterValidator(_scratch_folder)]
Rules = Annotated[dict[str, str], AfterValidator(_rule)]
Grid = dict[str, list[Any]]
Distribution = Annotated[
    dict[Name, list[Any] | dict[str, Any] | None], Field(min_length=1, max_length=1)
]
Space = dict[str, list[Any] | Distribution]
