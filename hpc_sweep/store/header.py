"""What a store knows of itself: an attribute of its group."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from hpc_sweep.errors import DiskError, StoreError, disk_errors
from hpc_sweep.store.durable import write_durably

ATTRIBUTE = "hpc_sweep"
SCHEMA = 3

CHECKSUM = "crc32c"
"""Key of the checksum of the other facts of a header, as JSON."""

MOST_RUNS = 100
"""Of so many runs, the last ones, a store tells how they went."""


@dataclass(frozen=True)
class Header:
    """What a store knows of itself.

    Attributes
    ----------
    id : str
        Random, made with the store; parts carry it.
    spec : dict
        The normalised spec.
    digest : str
        Of what defines the results.
    source : str
        Identity of the source.
    dims, shape, read_chunks, chunks : tuple
        The grid of partitions, the source's chunks, and the result chunks.
    n_splits : int
        Length of ``split``.
    versions : dict
        Versions of Python and the libraries, and the CPU model, as of its making.
    mixed_versions : tuple of str
        Other versions of scikit-learn that some of its results were made with.
    block : int
        Length of a chunk along the candidates.
    revision : int
        How often its candidates were changed.
    dropped : tuple of int
        Positions of candidates that are not in the spec any more.
    runs : tuple of dict
        What was predicted of each run, and what came.
    features : dict
        What the stored variables were that features are made of, by name; empty where no run has
        recorded it.
    schema : int
        Version of this format.
    signed_types : dict
        What stored models may have by the spec of the last run, and who says so; see `signing`.
    """

    id: str
    spec: dict[str, Any]
    digest: str
    source: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    read_chunks: tuple[int, ...]
    chunks: tuple[int, ...]
    n_splits: int
    versions: dict[str, str]
    block: int
    schema: int = SCHEMA
    mixed_versions: tuple[str, ...] = ()
    revision: int = 0
    dropped: tuple[int, ...] = ()
    runs: tuple[dict[str, Any], ...] = ()
    features: dict[str, Any] = field(default_factory=dict)
    signed_types: dict[str, Any] = field(default_factory=dict)


def read_header(place: Path) -> Header | None:
    """Read the header of a store; None where none is.

    Raises
    ------
    StoreError
        When it is damaged, or of another schema.
    """
    header = read_facts(place, ATTRIBUTE)
    if header is None:
        return None
    check_schema(str(place), header)
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in header.items()
    }
    try:
        return Header(**lists)
    except TypeError:  # keys are missing
        return None


def read_facts(place: Path, attribute: str) -> dict[str, Any] | None:
    """Read what `packed` put into an attribute of a group; None where there is no such thing.

    Raises
    ------
    StoreError
        When it has another checksum. Where earlier versions left none, nothing is looked at.
    """
    file = place / "zarr.json"
    try:
        with disk_errors(file, "read"):
            text = json.loads(file.read_text())["attributes"][attribute]
        facts: dict[str, Any] = dict(json.loads(text))
    except DiskError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if facts.pop(CHECKSUM, None) not in (None, _checksum(facts)):
        raise StoreError(
            f"{file} is damaged: its attribute {attribute} does not have its own checksum; bring "
            f"the file back from a backup, or delete {place} to compute all again"
        )
    return facts


def packed(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON with a checksum of them."""
    return json.dumps({**facts, CHECKSUM: _checksum(facts)})


def _checksum(facts: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(facts).encode()))


def check_schema(place: str, header: Mapping[str, Any]) -> None:
    """Raise a `StoreError` where a store, or what was made of one, is of another schema."""
    if header.get("schema") != SCHEMA:
        raise StoreError(
            f"{place} is of schema {header.get('schema')}, this version reads {SCHEMA}; "
            "use the version of hpc_sweep that made it"
        )


@contextlib.contextmanager
def changed_header(place: Path) -> Iterator[dict[str, Any]]:
    """Give the header of a store as it is on the disk, and write it there if it is changed."""
    header = read_facts(place, ATTRIBUTE)
    if header is None:
        raise StoreError(f"{place / 'zarr.json'} makes no sense any more; bring it back")
    before = packed(header)
    yield header
    if packed(header) == before:
        return
    file = place / "zarr.json"
    with disk_errors(file, "read"):
        metadata = json.loads(file.read_text())
    metadata["attributes"][ATTRIBUTE] = packed(header)
    write_durably(file, json.dumps(metadata, indent=2).encode())
