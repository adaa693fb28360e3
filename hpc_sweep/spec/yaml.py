"""YAML texts as plain values, and overrides of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hpc_sweep.errors import Fault, SpecError


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 text into plain Python values."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def yaml_text(value: Any) -> str:
    """Return plain Python values as YAML 1.2 text."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(value, text)
    return text.getvalue()


def json_like(value: Any) -> Any:
    """Return `value` with tuples, NumPy scalars and dates as JSON has them.

    Infinite numbers and NaN become text (``"inf"``), which JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return {str(key): json_like(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((json_like(item) for item in value), key=repr)
    if isinstance(value, (list, tuple, range)):
        return [json_like(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, type):
        return json_like(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def plain(raw: dict[Any, Any], origin: str) -> dict[str, Any]:
    """Return a mapping as JSON has it.

    Raises
    ------
    SpecError
        When it contains itself.
    """
    try:
        made: dict[str, Any] = json_like(raw)
    except RecursionError:
        raise SpecError([Fault("", "contains itself, or is nested too deeply")], origin) from None
    return made


def expanded(path: str | Path, key: str, origin: str) -> Path:
    """Return a path with ``~`` written out; `key` and `origin` say where it stands."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        message = f"'{path}': nobody's home is known by that name; write the path out"
        raise SpecError([Fault(key, message)], origin) from None


def read_yaml(path: Traversable, origin: str, wanted: str) -> dict[str, Any]:
    """Read a file that must hold what is `wanted`, a mapping; `origin` is what messages call it.

    Raises
    ------
    SpecError
        When there is none, or it holds something else.
    """
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError([Fault("", "no such file; `hpc-sweep init` writes one")], origin) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault("", f"cannot be read: {error}")], origin) from None
    except Exception as error:  # ruamel raises several kinds, some without a word
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise SpecError([Fault("", f"is not YAML: {text}")], origin) from None
    if not isinstance(raw, dict):
        raise SpecError([Fault("", f"must be {wanted}")], origin)
    return plain(raw, origin)


def override(raw: dict[str, Any], setting: str) -> None:
    """Set the value of ``KEY=VALUE`` in a mapping, in place.

    Raises
    ------
    SpecError
        When it is not of that form, or there is no such place.
    """
    key, equals, text = setting.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise SpecError([Fault(setting, "write KEY=VALUE, such as search.cv=3")], "--set")
    try:
        value = json_like(parse_yaml(text))
    except Exception as error:  # ruamel raises several kinds
        raise SpecError([Fault(key, f"{text!r} is not YAML: {error}")], "--set") from None
    place: Any = raw
    for step, following in zip(keys, [*keys[1:], None], strict=True):
        if isinstance(place, list):
            if not step.isdecimal() or int(step) >= len(place):
                limit = f"0 to {len(place) - 1}"
                raise SpecError([Fault(key, f"{step!r} is not an index ({limit})")], "--set")
            index: Any = int(step)
        elif isinstance(place, dict):
            index = step
        else:
            raise SpecError([Fault(key, f"nothing can be set below {place!r}")], "--set")
        if following is None:
            place[index] = value
            return
        if isinstance(place, dict) and place.get(index) is None:
            place[index] = {}
        place = place[index]
