"""Features made while reading: plain pandas and xarray are the other way to the same arrays."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hpc_sweep.errors import SpecError
from hpc_sweep.source import Source, open_source
from hpc_sweep.source.reading import PlainReading
from hpc_sweep.spec import DataSpec

HOURS = 96


@pytest.fixture
def data() -> xr.Dataset:
    rng = np.random.default_rng(0)
    time = pd.date_range("2020-02-27", periods=HOURS, freq="h")
    values = rng.normal(size=(HOURS, 4, 3))
    values[rng.random(values.shape) < 0.05] = np.nan
    return xr.Dataset(
        {
            "t2m": (("time", "y", "x"), values),
            "wet": (("y", "x", "time"), rng.integers(0, 3, (4, 3, HOURS))),
            "sky": (("time", "y", "x"), rng.choice(["clear", "cloudy"], (HOURS, 4, 3))),
            "zone": (("y", "x"), rng.integers(0, 2, (4, 3))),
        },
        coords={
            "time": time,
            "y": [1.0, 2, 3, 4],
            "x": [5.0, 6, 7],
            "height": (("y", "x"), values[0]),
        },
    )


@pytest.fixture
def store(data: xr.Dataset, tmp_path: Path) -> str:
    return write(data, tmp_path)


def write(data: xr.Dataset, folder: Path) -> str:
    path = str(folder / f"{len(list(folder.iterdir()))}.zarr")
    chunks = {"t2m": {"chunks": (HOURS, 2, 3)}, "sky": {"chunks": (10, 2, 3)}}
    data.to_zarr(path, zarr_format=2, encoding={k: v for k, v in chunks.items() if k in data})
    return path


def opened(store: str, features: list[str], target: str | None = None, **keys: Any) -> Source:
    spec = {"store": store, "features": features, "target": target, "partition_by": ["y", "x"]}
    return open_source(DataSpec(**spec | keys))


def fault(store: str, *features: str, **keys: Any) -> str:
    with pytest.raises(SpecError) as caught:
        opened(store, ["t2m", *features], **keys)
    (found,) = caught.value.faults
    assert found.path == "data.features.1"
    return found.message


def read(source: Source, *index: int) -> Any:
    (samples,) = source.read(np.array([index]))
    return samples


def frame(data: xr.Dataset, **at: int) -> pd.DataFrame:
    """Return a pixel with what pandas makes of its time."""
    table = data[["t2m", "wet", "sky"]].isel(at).to_dataframe().reset_index()
    return table.assign(hour=table.time.dt.hour, day=table.time.dt.day_of_year)


def test_what_pandas_makes_of_a_pixel(data: xr.Dataset, store: str) -> None:
    names = ["t2m", "t2m@-24h", "t2m@-1", "time.hour", "time.dayofyear", "wet@-2", "time.hour@+1h"]
    source = opened(store, names, "t2m@+1h")
    for y, x in ((0, 0), (3, 2)):
        table = frame(data, y=y, x=x)
        hour = table.hour.shift(-1)
        columns = [table.t2m, table.t2m.shift(24), table.t2m.shift(1), table.hour, table.day]
        made = pd.concat([*columns, table.wet.shift(2), hour, table.t2m.shift(-1)], axis=1).dropna()
        samples = read(source, y, x)
        np.testing.assert_array_equal(samples.X, made.to_numpy()[:, :-1])
        np.testing.assert_array_equal(samples.y, made.to_numpy()[:, -1])


def test_gaps_stay_where_nothing_is_dropped(data: xr.Dataset, store: str) -> None:
    samples = read(opened(store, ["t2m@-24h"], "wet@-1", dropna=False), 1, 1)
    table = frame(data, y=1, x=1)
    np.testing.assert_array_equal(samples.X[:, 0], table.t2m.shift(24))
    np.testing.assert_array_equal(samples.y, table.wet.shift(1))


def test_texts_can_be_later_ones(data: xr.Dataset, store: str) -> None:
    samples = read(opened(store, ["wet"], "sky@+1h"), 1, 1)
    assert samples.y.tolist() == frame(data, y=1, x=1).sky.tolist()[1:]


def test_partners_may_be_in_other_partitions(data: xr.Dataset, store: str) -> None:
    source = opened(store, ["t2m", "t2m@-24h"], "t2m@-3h", partition_by=["y", "x", "time.date"])
    assert source.dims == ("date", "y", "x")
    found = read(source, 3, 1, 2)
    table = frame(data, y=1, x=2)
    made = pd.concat([table.t2m, table.t2m.shift(24), table.t2m.shift(3)], axis=1)
    made = made[table.time.dt.date == pd.Timestamp("2020-03-01").date()].dropna().to_numpy()
    assert len(made)
    np.testing.assert_array_equal(found.X, made[:, :2])
    np.testing.assert_array_equal(found.y, made[:, 2])


def test_coordinates_are_features_of_zones(data: xr.Dataset, store: str) -> None:
    source = opened(store, ["y", "x", "height", "time.hour"], "t2m", partition_by=["zone"])
    table = data[["t2m", "zone"]].to_dataframe().reset_index()
    table = table[table.zone == 1].dropna()
    columns = [table.y, table.x, table.height, table.time.dt.hour]
    expected = pd.concat([*columns, table.t2m], axis=1).dropna().to_numpy()
    samples = read(source, 1)
    found = np.column_stack([samples.X, samples.y])
    order = [np.lexsort(each.T) for each in (found, expected)]
    np.testing.assert_array_equal(found[order[0]], expected[order[1]])


@pytest.mark.parametrize("features", [["t2m", "t2m@-24h", "t2m@-1"], ["t2m@-24h", "t2m@-48h"]])
def test_nothing_is_read_twice(
    store: str, features: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(store, [*features, "time.hour"], "t2m@+1h")
    loads: collections.Counter[str] = collections.Counter()
    plain = PlainReading.read

    def counted(self: PlainReading, names: list[str], box: Any) -> Any:
        loads.update(names)
        return plain(self, names, box)

    monkeypatch.setattr(PlainReading, "read", counted)
    assert len(list(source.read(np.array([[0, 0], [1, 2]])))) == 2
    assert loads == {"t2m": 1, "time": 1}
    assert source.source_bytes == (HOURS * 4 * 3 + HOURS) * 8


def test_only_what_is_needed_is_read(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(store, ["wet"], "sky@-72h", partition_by=["time.date"], sample_dims=None)
    boxes = []
    plain = PlainReading.read
    monkeypatch.setattr(
        PlainReading, "read", lambda *given: boxes.append(given[2]) or plain(*given)
    )
    read(source, 3)
    assert [box["time"] for box in boxes] == [slice(72, 96), slice(0, 24)]


def test_made_variables_are_read_as_others(data: xr.Dataset, store: str) -> None:
    made = opened(store, ["t2m@-2"], "t2m").dataset["t2m@-2"]
    expected = data["t2m"].shift(time=2)
    for at in (
        {"time": 5},
        {"time": slice(9, 1, -3), "y": 1},
        {"x": [2, 0]},
        {"time": slice(0, 0)},
    ):
        np.testing.assert_array_equal(made.isel(at), expected.isel(at))


# dates


def test_dates_that_are_irregular_match_by_value(data: xr.Dataset, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(HOURS)[:70]
    store = write(data.isel(time=order), tmp_path)
    samples = read(opened(store, ["t2m", "t2m@-3h"], dropna=False), 1, 1)
    series = data["t2m"].isel(y=1, x=1, time=order).to_series()
    before = series.reindex(series.index - pd.Timedelta("3h"))
    np.testing.assert_array_equal(samples.X, np.column_stack([series, before.to_numpy()]))
    assert "not sorted" in fault(store, "t2m@-1")
    samples = read(opened(store, ["t2m@-3h"], dropna=False), 1, 1)
    np.testing.assert_array_equal(samples.X[:, 0], before)


def test_dates_of_decimal_numbers_match(data: xr.Dataset, tmp_path: Path) -> None:
    off = data["time"].values.astype("datetime64[ns]")
    off[::2] += np.timedelta64(40, "ns")
    source = opened(write(data.assign_coords(time=off), tmp_path), ["wet@-3h"], "wet")
    assert len(read(source, 0, 0)) == HOURS - 3


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_calendars(data: xr.Dataset, tmp_path: Path, calendar: str) -> None:
    dates = xr.date_range("2001-02-27", periods=HOURS, freq="h", calendar=calendar, use_cftime=True)
    other = data.assign_coords(time=dates)
    source = opened(write(other, tmp_path), ["time.dayofyear", "t2m", "t2m@-24h"], dropna=False)
    samples = read(source, 1, 1)
    np.testing.assert_array_equal(samples.X[:, 0], other["time.dayofyear"])
    np.testing.assert_array_equal(samples.X[24:, 2], samples.X[:-24, 1])
    assert np.isnan(samples.X[:24, 2]).all()
    shifted = other.assign_coords(time=dates.shift(1, "D"))
    assert opened(write(shifted, tmp_path), ["t2m"]).identity() != source.identity()


def test_rows_without_a_coordinate_stay_within_their_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame(
        {
            "station": rng.choice(["b", "a", "c"], 60),
            "date": pd.date_range("2020-01-01", periods=60, freq="D")[rng.permutation(60)],
            "t": rng.normal(size=60),
        }
    ).sort_values("date")
    path = str(tmp_path / "rows.zarr")
    columns = {name: ("row", column.to_numpy()) for name, column in table.items()}
    columns["station"] = ("row", table.station.to_numpy(dtype=str))
    xr.Dataset(columns).to_zarr(path, zarr_format=2)
    source = opened(path, ["t", "t@-1", "t@-2D"], partition_by=["station"], dropna=False)
    for index, (_, rows) in enumerate(table.groupby("station")):
        series = rows.set_index("date").t
        before = series.reindex(series.index - pd.Timedelta("2D")).to_numpy()
        expected = np.column_stack([rows.t, rows.t.shift(1), before])
        np.testing.assert_array_equal(read(source, index).X, expected)


# what is refused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t2n@-24h", "did you mean 't2m'"),
        ("t2m@-24x", "no unit"),
        ("t2m@24h", "neither before nor after"),
        ("t2m@-2M", "no unit"),
        ("t2m@-400D", "no sample has another one -400D"),
        ("t2m@-90min", "no sample has another one -90min"),
        ("zone@-24h", "no dimension of 'zone'"),
        ("zone@-1", "no dimension of 'zone'"),
        ("time.huor", "did you mean 'hour'"),
        ("t2m.hour", "has no hour"),
        ("time", "estimators need numbers"),
        ("time.season", "estimators need numbers"),
        ("tme.hour", "did you mean"),
    ],
)
def test_refusals(store: str, name: str, words: str) -> None:
    assert words in fault(store, name)


def test_dates_that_are_there_twice_have_no_partner(data: xr.Dataset, tmp_path: Path) -> None:
    doubled = data.isel(time=[0, 1, 1, 2])
    assert "more than once" in fault(write(doubled, tmp_path), "t2m@-1h")
