"""Whether a store of predictions is sound."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.keeping.findings import (
    AS_THE_GROUP_SAYS,
    Finding,
    Nodes,
    Verification,
    driver_of,
    dtype_of,
    fixed_faults,
    metadata_faults,
    nodes_of,
    strays,
)
from hpc_sweep.store import (
    Predictions,
    RunFolder,
    chunk_name,
    read_asked,
    read_note,
    run_folder,
)


def verify_predictions(opened: Predictions) -> Verification:
    """Look at every file of a store of predictions, and at what its run folder notes."""
    run = run_folder(opened.path)
    found = Verification(str(opened.path), driver_of(run), kind="prediction")
    again = _again(run)
    with disk_errors(opened.path, "read"):
        nodes = nodes_of(opened.path)
        arrays = opened.header.arrays
        found.findings += metadata_faults(opened.path, nodes, arrays, AS_THE_GROUP_SAYS)
        found.findings += fixed_faults(found, opened.path, nodes, (*arrays, "status"))
        found.findings += _status(opened, nodes, found, again)
        found.result_chunks = opened.n_boxes
        found.result_chunks_done = len(opened.boxes_there())
        for index in np.ndindex(*opened.box_counts):
            found.findings += _box(opened, nodes, found, index, again)
        found.findings += _notes(opened, nodes, run.parts, again)
        if not found.driver:
            found.findings += strays(opened.path, nodes, (), again)
            found.findings += _left(opened, run, again)
    return found


def _left(opened: Predictions, run: RunFolder, again: str) -> Iterator[Finding]:
    """Yield what of the run folder the next run removes."""
    for file in opened.leftovers(run.parts):
        if not file.is_relative_to(opened.path):
            yield Finding(str(file), "was left by an earlier run", f"{again} (it removes it)")


def _again(run: RunFolder) -> str:
    words = read_asked(run)
    return f"run `{shlex.join(['hpc-sweep', *words])}`" if words else "run the command again"


def _status(
    opened: Predictions, nodes: Nodes, found: Verification, again: str
) -> Iterator[Finding]:
    """Yield the damage of the one array that is written twice."""
    n_dims = len(nodes["status"]["shape"]) if "status" in nodes else 0
    file = opened.path / "status" / chunk_name("int8", (0,) * n_dims)
    fault = found.look_at(file)
    if fault:
        yield Finding(str(file), fault, f"delete it, then {again}: it is written anew")


def _box(
    opened: Predictions, nodes: Nodes, found: Verification, index: tuple[int, ...], again: str
) -> Iterator[Finding]:
    """Yield the damage of what is there of a box."""
    for file in _files(opened, nodes, index):
        if not file.exists():
            continue
        fault = found.look_at(file)
        if fault and found.driver:  # it may have been about to be renamed
            fault = found.look_at(file)
        if fault:
            yield Finding(str(file), fault, f"delete it, then {again}: it is predicted again")


def _files(opened: Predictions, nodes: Nodes, index: tuple[int, ...]) -> list[Path]:
    files = []
    for name in opened.header.arrays:
        if name in nodes:
            more = (0,) * (len(nodes[name]["shape"]) - len(index))
            dtype = dtype_of(nodes[name])
            files.append(opened.path / name / chunk_name(dtype, (*index, *more)))
    return files


def _notes(opened: Predictions, nodes: Nodes, folder: Path, again: str) -> Iterator[Finding]:
    """Yield notes of what could not be predicted that nobody can read."""
    for index, note in opened.notes(folder).items():
        try:
            read_note(note)
        except StoreError:
            names = " ".join(map(str, (note, *_files(opened, nodes, index))))
            yield Finding(str(note), "is damaged", f"delete {names}, then {again}")
