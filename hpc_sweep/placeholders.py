"""Names in braces that stand for a job's size and mounts: ``-l ncpus={cores}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SIZES: tuple[str, ...] = (
    "nodes",
    "cores",
    "all_cores",
    "memory_kib",
    "memory_mib",
    "memory_gib",
    "memory_mb",
    "memory_gb",
    "all_memory_mib",
    "all_memory_gb",
    "scratch_mib",
    "scratch_gb",
)
"""What is known of each job, for each of its nodes or ``all`` of them; rounded up."""

MOUNTS = "mounts"
NAMES = (*SIZES, MOUNTS)

_IN_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def unknown(text: str) -> list[str]:
    """Return what stands in braces in `text` and is no placeholder."""
    names = [match[1] for match in _IN_BRACES.finditer(text)]
    return [name for name in names if name is not None and name not in NAMES]


def uses(texts: Iterable[str], name: str) -> bool:
    """Return whether any of `texts` has that placeholder."""
    return any(match[1] == name for text in texts for match in _IN_BRACES.finditer(text))


def with_mounts(text: str, mounts: str) -> str:
    """Put in the mounts only, which are known before the job's size is."""
    return _IN_BRACES.sub(lambda match: mounts if match[1] == MOUNTS else match[0], text)


def expanded(text: str, values: Mapping[str, object]) -> str:
    """Put in all placeholders; doubled braces become single ones.

    Parameters
    ----------
    text : str
        Without unknown names.
    values : mapping
        What the names stand for.
    """
    return _IN_BRACES.sub(
        lambda match: match[0][0] if match[1] is None else str(values[match[1]]), text
    )
