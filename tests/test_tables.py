"""Tables: plain pandas is the other way to the same arrays."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc_sweep.errors import SpecError
from hpc_sweep.partitions import partition_labels
from hpc_sweep.source import Source, index_bytes, open_source
from hpc_sweep.source.tables import Table, TableReading
from hpc_sweep.spec import DataSpec

ROWS = 400
Save = Callable[[pd.DataFrame, Path], list[Path]]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "station": rng.choice(["Ürümqi", "Rome", "Oslo", None], ROWS),
            "level": rng.integers(0, 3, ROWS),
            "date": pd.date_range("2020-06-01", periods=ROWS, freq="D"),
            "wind": rng.normal(size=ROWS),
            "count": rng.integers(0, 9, ROWS),
            "valid": rng.random(ROWS) > 0.2,
            "sky": rng.choice(["clear", "cloudy", None], ROWS),
        }
    )
    table.loc[rng.random(ROWS) < 0.1, "wind"] = np.nan
    return table


def parquet(frame: pd.DataFrame, folder: Path) -> list[Path]:
    frame.to_parquet(folder / "in.parquet", row_group_size=50)
    return [folder / "in.parquet"]


def parquets(frame: pd.DataFrame, folder: Path) -> list[Path]:
    (folder / "years").mkdir()
    for year, rows in frame.groupby(frame.date.dt.year):
        rows.to_parquet(folder / "years" / f"{year}.parquet", row_group_size=90)
    return [folder / "years"]


def pattern(frame: pd.DataFrame, folder: Path) -> list[Path]:
    parquets(frame, folder)
    return [folder / "years" / "*.parquet"]


def hive(frame: pd.DataFrame, folder: Path) -> list[Path]:
    pq.write_to_dataset(pa.Table.from_pandas(frame), folder / "in", partition_cols=["level"])
    return [folder / "in"]


def csv(frame: pd.DataFrame, folder: Path) -> list[Path]:
    frame.to_csv(folder / "in.csv", index=False)
    return [folder / "in.csv"]


def csvs(frame: pd.DataFrame, folder: Path) -> list[Path]:
    frame[:150].to_csv(folder / "1.csv", index=False)
    frame[150:].to_csv(folder / "2.csv.gz", index=False)
    return [folder / "1.csv", folder / "2.csv.gz"]


def csv_folder(frame: pd.DataFrame, folder: Path) -> list[Path]:
    (folder / "in").mkdir()
    (folder / "in/README.txt").write_text("what the columns are")
    csvs(frame, folder / "in")
    return [folder / "in"]


def url(frame: pd.DataFrame, folder: Path) -> list[Path]:
    (path,) = parquet(frame, folder)
    return [f"file://{path}"]  # type: ignore[list-item]


def spec(*places: Any, **keys: Any) -> DataSpec:
    usual = {"features": ["wind", "count"], "target": "sky", "partition_by": ["station"]}
    return DataSpec(**{"store": list(map(str, places)), **usual, **keys})


def opened(*places: Any, **keys: Any) -> Source:
    return open_source(spec(*places, **keys))


def fault(*places: Any, key: str, **keys: Any) -> str:
    with pytest.raises(SpecError) as caught:
        opened(*places, **keys)
    return {each.path: each.message for each in caught.value.faults}[key]


def assert_reads(
    source: Source, frame: pd.DataFrame, by: list[str], *, in_order: bool = True
) -> None:
    """Check all partitions against a group-by of pandas."""
    grid = source.grid
    partitions = grid.reading_order(grid.shape, (0,) * len(grid.shape))
    columns = [*source.data.features, *source.targets]
    groups = {k: g[columns].dropna() for k, g in frame.groupby(by)}
    for partition, samples in zip(partitions, source.read(partitions), strict=True):
        labels = partition_labels(source.coordinates, source.dims, partition)
        rows = groups.get(tuple(labels[name] for name in by), frame[columns][:0])
        found = pd.DataFrame(samples.X, columns=source.data.features)
        found[source.targets[0]] = samples.y
        if not in_order:
            rows = rows.sort_values(columns)
            found = found.sort_values(columns)
        expected = rows.reset_index(drop=True)
        pd.testing.assert_frame_equal(
            found.reset_index(drop=True), expected, check_dtype=False, check_exact=True
        )


@pytest.mark.parametrize("save", [parquet, parquets, pattern, hive, csv, csvs, csv_folder, url])
def test_partitions_are_what_pandas_groups(frame: pd.DataFrame, tmp_path: Path, save: Save) -> None:
    places = save(frame, tmp_path)
    source = opened(*places)
    assert source.dims == ("station",)
    assert source.coordinates["station"].tolist() == ["Oslo", "Rome", "Ürümqi"]
    assert_reads(source, frame, ["station"], in_order=save is not hive)
    source = opened(*places, partition_by=["station", "level"], target="count", features=["wind"])
    assert source.grid.shape == (3, 3)
    assert_reads(source, frame, ["station", "level"], in_order=save is not hive)


def test_whole_numbers_with_gaps_are_labels(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["level"] = frame.level.astype("Int64").mask(frame["count"] == 3)
    source = opened(*parquet(frame, tmp_path), partition_by=["level"], features=["wind"])
    assert source.coordinates["level"].dtype == np.int64
    assert_reads(source, frame, ["level"])


def test_labels_that_are_made_of_columns(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Samples stay in the order of the files, whatever their dates are."""
    frame = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    places = parquet(frame, tmp_path)
    for part in ({"date": "year"}, "date.year"):
        source = opened(*places, partition_by=["level", part])
        assert source.cut.joints[0].members.tolist() == list(range(ROWS))
        assert_reads(source, frame.assign(year=frame.date.dt.year), ["level", "year"])
    high = {"bins": [-9, 0, 9], "labels": ["low", "high"]}
    source = opened(*places, partition_by=[{"wind": high}], features=["count"])
    named = np.where(frame.wind.isna(), None, np.where(frame.wind < 0, "low", "high"))
    assert_reads(source, frame.assign(wind_bins=named), ["wind_bins"])
    source = opened(*places, partition_by=[], target=None)
    (samples,) = source.read(np.zeros((1, 0), dtype=np.intp))
    np.testing.assert_array_equal(samples.X, frame[["wind", "count"]].dropna())


@pytest.mark.parametrize("save", [parquet, csv])
def test_masks_and_made_features(frame: pd.DataFrame, tmp_path: Path, save: Save) -> None:
    features = ["wind", "wind@-1", "wind@-3D", "date.month"]
    source = opened(*save(frame, tmp_path), features=features, target="count", where="~valid")
    for index, (_, rows) in enumerate(frame.groupby("station")):
        days = rows.set_index("date").wind
        rows = rows.assign(step=rows.wind.shift(1), month=rows.date.dt.month)
        rows["days"] = days.reindex(days.index - pd.Timedelta("3D")).to_numpy()
        expected = rows[~rows.valid][["wind", "step", "days", "month", "count"]].dropna()
        (samples,) = source.read(np.array([[index]]))
        np.testing.assert_array_equal(samples.X, expected.iloc[:, :4])
        np.testing.assert_array_equal(samples.y, expected["count"])


# what is read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[int]:
    """Count how often each piece is read after opening."""
    counts: collections.Counter[int] = collections.Counter()
    read = TableReading.read

    def counted(self: TableReading, *given: Any) -> Any:
        def piece(index: int) -> Any:
            def counted_piece(columns: Any) -> Any:
                counts[index] += 1
                return self.table.pieces[index](columns)

            return counted_piece

        pieces = tuple(map(piece, range(len(self.table.pieces))))
        table = Table(self.table.schema, pieces, self.table.lengths)
        return read(dataclasses.replace(self, table=table), *given)

    monkeypatch.setattr(TableReading, "read", counted)
    return counts


@pytest.mark.parametrize("save", [parquet, csvs])
def test_pieces_are_read_once_for_all_columns(
    frame: pd.DataFrame, tmp_path: Path, save: Save, reads: collections.Counter[int]
) -> None:
    source = opened(*save(frame, tmp_path), features=["wind", "wind@-1", "count"])
    assert len(list(source.read(np.array([[0], [1], [2]])))) == 3
    assert set(reads.values()) == {1}


def test_only_pieces_in_demand_are_read(
    frame: pd.DataFrame, tmp_path: Path, reads: collections.Counter[int]
) -> None:
    frame = frame.assign(station=np.repeat(np.arange(8), 50))
    source = opened(*parquet(frame, tmp_path))
    assert source.grid.read_chunks == (1,)
    list(source.read(np.array([[2], [3]])))
    assert reads == {2: 1, 3: 1}


def test_scattered_labels_are_read_together(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame.assign(station=np.arange(ROWS) % 4)
    source = opened(*parquet(frame, tmp_path), partition_by=["station"])
    assert source.grid.read_chunks == (4,)
    assert source.chunk_bytes == 50 * 8  # a row group, not the table


def test_labels_are_read_once(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    read = Table.read
    monkeypatch.setattr(Table, "read", lambda *given: asked.append(given[1]) or read(*given))
    source = opened(*parquet(frame, tmp_path), features=["wind", "level"], partition_by="level")
    assert asked == [["level"]]
    list(source.read(np.array([[1]])))
    assert asked[1:] == [["wind", "sky"]]


def test_identity_follows_labels_and_columns(frame: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = parquet(frame, tmp_path)
    before = opened(path).identity()
    assert opened(path).identity() == before
    frame.loc[[0, 1, 2, 3], "station"] = ["Rome", "Oslo", "Rome", "Oslo"]
    parquet(frame, tmp_path)
    assert opened(path).identity() != before


# data frames


def test_data_frames_of_a_loader(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    dask_frame = pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=3)
    frames = {
        "pandas": frame,
        "indexed": frame.set_index("date"),
        "category": frame.astype({"station": "category", "sky": "category"}),
        "dask": dask_frame,
        "bytes": frame.assign(station=frame.station.str.encode("utf-8")),
    }
    for each in frames.values():
        monkeypatch.setattr(f"{__name__}.load_frame", lambda each=each: each)
        data = spec(store=None, loader=f"{__name__}:load_frame")
        assert_reads(open_source(data), frame, ["station"])


def load_frame() -> pd.DataFrame:
    raise NotImplementedError


def test_a_data_frame_that_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = pd.DataFrame({"station": [1, "a"], "wind": [1.0, 2.0]})
    twice = pd.DataFrame([[1, 2]], columns=["station", "station"])
    for frame in (mixed, twice):
        monkeypatch.setattr(f"{__name__}.load_frame", lambda frame=frame: frame)
        message = fault(store=None, loader=f"{__name__}:load_frame", key="data.loader")
        assert "station" in message


# what is refused


def test_refusals(frame: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = parquet(frame, tmp_path)
    assert "did you mean 'wind'" in fault(path, features=["wnd"], key="data.features.0")
    assert "need numbers" in fault(path, features=["station"], key="data.features.0")
    assert "station" in fault(path, partition_by=["staton"], key="data.partition_by.0")
    assert "no groups" in fault(path, group="a", key="data.group")
    assert "xarray" in fault(path, open_options={"engine": "a"}, key="data.open_options")
    (other,) = csv(frame, tmp_path)
    assert "parquet and CSV" in fault(path, other, key="data.store")
    assert "did you mean 'in.csv'" in fault(tmp_path / "im.csv", key="data.store")
    assert "did you mean 'delimiter'" in fault(
        other, open_options={"delimitr": ";"}, key="data.open_options.delimitr"
    )
    frame.rename(columns={"level": "row"}).to_parquet(tmp_path / "row.parquet")
    assert "rename" in fault(tmp_path / "row.parquet", key="data.store")
    frame[["wind"]].astype(str).to_parquet(tmp_path / "text.parquet")
    assert "wind" in fault(path, tmp_path / "text.parquet", key="data.store")
    path.write_bytes(b"PAR1 and no more")
    assert "in.parquet" in fault(path, key="data.store")
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv" in fault(tmp_path / "empty.csv", key="data.store")


def test_columns_may_be_whole_numbers_in_some_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["wind"] = np.where(np.arange(ROWS) < 150, np.round(frame.wind), frame.wind)
    frame = frame.dropna(subset=["wind"])
    whole = frame[:100].astype({"wind": int})
    whole.to_parquet(tmp_path / "1.parquet")
    frame[100:].to_parquet(tmp_path / "2.parquet")
    assert_reads(opened(tmp_path / "?.parquet"), frame, ["station"])


def test_labels_may_be_numbers_in_some_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame[frame.station.notna()].replace({"station": {"Oslo": "007", "Rome": "12"}})
    for station, rows in frame.groupby("station"):
        rows.to_csv(tmp_path / f"{station}.csv", index=False)
    source = opened(tmp_path)
    assert source.coordinates["station"].tolist() == ["007", "12", "Ürümqi"]
    assert_reads(source, frame, ["station"])


def test_numbers_may_get_decimals_late_in_a_file(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_sweep.source.tablefiles.CSV_BLOCK_BYTES", 500)
    frame["count"] = frame["count"] + np.where(np.arange(ROWS) > 300, 0.5, 0.0)
    path = tmp_path / "in.csv"
    frame.assign(count=frame["count"].map(lambda each: f"{each:g}")).to_csv(path, index=False)
    assert_reads(opened(path), frame, ["station"])


def test_other_delimiters(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "in.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "in.tsv", index=False, sep="\t")
    assert_reads(opened(tmp_path / "in.csv", open_options={"delimiter": ";"}), frame, ["station"])
    assert_reads(opened(tmp_path / "in.tsv"), frame, ["station"])


def test_a_european_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Semicolons, decimal commas, letters of one byte, lines above, missing values, dates."""
    written = frame.fillna({"wind": -999.0})
    file = tmp_path / "in.csv"
    body = written.to_csv(index=False, sep=";", decimal=",", date_format="%d.%m.%Y")
    file.write_bytes(f"# Wetterdienst\n# 3 Stationen\n{body}".encode("latin-1"))
    options = {
        "delimiter": ";",
        "decimal_point": ",",
        "encoding": "latin-1",
        "skip_rows": 2,
        "null_values": ["-999", "-999,0"],
        "timestamp_parsers": ["%d.%m.%Y"],
    }
    assert_reads(opened(file, open_options=options), frame, ["station"])
    by_month = opened(file, open_options=options, partition_by=[{"date": "month"}])
    assert by_month.grid.shape == (frame["date"].dt.month.nunique(),)


def test_an_option_of_several_texts_may_be_one(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A number too; never letter by letter, which would take each 9 for a missing value."""
    for missing in (-999, "-999"):
        frame.fillna({"wind": -999}).to_csv(tmp_path / "in.csv", index=False)
        text = (tmp_path / "in.csv").read_text().replace("-999.0", "-999")
        (tmp_path / "in.csv").write_text(text)
        options = {"null_values": missing, "timestamp_parsers": "%Y-%m-%d"}
        table = opened(tmp_path / "in.csv", open_options=options)
        assert_reads(table, frame, ["station"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sep": ";"}, r"data\.open_options\.sep: is no option of CSV files; .*delimiter"),
        ({"delimiter": 5}, r"data\.open_options: .*CSV"),
        ({"skip_rows": "many"}, r"data\.open_options: .*CSV"),
        ({"encoding": "martian"}, r"martian"),
    ],
)
def test_options_that_are_none(
    frame: pd.DataFrame, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    frame.to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(SpecError, match=words):
        opened(tmp_path / "in.csv", open_options=options)


def test_a_damaged_piece_is_the_fault_of_its_partitions(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame = frame.assign(station=np.repeat(np.arange(8), 50))
    (path,) = parquet(frame, tmp_path)
    source = opened(path)
    content = bytearray(path.read_bytes())
    where = pq.ParquetFile(path).metadata.row_group(5).column(3).data_page_offset
    content[where : where + 200] = b"x" * 200
    path.write_bytes(content)
    assert len(list(opened(path).read(np.array([[2], [3]])))) == 2
    with pytest.raises(ValueError, match=r"in\.parquet, row group 5"):
        list(source.read(np.array([[5]])))


def test_what_tells_whose_rows_are_where_is_counted(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Labels, codes, keys, members and order: twice for a table with twice the rows."""
    (tmp_path / "twice").mkdir()
    once = opened(*parquet(frame, tmp_path))
    twice = opened(*parquet(pd.concat([frame, frame]), tmp_path / "twice"))
    arrays = [once.axes[0].codes, once.cut.joints[0].members, once.cut.joints[0].keys]
    assert isinstance(once.reading, TableReading)
    assert index_bytes(once) >= sum(each.nbytes for each in [*arrays, once.reading.order])
    assert index_bytes(twice) == 2 * index_bytes(once)
