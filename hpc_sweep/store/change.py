"""A store whose candidates change: what they were keeps its place, and one file makes it so.

The group's own metadata is what readers go by. All else that a change needs is written before it,
so that readers do not see it, or after it, from what it says: `tidy` does that again in later runs.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.choices import PENDING
from hpc_sweep.errors import disk_errors
from hpc_sweep.plan import Chunk
from hpc_sweep.store.creation import remove_unfinished, write_metadata
from hpc_sweep.store.durable import sync, write_durably
from hpc_sweep.store.files import writing
from hpc_sweep.store.fold import fold
from hpc_sweep.store.layout import refit_lengths
from hpc_sweep.store.ledger import Ledger
from hpc_sweep.store.parts import read_part
from hpc_sweep.store.sharing import make_folder
from hpc_sweep.store.store import Store
from hpc_sweep.strategies import Strategy


@dataclass(frozen=True)
class Change:
    """What a spec asks for otherwise than its store has it.

    Attributes
    ----------
    strategy : Strategy
        With the candidates that the store is going to have.
    new, taken_back, dropped, kept : int
        Candidates: the store has never had, had dropped, drops, and goes on with.
    """

    strategy: Strategy
    new: int
    taken_back: int
    dropped: int
    kept: int

    @classmethod
    def between(cls, before: Strategy, after: Strategy) -> Change | None:
        """Return what differs, or None where candidates and their names are the same."""
        names = [[(each.id, each.model_name) for each in s.candidates] for s in (before, after)]
        if names[0] == names[1] and before.dropped == after.dropped:
            return None
        had, has = set(before.dropped), set(after.dropped)
        known = len(before.candidates)
        return cls(
            after,
            len(after.candidates) - known,
            len(had - has),
            len(has - had),
            known - len(had | has),
        )

    def facts(self) -> dict[str, int]:
        """Return its counts by name."""
        return {name: getattr(self, name) for name in ("new", "taken_back", "dropped", "kept")}

    def text(self, n_partitions: int) -> str:
        """Return it for people, in a line."""
        new = f"{self.new:,} new candidate{'' if self.new == 1 else 's'}"
        texts = [f"{new} for {n_partitions:,} partitions"] if self.new else []
        texts += [f"{self.taken_back:,} taken back"] if self.taken_back else []
        texts += [f"{self.dropped:,} dropped"] if self.dropped else []
        return "; ".join([*(texts or ["other names of models"]), f"{self.kept:,} kept"])


def change_store(store: Store, change: Change, group: int | None = None) -> Store:
    """Give a store the candidates of a changed spec, and return it as it is then.

    Whatever kills this leaves the store as it was or as it is going to be. Ranks and best
    candidates follow with the next fold of each result chunk.

    Parameters
    ----------
    store : Store
        As it is. Nobody else may write to it.
    change : Change
        What differs.
    group : int, optional
        Whom it is shared with.
    """
    spec = change.strategy.spec
    header = dataclasses.replace(
        store.header,
        spec=spec.model_dump(mode="json"),
        digest=spec.digest(),
        revision=store.header.revision + 1,
        dropped=change.strategy.dropped,
    )
    remove_unfinished(store.path)
    place = store.path.with_name(f".{store.path.name}.{secrets.token_hex(8)}.tmp")
    with disk_errors(store.path):
        try:
            make_folder(place, group)
            staged = Store(place, header, change.strategy)
            with writing():
                write_metadata(staged, xr.Dataset())
                _show_all_as_before(store, staged)
            _write_parameters(store, staged)
            root = _joined_metadata(store, staged)
            _move_in(store, staged, group)
            write_durably(store.path / "zarr.json", json.dumps(root, indent=2).encode())
        finally:
            shutil.rmtree(place, ignore_errors=True)
    changed = Store.open(store.path)
    tidy(changed)
    return changed


def _show_all_as_before(store: Store, staged: Store) -> None:
    """Let ``in_spec`` be as it was, until the change is there for all readers."""
    array: Any = staged.group["in_spec"]
    array[: store.strategy.n_rows] = store.strategy.in_spec


def _write_parameters(store: Store, staged: Store) -> None:
    """Write what is known of best candidates in arrays that are new, or text from now on."""
    known = {(array.name, array.dtype) for array in store.arrays}
    new = [array for array in staged.arrays if (array.name, array.dtype) not in known]
    (best,) = (array for array in store.arrays if array.name == "best_index")
    for chunk in _chunks_begun(store) if new else ():
        index = store.gather(chunk, store.read(best, chunk))
        values = staged.strategy.best({}, index)
        for array in new:
            shape = (len(index), *(staged.lengths[dim] for dim in array.dims))
            content = values.get(array.name, np.full(shape, array.fill))
            staged.write(array, chunk, staged.scatter(chunk, content))


def _chunks_begun(store: Store) -> Iterator[Chunk]:
    """Yield the result chunks that have something settled."""
    for chunk in np.ndindex(*store.grid.chunk_grid(store.header.chunks)):
        if store.read_status(chunk) is not None:
            yield chunk


def _joined_metadata(store: Store, staged: Store) -> dict[str, Any]:
    """Return the metadata of the group as it is going to be."""
    old, new = (_metadata(each.path) for each in (store, staged))
    kept, nodes = _nodes(old), _nodes(new)
    attached = kept["best_index"]["attributes"].get("coordinates")
    results = {array.name for array in staged.arrays}
    for name in _moving(store, staged) | results:
        if name in kept and kept[name]["data_type"] == nodes[name]["data_type"]:
            kept[name]["shape"] = nodes[name]["shape"]
            continue
        kept[name] = nodes[name]
        if attached is not None and name in results:
            kept[name]["attributes"]["coordinates"] = attached
    old["attributes"].update(new["attributes"])
    return old


def _moving(store: Store, staged: Store) -> set[str]:
    """Return the names of what describes candidates, and of results that change their type."""
    kept, nodes = (_nodes(_metadata(each.path)) for each in (store, staged))
    results = {array.name for array in staged.arrays}
    described = {name for name, node in nodes.items() if "candidate" in _dims(node)}
    results |= {*refit_lengths(staged.spec)}  # and the names of features
    other = {n for n in results if n not in kept or kept[n]["data_type"] != nodes[n]["data_type"]}
    return (described - results) | other


def _dims(node: dict[str, Any]) -> Sequence[str]:
    return node.get("dimension_names") or ()  # which scalars lack


def _metadata(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text())
    return found


def _nodes(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = metadata["consolidated_metadata"]["metadata"]
    return found


def _move_in(store: Store, staged: Store, group: int | None) -> None:
    """Move in what readers do not see until the group's metadata says so.

    Descriptions of candidates only get more of them, text has files of its own beside numbers,
    and an array that is new is in no metadata yet.
    """
    for name in sorted(_moving(store, staged)):
        target = store.path / name
        make_folder(target, group)
        for file in sorted((staged.path / name).iterdir()):
            if file.name != "zarr.json" or not (target / "zarr.json").exists():
                sync(file)
                file.replace(target / file.name)
        sync(target)
    sync(store.path)


def tidy(store: Store) -> None:
    """Make everything as the group's metadata says, whatever a killed change has left."""
    remove_unfinished(store.path)
    nodes = _nodes(_metadata(store.path))
    with disk_errors(store.path):
        for folder in store.path.iterdir():
            if folder.name.startswith(("param_", "best_param_")):
                _remove_strays(folder, nodes.get(folder.name))
        if not store.header.revision:
            return
        for name, node in nodes.items():
            file = store.path / name / "zarr.json"
            if json.loads(file.read_text()) != node:
                write_durably(file, json.dumps(node, indent=2).encode())
        with writing():  # when an array is opened, that is
            in_spec: Any = store.group["in_spec"]
            if not np.array_equal(in_spec[:], store.strategy.in_spec):
                in_spec[:] = store.strategy.in_spec
                sync(store.path / "in_spec")


def _remove_strays(folder: Path, node: dict[str, Any] | None) -> None:
    """Remove an array that is in no metadata, or what one has of another type."""
    if node is None:
        shutil.rmtree(folder)
        return
    for file in folder.iterdir():
        is_number = file.name.startswith("c")
        if file.name != "zarr.json" and is_number == (node["data_type"] == "string"):
            file.unlink()


def set_pending(store: Store, states: Collection[int]) -> Counter[int]:
    """Set what failed back to pending, so that it is done again.

    Each result chunk's status is one file, so that a kill leaves it as it was or as it is going
    to be; scores of what was done stay.

    Parameters
    ----------
    store : Store
        Nobody else may write to it.
    states : collection of int
        Which kinds of failure.

    Returns
    -------
    Counter
        How many cells of each state.
    """
    ledger, counts = Ledger.read(store), Counter[int]()
    for chunk in ledger.chunks:
        names = ledger.parts.get(chunk, [])
        parts = (read_part(store.run.parts, name).status for name in names)
        if any(np.isin(status, list(states)).any() for status in parts):
            fold(store, chunk, names, whole=False)
        status = store.read_status(chunk)
        if status is not None:
            counts += _set_pending(store, chunk, status, states)
    return counts


def _set_pending(
    store: Store, chunk: Chunk, status: NDArray[np.int8], states: Collection[int]
) -> Counter[int]:
    cells = np.isin(status, list(states)) & store.strategy.in_spec
    counts = Counter(status[cells].tolist())
    status[cells] = PENDING
    for block, rows in enumerate(store.blocks):
        if cells[:, rows].any():
            store.write(store.arrays[-1], chunk, store.scatter(chunk, status[:, rows]), block)
    return counts
