"""Machine profiles: where they are, how one lies under a spec, and what it names for paths.

A profile is a partial ``cluster`` section in a file of its own, with a ``description``.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[^\W_][\w.-]*", re.ASCII)
_SUFFIX = ".yaml"
_SYSTEM_FOLDERS = frozenset({"/", "/usr", "/usr/local"})

ALTERNATIVES = (("workers", "nodes"), ("memory", "node_memory"))
"""Keys that exclude each other: where the spec gives one, the profile's other one goes."""


def own_folder() -> Path:
    """Return the folder of the user's own profiles, which may not exist."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(base) if Path(base).is_absolute() else Path("~/.config").expanduser()
    return config / "hpc-sweep" / "machines"


def profiles() -> dict[str, Traversable]:
    """Return the files of all profiles by name; the user's own hide those that are shipped."""
    shipped = importlib.resources.files("hpc_sweep") / "templates" / "machines"
    found: dict[str, Traversable] = {}
    for folder in (shipped, own_folder()):
        with contextlib.suppress(OSError):  # most users have no folder of their own
            for file in folder.iterdir():
                name = file.name.removesuffix(_SUFFIX)
                if name != file.name and _NAME.fullmatch(name):
                    found[name] = file
    return dict(sorted(found.items()))


def find(name: str) -> Traversable | None:
    """Return the file of a profile, or None; a name is never a path."""
    return profiles().get(name)


def laid_under(profile: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``cluster`` section with a profile under it.

    What the section says replaces what the profile says, ``null`` too; sections inside are
    laid key by key, lists are replaced whole.
    """
    below = dict(profile)
    for names in ALTERNATIVES:
        if any(section.get(name) is not None for name in names):
            below = {key: value for key, value in below.items() if key not in names}
    return _laid(below, section)


def _laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _laid(below[key], above[key])
    return merged


def sweep_folders(data: Sequence[str], output: str) -> list[str]:
    """Return the paths that a job needs: data, results, environment, this package.

    Both as they are written and as they really are, links followed; without those of the system.
    """
    package = Path(__file__).resolve().parent
    places = [place for place in data if "://" not in place and "::" not in place]
    places.append(str(Path(output).parent))
    places += [sys.prefix, sys.base_prefix, str(package.parent)]
    found = [path for place in places for path in (place, os.path.realpath(place))]
    return [path for path in dict.fromkeys(found) if path not in _SYSTEM_FOLDERS]


def mount_names(paths: Sequence[str], rules: Mapping[str, str]) -> list[str]:
    """Return what the rules name for paths; without rules, the paths that hold the others.

    Parameters
    ----------
    paths : sequence of str
        Absolute.
    rules : mapping
        Regular expressions for the beginning of a path, and names; the first that fits counts,
        and paths that none fits need no name.
    """
    if not rules:
        above = {path: {str(parent) for parent in Path(path).parents} for path in paths}
        return [path for path in paths if not above[path] & set(paths)]
    names = []
    for path in paths:
        fitting = (
            match.expand(name) for rule, name in rules.items() if (match := re.match(rule, path))
        )
        names += [name for name in [next(fitting, "")] if name]
    return list(dict.fromkeys(names))
