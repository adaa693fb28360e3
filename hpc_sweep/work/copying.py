"""The pass before the first unit: data that is chunked the wrong way is copied, slab by slab."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from distributed import Client, Future, get_worker

from hpc_sweep.errors import StoreError, SweepError, disk_cause, disk_error
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.source import CopiedSource, Copy, Slab, find_copy, open_source
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import Folded, Journal, PartName, Receipt, group_access
from hpc_sweep.versions import installed
from hpc_sweep.work.tasks import Context, check_versions, key_of


@dataclass
class Slabs:
    """Which slabs of a copy are there, as the driver's loop asks for what is done.

    Parameters
    ----------
    copy : Copy
        Begun already.
    """

    copy: Copy
    parts: Mapping[Chunk, list[PartName]] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._open = {number for number, _ in self.copy.open_slabs()}

    @property
    def is_complete(self) -> bool:
        """Whether all slabs are there."""
        return not self._open

    @property
    def n_open(self) -> int:
        """How many are not."""
        return len(self._open)

    @property
    def n_all(self) -> int:
        """How many there are."""
        return sum(1 for _ in self.copy.tiling.slabs())

    def units(self) -> Iterator[Unit]:
        """Yield what is left, as units of one slab."""
        yield from (Unit((), i, i + 1, 0, 1) for i in sorted(self._open))

    def complete(self) -> Iterable[Chunk]:
        """Return nothing: slabs are not folded."""
        return ()

    def add(self, name: PartName) -> bool:
        """Note that a slab is there."""
        self._open.discard(name.unit.start)
        return False

    def fold(self, chunk: Chunk, folded: Folded, most: int = 1) -> list[Unit]:
        """Do nothing."""
        return []


@dataclass(frozen=True)
class SlabTasks:
    """Copies a slab where a sweep's tasks search a unit.

    Parameters
    ----------
    context : Context
        What every task of the run is told.
    folder : str
        Of the copy.
    """

    guards: ClassVar[bool] = False
    context: Context
    folder: str

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future:
        """Submit a slab."""
        key = key_of("slab", str(unit.start))
        return client.submit(copy_slab, self.context, self.folder, unit, key=key, pure=False)

    def begun(self, client: Client) -> set[Any]:
        """Return the keys of tasks that are at work."""
        return self.context.begun(client)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Any:
        """Fold nothing: slabs are never complete chunks."""
        raise NotImplementedError

    def step(self) -> str:
        """Return nothing: slabs are copied by workers."""
        return ""


class SlabJournal(Journal):
    """Writes of slabs where the driver's loop writes of units."""

    def write(self, event: str, **facts: Any) -> None:
        """Append one event."""
        super().write(event.replace("unit", "slab"), **facts)


@functools.lru_cache(maxsize=1)
def _source(spec_text: str, folder: str) -> CopiedSource:
    spec, copy = SweepSpec.model_validate_json(spec_text), find_copy(Path(folder))
    if copy is None:
        raise StoreError(f"{folder} is gone, the rechunked copy; run the same command again")
    source = open_source(spec.data, spec.search, copy)
    if not isinstance(source, CopiedSource) or source.identity() != copy.identity:
        raise StoreError(f"{spec.data.origin} is not the data that {folder} is a copy of")
    return source


def copy_slab(context: Context, folder: str, unit: Unit) -> Receipt:
    """Copy one slab.

    Raises
    ------
    DiskError
        When a disk refuses.
    StoreError
        When the data cannot be read there: all partitions need it.
    """
    begin = time.perf_counter()
    check_versions(context)
    source = _source(context.spec, folder)
    slab = list(source.copy.tiling.slabs())[unit.start]
    try:
        with group_access(context.for_group):
            source.copy_slab(slab)
    except SweepError:
        raise
    except Exception as error:  # decoders of damaged chunks raise all kinds
        cause = disk_cause(error)
        if cause is not None:
            source.origin.dataset.close()
            _source.cache_clear()
            raise disk_error(cause, slab.names[0], "read") from error
        raise unreadable(slab, error) from error
    return Receipt(
        PartName("", unit, 0, ""),
        time.perf_counter() - begin,
        get_worker().address,
        0,
        installed("scikit-learn"),
    )


def unreadable(slab: Slab, error: Exception) -> StoreError:
    """Return what to say of a slab that cannot be decoded."""
    return StoreError(
        f"{slab} cannot be read, and all partitions need it: {type(error).__name__}: {error}; "
        "mend the data, or leave that part out of it"
    )
