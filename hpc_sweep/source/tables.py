"""Tables as data sets: rows along one dimension, columns as variables, read piece by piece.

A piece is a row group of a parquet file, a CSV file, or a partition of a Dask data frame. Rows are
put in the order of the labels that partitions are cut by, without moving anything: a partition is
a range of rows, and of each piece only its rows are kept while the piece is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.partitions import text_of
from hpc_sweep.source.axes import make_axes
from hpc_sweep.source.reading import Box, PlainReading
from hpc_sweep.spec import DataSpec, Wanted, wanted_axes

ROW = "row"
"""The dimension of a table."""

MOST_PIECES = 3
"""Labels lie together if as many rows as a piece has are in so many pieces on average."""

_TEXTS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary),  # of writers that don't mark texts as such
)

Piece = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""Yields some columns of a piece, rows in order."""


@dataclass(frozen=True)
class Table:
    """Rows and columns somewhere.

    Attributes
    ----------
    schema : pyarrow.Schema
        The columns and their types.
    pieces : tuple of callable
        In the order of rows.
    lengths : tuple of int
        How many rows each has.
    """

    schema: pa.Schema
    pieces: tuple[Piece, ...]
    lengths: tuple[int, ...]

    @cached_property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The columns as NumPy has them."""
        return {
            field.name: column_values(pa.chunked_array([], field.type)).dtype
            for field in self.schema
        }

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """First row of each piece, and how many there are."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.intp)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return int(self.starts[-1])

    def pieces_of(self, rows: NDArray[np.intp]) -> int:
        """Return how many pieces some rows are in."""
        found = np.searchsorted(self.starts, rows, side="right")
        return int(np.count_nonzero(np.bincount(found)))

    def runs(self, n_rows: int) -> tuple[int, ...]:
        """Return where runs of whole pieces begin that have about so many rows.

        A piece that has more is cut, and read for each run that has some of it.
        """
        starts = [0]
        for first, last in itertools.pairwise(self.starts.tolist()):
            if last - starts[-1] > n_rows and first > starts[-1]:
                starts.append(first)
            while last - starts[-1] > n_rows:
                starts.append(starts[-1] + n_rows)
        return tuple(starts)

    def read(self, columns: Sequence[str], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Read some columns of some rows; each piece that has any is read once.

        Parameters
        ----------
        columns : sequence of str
            Which ones.
        rows : ndarray of intp, shape (n_rows,)
            Each at most once, in any order.

        Returns
        -------
        dict of str to ndarray, shape (n_rows,)
            In the order of `rows`.
        """
        in_order = bool((rows[1:] > rows[:-1]).all())
        places = None if in_order else np.argsort(rows, kind="stable")
        ascending = rows if places is None else rows[places]
        bounds = np.searchsorted(ascending, self.starts)
        kept: list[pa.RecordBatch] = []
        for piece, start, first, last in zip(
            self.pieces, self.starts, bounds, bounds[1:], strict=False
        ):
            if first < last:
                kept += _kept(piece(columns), ascending[first:last] - start)
        found = {}
        for name in columns:
            kind = None if kept else self.schema.field(name).type
            values = column_values(pa.chunked_array([each.column(name) for each in kept], kind))
            if places is not None:
                ordered = np.empty_like(values)
                ordered[places] = values
                values = ordered
            found[name] = values
        return found


def _kept(batches: Iterable[pa.RecordBatch], rows: NDArray[np.intp]) -> Iterator[pa.RecordBatch]:
    """Yield what is wanted of each batch; `rows` ascend from the first of the batches."""
    begin = 0
    for batch in batches:
        end = begin + batch.num_rows
        first, last = np.searchsorted(rows, [begin, end])
        if last - first == batch.num_rows:
            yield batch
        elif first < last:
            yield batch.take(pa.array(rows[first:last] - begin))
        begin = end
    if rows.size and rows[-1] >= begin:
        raise ValueError(f"a piece of the table had {rows[-1] + 1} rows or more, and has {begin}")


def column_values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as NumPy has it: texts as objects, None where there is none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if any(is_text(kind) for is_text in _TEXTS):
        return _texts(column)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))  # in UTC
    values: NDArray[Any] = column.to_numpy()
    return values


def _texts(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return texts as objects; equal ones are one object."""
    encoded = column.dictionary_encode().unify_dictionaries()
    known = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    texts = [text if isinstance(text, str) else text_of(text) for text in known]
    codes = [chunk.indices.fill_null(len(texts)).to_numpy() for chunk in encoded.chunks]
    values = np.array([*texts, None], dtype=object)
    return values[np.concatenate(codes)] if codes else values[:0]


@dataclass(frozen=True)
class TableReading:
    """Columns of a table, rows in another order.

    Attributes
    ----------
    dataset : xarray.Dataset
        The table.
    table : Table
        What is read.
    order : ndarray of intp, shape (n_rows,)
        Which row stands where.
    held : frozenset of str
        Columns that are in memory and not read again.
    """

    dataset: xr.Dataset
    table: Table
    order: NDArray[np.intp]
    held: frozenset[str] = frozenset()

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names: all are stored."""
        return tuple(names)

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read columns inside a box, together."""
        columns = [n for n in names if n in self.table.dtypes and n not in self.held]
        others = [name for name in names if name not in columns]
        found = PlainReading(self.dataset).read(others, box)
        if columns:
            values = self.table.read(columns, self.order[box.get(ROW, slice(None))])
            found |= {name: xr.Variable((ROW,), column) for name, column in values.items()}
        return found

    def as_it_is(self) -> TableReading:
        """Return the same with all columns to be read, rows as they lie in the files."""
        order = np.arange(self.table.n_rows)
        variables = {
            name: xr.Variable((ROW,), indexing.LazilyIndexedArray(_Column(self.table, name, order)))
            for name in self.table.dtypes
        }
        return TableReading(xr.Dataset(variables), self.table, order)


class _Column(BackendArray):
    """A column, read when it is indexed."""

    def __init__(self, table: Table, name: str, order: NDArray[np.intp]) -> None:
        self.table = table
        self.name = name
        self.order = order
        self.shape = order.shape
        self.dtype = table.dtypes[name]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.OUTER_1VECTOR
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        rows, where = np.unique(self.order[key[0]], return_inverse=True)
        return self.table.read([self.name], rows)[self.name][where]


class _Labels(BackendArray):
    """A column in memory: which of few values each row has; −1: none."""

    def __init__(self, codes: NDArray[np.int32], known: NDArray[Any], dtype: Any) -> None:
        self.codes = codes
        missing = {"f": [np.nan], "O": [None], "M": [np.datetime64("NaT")]}.get(dtype.kind, [])
        self.values = np.concatenate([known, np.array(missing, dtype)]).astype(dtype)
        self.shape = codes.shape
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.OUTER_1VECTOR
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        return self.values[self.codes[key[0]]]


def open_table(data: DataSpec, table: Table, *, by_label: bool = True) -> TableReading:
    """Return a table as a data set.

    The columns that name partitions are read; the others are not.

    Parameters
    ----------
    data : DataSpec
        Says which columns these are.
    table : Table
        The table.
    by_label : bool
        Whether rows are put in the order of their labels; else they stay as they are.

    Raises
    ------
    SpecError
        When a column has the name of the dimension.
    """
    if ROW in table.dtypes:
        message = f"its column '{ROW}' is named like the dimension of a table; rename it"
        raise SpecError([Fault("data.store", message)])
    asked = [each for each in wanted_axes(data.partition_by) if _column_of(each, table) is not None]
    columns = list(dict.fromkeys(str(_column_of(each, table)) for each in asked))
    labels = table.read(columns, np.arange(table.n_rows)) if columns else {}
    factors = {name: pd.factorize(values, sort=True) for name, values in labels.items()}
    codes = {name: code.astype(np.int32) for name, (code, _) in factors.items()}
    keys = [_keys(each, labels, codes, table) for each in asked]
    order = np.lexsort(keys[::-1]) if keys and by_label else np.arange(table.n_rows)
    encoding = _chunks(table, order)
    arrays: dict[str, Any] = {name: _Column(table, name, order) for name in table.dtypes}
    for name, code in codes.items():
        arrays[name] = _Labels(code[order], np.asarray(factors[name][1]), labels[name].dtype)
    variables = {}
    for name, array in arrays.items():
        own = {**encoding, "dtype": table.dtypes[name]}  # gaps make floats of whole numbers
        variables[name] = xr.Variable((ROW,), indexing.LazilyIndexedArray(array), encoding=own)
    return TableReading(xr.Dataset(variables), table, order, frozenset(labels))


def _column_of(wanted: Wanted, table: Table) -> str | None:
    """Return the column that an axis is made of, such as that of ``date.month``."""
    names = (wanted.name, wanted.name.rpartition(".")[0])
    return next((name for name in names if name in table.dtypes), None)


def _keys(
    wanted: Wanted,
    labels: Mapping[str, NDArray[Any]],
    codes: Mapping[str, NDArray[np.int32]],
    table: Table,
) -> NDArray[np.integer[Any]]:
    """Return by what rows are put in order: those of one label stay as they lie in the files."""
    column = str(_column_of(wanted, table))
    if column == wanted.name and wanted.how is None:
        return codes[column]
    own = {"dtype": table.dtypes[column]}
    held = xr.Dataset({column: xr.Variable((ROW,), labels[column], encoding=own)})
    axes, _ = make_axes([wanted], held, [ROW])  # what is wrong with it is told with all else
    return axes[0].codes if axes else codes[column]


def _chunks(table: Table, order: NDArray[np.intp]) -> Mapping[str, Any]:
    """Return how many rows in order should be read together, and the extent of a piece."""
    longest = max(table.lengths, default=0)
    if not longest:
        return {}
    starts = range(0, order.size, longest)
    visits = sum(table.pieces_of(order[first : first + longest]) for first in starts)
    clustered = visits <= MOST_PIECES * len(starts)
    return {
        "preferred_chunks": {ROW: longest if clustered else order.size},
        "held_chunks": {ROW: longest},
    }
