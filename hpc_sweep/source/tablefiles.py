"""Tables in parquet and CSV files, and in data frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs

from hpc_sweep.errors import Fault, SpecError, disk_cause, disk_error, listed, nearest
from hpc_sweep.source.tables import Piece, Table
from hpc_sweep.spec import DataSpec

CSV_BLOCK_BYTES = 2**24
"""The kind of a CSV file's columns is seen in its first block."""

CSV_OPTIONS = {
    "parse": (
        "delimiter",
        "quote_char",
        "double_quote",
        "escape_char",
        "newlines_in_values",
        "ignore_empty_lines",
    ),
    "read": (
        "skip_rows",
        "skip_rows_after_names",
        "column_names",
        "autogenerate_column_names",
        "encoding",
    ),
    "convert": (
        "decimal_point",
        "null_values",
        "true_values",
        "false_values",
        "timestamp_parsers",
    ),
}
"""What ``data.open_options`` of CSV files may name: options of `pyarrow.csv.ParseOptions`,
`pyarrow.csv.ReadOptions` and `pyarrow.csv.ConvertOptions`."""

_LISTS = {"column_names", "null_values", "true_values", "false_values", "timestamp_parsers"}
"""Those of several texts; one by itself would be taken letter by letter."""

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2", ".csv.zst")
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def is_table(place: str) -> bool:
    """Tell whether a path or URL is that of a table."""
    bare = place.rstrip("/").lower()
    if bare.endswith((*_PARQUET, *_CSV)):
        return True
    folder = Path(place)
    if "://" in place or not folder.is_dir() or any((folder / name).exists() for name in _ZARR):
        return False
    return _holds(folder, _PARQUET) or _holds(folder, _CSV)


def file_table(data: DataSpec, places: Sequence[str]) -> Table:
    """Open files as one table.

    Parameters
    ----------
    data : DataSpec
        Its `open_options` are those of `CSV_OPTIONS`.
    places : sequence of str
        Parquet or CSV files, or folders of either.

    Raises
    ------
    SpecError
        When they cannot be read, or have columns of different kinds.
    DiskError
        When a disk fails.
    """
    try:
        places = [file for place in places for file in _csv_files(place)]
        kinds = {place.rstrip("/").lower().endswith(_CSV) for place in places}
        if len(kinds) > 1:
            raise SpecError([Fault("data.store", "are parquet and CSV files; use one of them")])
        return _csv_table(data, places) if kinds == {True} else _parquet_table(data, places)
    except SpecError:
        raise
    except Exception as error:
        cause = disk_cause(error)
        if cause is not None and not isinstance(cause, PermissionError):
            raise disk_error(cause, places[0], "read") from error
        text = " ".join(str(error).split())[:300]
        message = f"'{data.origin}' cannot be read as a table ({text})"
        raise SpecError([Fault("data.store", message)]) from error


def _holds(folder: Path, suffixes: Sequence[str]) -> bool:
    return any(next(folder.rglob(f"*{suffix}"), None) for suffix in suffixes)


def _csv_files(place: str) -> list[str]:
    """Return the CSV files in a folder that has no parquet files; any other place as it is."""
    folder = Path(place)
    if "://" in place or not folder.is_dir() or _holds(folder, _PARQUET):
        return [place]
    return sorted(str(file) for suffix in _CSV for file in folder.rglob(f"*{suffix}"))


def frame_table(frame: Any) -> Table | None:
    """Return a pandas or Dask data frame as a table, or None for anything else.

    A named index is a column.
    """
    if isinstance(frame, pd.DataFrame):
        named = frame.reset_index() if any(frame.index.names) else frame
        return _arrow_table(pa.Table.from_pandas(named, preserve_index=False))
    if isinstance(frame, pa.Table):
        return _arrow_table(frame)
    if not type(frame).__module__.startswith("dask.dataframe"):
        return None
    named = frame.reset_index() if frame.index.name is not None else frame
    first = pa.Schema.from_pandas(named._meta, preserve_index=False)
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in first])
    lengths = named.map_partitions(len).compute(scheduler="synchronous")
    pieces = [_dask_piece(named, index, schema) for index in range(named.npartitions)]
    return Table(schema, tuple(pieces), tuple(map(int, lengths)))


def _arrow_table(table: pa.Table) -> Table:
    def piece(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from table.select(list(columns)).to_batches()

    return Table(table.schema, (piece,), (table.num_rows,))


def _dask_piece(frame: Any, index: int, schema: pa.Schema) -> Piece:
    def piece(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        part = frame[list(columns)].partitions[index].compute(scheduler="synchronous")
        wanted = pa.schema([schema.field(name) for name in columns])
        yield from pa.Table.from_pandas(part, wanted, preserve_index=False).to_batches()

    return piece


def _parquet_table(data: DataSpec, places: Sequence[str]) -> Table:
    if data.open_options:
        message = "are for stores that xarray opens, and for CSV"
        raise SpecError([Fault("data.open_options", message)])
    files = [_dataset(*_found(place), pa.dataset.ParquetFileFormat()) for place in places]
    fragments = [fragment for dataset in files for fragment in dataset.get_fragments()]
    physical = [fragment.physical_schema for fragment in fragments]
    schema = pa.unify_schemas(
        [*physical, *(dataset.schema for dataset in files)], promote_options="permissive"
    )
    groups = [group for fragment in fragments for group in fragment.split_by_row_group()]
    pieces = tuple(_fragment_piece(group, schema) for group in groups)
    return Table(schema, pieces, tuple(group.row_groups[0].num_rows for group in groups))


def _csv_table(data: DataSpec, places: Sequence[str]) -> Table:
    delimiter = "\t" if any(".tsv" in place.lower() for place in places) else ","
    given = _csv_options(data.open_options)
    # more than the usual ones, as in pandas
    given["convert"]["null_values"] = [
        *pa.csv.ConvertOptions().null_values,
        *given["convert"].get("null_values", ()),
    ]

    def dataset(place: str, types: pa.Schema | None) -> Any:
        system, path = _found(place)
        try:
            parse = pa.csv.ParseOptions(**{"delimiter": delimiter, **given["parse"]})
            read = pa.csv.ReadOptions(
                use_threads=False, block_size=CSV_BLOCK_BYTES, **given["read"]
            )
            convert = pa.csv.ConvertOptions(
                strings_can_be_null=True, column_types=types, **given["convert"]
            )
        except (TypeError, ValueError) as error:
            raise SpecError([Fault("data.open_options", f"{error} (CSV files)")]) from error
        if read.skip_rows and not (read.column_names or read.autogenerate_column_names):
            # pyarrow's data sets count the columns of rows that are to be skipped, too
            with system.open_input_stream(path) as stream:
                read.column_names = pa.csv.open_csv(stream, read, parse).schema.names
            read.skip_rows += 1
        form = pa.dataset.CsvFileFormat(parse, convert_options=convert, read_options=read)
        return _dataset(system, path, form)

    files = [dataset(place, None) for place in places]
    seen = _unified([each.schema for each in files])
    # what has been whole numbers in the first block may have decimals later
    schema = pa.schema(
        [
            field.with_type(pa.float64())
            if field.name in data.features and pa.types.is_integer(field.type)
            else field
            for field in seen
        ]
    )
    fragments = [f for place in places for f in dataset(place, schema).get_fragments()]
    pieces = tuple(_fragment_piece(fragment, schema) for fragment in fragments)
    return Table(schema, pieces, tuple(fragment.count_rows() for fragment in fragments))


def _csv_options(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return options by which of pyarrow's option classes takes them.

    Raises
    ------
    SpecError
        When none does.
    """
    unknown = [name for name in given if not any(name in names for names in CSV_OPTIONS.values())]
    if unknown:
        names = sorted(itertools.chain.from_iterable(CSV_OPTIONS.values()))
        others = f"; there are {listed(names)}"
        words = "is no option of CSV files"
        raise SpecError(
            [
                Fault(f"data.open_options.{name}", words + (nearest(name, names) or others))
                for name in unknown
            ]
        )
    known = {name: _texts(value) if name in _LISTS else value for name, value in given.items()}
    return {
        kind: {name: known[name] for name in names if name in known}
        for kind, names in CSV_OPTIONS.items()
    }


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def _unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return what columns are in all files: those that are texts in one are texts."""
    kinds: dict[str, set[pa.DataType]] = {}
    for field in itertools.chain(*schemas):
        kinds.setdefault(field.name, set()).add(field.type)
    texts = {name for name, found in kinds.items() if pa.string() in found}
    plain = [
        pa.schema([f.with_type(pa.string()) if f.name in texts else f for f in schema])
        for schema in schemas
    ]
    return pa.unify_schemas(plain, promote_options="permissive")


def _found(place: str) -> tuple[Any, str]:
    """Return pyarrow's file system and the path there."""
    files, path = fsspec.core.url_to_fs(place)
    local = isinstance(files, fsspec.implementations.local.LocalFileSystem)
    system = pa.fs.LocalFileSystem() if local else pa.fs.PyFileSystem(pa.fs.FSSpecHandler(files))
    return system, path


def _dataset(system: Any, path: str, form: Any) -> Any:
    return pa.dataset.dataset(path, filesystem=system, format=form, partitioning="hive")


def _fragment_piece(fragment: Any, schema: pa.Schema) -> Piece:
    def piece(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        scanner = fragment.scanner(
            schema=schema,
            columns=list(columns),
            use_threads=False,
            batch_readahead=1,
            fragment_readahead=1,
        )
        try:
            yield from scanner.to_batches()
        except (pa.ArrowException, OSError) as error:
            groups = [str(group.id) for group in getattr(fragment, "row_groups", ())]
            where = ", row group ".join([fragment.path, *groups])
            raise ValueError(f"{where}: {' '.join(str(error).split())}") from error

    return piece
