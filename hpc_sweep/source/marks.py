"""By what a change of the data's files is noticed, without opening anything: sizes and times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc_sweep.errors import SpecError
from hpc_sweep.source.opening import open_source
from hpc_sweep.source.source import Source
from hpc_sweep.source.stores import expanded_places, is_url
from hpc_sweep.spec import DataSpec, SearchSpec

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata", ".zarray")

Marks = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and time of change in nanoseconds of each file or folder."""


def source_marks(data: DataSpec, variables: Iterable[str]) -> Marks:
    """Return what tells of a change of the data's metadata and coordinates.

    Of zarr stores these are the metadata of the group and of some variables, of other places the
    files themselves. Of URLs and loaders nothing is known.

    Parameters
    ----------
    data : DataSpec
        Names the places.
    variables : iterable of str
        Variables and coordinates that matter.

    Raises
    ------
    SpecError
        When a place is gone.
    """
    if data.loader is not None:
        return ()
    names = sorted(variables)
    paths = [
        path
        for place in expanded_places(data)
        if not is_url(place)
        for path in _telling(Path(place), data.group or "", names)
    ]
    return tuple(mark for path in paths for mark in _mark(path))


def _telling(place: Path, group: str, names: Iterable[str]) -> Iterator[Path]:
    yield place
    if not place.is_dir():
        return
    root = place / group.strip("/")
    for folder in (root, *(root / name for name in names)):
        yield from (folder / name for name in _METADATA)


def _mark(path: Path) -> Iterator[tuple[str, int, int, int]]:
    try:
        found = os.stat(path)  # noqa: PTH116, one call
    except (FileNotFoundError, NotADirectoryError):
        return
    yield str(path), found.st_ino, found.st_size, found.st_mtime_ns


class Watch:
    """Notices that the data changes while it is read.

    Parameters
    ----------
    source : Source
        As it was opened.
    search : SearchSpec or None
        What it was opened for.
    by_label : bool
        Whether the rows of a table were put in the order of their labels.
    """

    def __init__(
        self, source: Source, search: SearchSpec | None = None, *, by_label: bool = True
    ) -> None:
        self._source = source
        self._search = search
        self._by_label = by_label
        self._names = {*source.reading.sources(source.variables), *source.dataset.coords}
        self._marks = self._seen()
        self._next = 0.0

    def changed(self) -> bool:
        """Tell whether the data is another one now; files that are only newer are looked into.

        Where there are so many files that asking takes long, they are asked for a twentieth of the
        time.
        """
        begin = time.monotonic()
        if begin < self._next:
            return False
        marks = self._seen()
        self._next = begin + 20 * (time.monotonic() - begin)
        if marks == self._marks:
            return False
        self._marks = marks
        try:
            now = open_source(self._source.data, self._search, by_label=self._by_label).identity()
        except SpecError:
            return True
        return now != self._source.identity()

    def _seen(self) -> Marks:
        try:
            return source_marks(self._source.data, map(str, self._names))
        except SpecError:  # a place is gone
            return (("", 0, 0, 0),)
