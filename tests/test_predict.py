"""Predictions: each partition's best model over whole data sets, by label, chunk by chunk."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from conftest import make_data, small_spec
from yearly import in_process

from hpc_sweep import run
from hpc_sweep.cli import main
from hpc_sweep.errors import LeaseError, PlanError, SpecError, StoreError
from hpc_sweep.keeping import verify
from hpc_sweep.models import open_models
from hpc_sweep.models.labels import find_partition
from hpc_sweep.prediction import Asked, PredictionOutcome
from hpc_sweep.prediction import execute_prediction as execute
from hpc_sweep.prediction.boxes import Boxes
from hpc_sweep.prediction.cutting import Cutting, make_cutting
from hpc_sweep.prediction.learned import Learned
from hpc_sweep.prediction.prepared import prepare
from hpc_sweep.source import described, open_source
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Predictions, Store, hold, run_folder, signing

Spec = dict[str, Any]
DIMS = ("latitude", "longitude", "time")
LINEAR = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 10]}}
BAYES = {"estimator": "sklearn.naive_bayes.GaussianNB", "param_grid": {"var_smoothing": [1e-9]}}


def pixels(path: Path) -> xr.Dataset:
    """Open a data set, in memory."""
    return xr.open_zarr(path, chunks=None, consolidated=False).load()


def execute_prediction(
    store: Path,
    data: Path,
    out: Path,
    settings: Sequence[str] = (),
    *,
    say: Callable[[str], None] = print,
    **options: Any,
) -> PredictionOutcome:
    """Predict, or raise what is wrong."""
    return execute(Asked(str(store), str(data), str(out), tuple(settings), **options), say=say)


def swept(spec: Spec, folder: Path, **data: Any) -> Path:
    """Run a sweep in this process and return its store."""
    spec["data"] |= data
    spec["output"]["store"] = str(folder / "results.zarr")
    in_process(spec)
    return folder / "results.zarr"


@pytest.fixture(scope="module")
def by_pixel(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished sweep of 48 pixels, two of them empty, of data in metres."""
    folder = tmp_path_factory.mktemp("pixels")
    in_metres = pixels(data).drop_encoding()
    in_metres["wet"].attrs["units"] = "m"
    in_metres.to_zarr(folder / "metres.zarr", consolidated=False)
    spec = small_spec(folder / "metres.zarr", folder)
    spec["models"] = [LINEAR, {"estimator": "sklearn.tree.DecisionTreeRegressor"}]
    return swept(spec, folder)


def models_of(store: Path, trust: Sequence[str] = ()) -> Any:
    """Return a function from labels to best models, which are all fitted at once."""
    opened = Store.open(store)
    models = open_models(opened, trust=trust)
    grid = np.indices(opened.grid.shape).reshape(len(opened.grid.dims), opened.grid.size).T
    known = {
        tuple(place): model for place, model in zip(grid.tolist(), models.of(grid), strict=True)
    }

    def of(**labels: Any) -> Any:
        return known[tuple(find_partition(models.coordinates, labels).tolist())]

    return of


def features(samples: xr.Dataset, *names: str) -> Any:
    """Return X of samples along time."""
    return np.stack([samples[name].values.astype(float) for name in names], axis=1)


def expected(model: Any, X: Any) -> Any:
    """Return predictions of the rows that lack nothing, NaN of the others."""
    whole = np.isfinite(X).all(axis=1)
    found = np.full(len(X), np.nan)
    found[whole] = model.predict(X[whole])
    return found


def new_data(data: Path, path: Path) -> xr.Dataset:
    """Write other data: other order of dimensions and labels, some of them unknown, no target."""
    other = pixels(data).drop_vars(["slope", "both", "zone"]).transpose("time", ...)
    other = other.isel(latitude=slice(None, None, -1), longitude=[5, 0, 1, 2, 7])
    beyond = other.isel(longitude=[0]).assign_coords(longitude=[9.5])
    other = xr.concat([other, beyond], "longitude", data_vars="minimal")
    other["wet"] = other["wet"] * 1.5 - 0.25
    later = other["time"] + np.timedelta64(400, "D")
    other = other.assign_coords(time=later, latitude=other["latitude"].astype("float32"))
    other["height"] = (("latitude", "longitude"), np.ones((6, 6)))
    other = other.set_coords("height")
    other.to_zarr(
        consolidated=False,
        store=path,
        encoding={n: {"chunks": (25, 3, 4)} for n in ("wet", "green")},
    )
    return other


def test_other_data_equals_the_models_pixel_by_pixel(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    other = new_data(data, tmp_path / "other.zarr")
    told: list[str] = []
    outcome = execute_prediction(
        by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", here, say=told.append
    )
    found = outcome_of(outcome)
    assert found["slope"].dims == ("time", "latitude", "longitude")
    assert outcome.counts == {"done": 28, "empty": 2, "unknown": 6}
    words = "longitude: 1 of 6 are unknown, 9.5; the store has -1.0, -0.75, -0.5, … (5 more)"
    assert [text for text in told if "unknown" in text] == [
        "warning: 6 of 36 partitions of the data are not the store's, and get the fill value: "
        + words
    ]
    xr.testing.assert_equal(found.coords.to_dataset(), other.coords.to_dataset())
    of = models_of(by_pixel)
    for place in np.ndindex(6, 6):
        pixel = other.isel(dict(zip(DIMS, place, strict=False)))
        values = found["slope"].isel(dict(zip(DIMS, place, strict=False))).values
        if float(pixel["longitude"]) == 9.5:
            assert found["status"].values[place] == 6
            assert np.isnan(values).all()
            continue
        labels = {"latitude": float(pixel["latitude"]), "longitude": float(pixel["longitude"])}
        if np.isnan(values).all():
            assert found["status"].values[place] == 3
            continue
        model = of(**labels)
        wanted = expected(model, features(pixel, "wet", "green", "hour"))
        np.testing.assert_allclose(values, wanted, rtol=1e-13)


def outcome_of(outcome: PredictionOutcome) -> xr.Dataset:
    """Return predictions, in memory, that are all there."""
    assert outcome.progress is not None
    assert outcome.progress.cells_done == outcome.progress.cells
    return xr.open_zarr(outcome.path, chunks=None).load()


def test_the_same_command_goes_on(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """A box that lacks one of its files, or has an empty one, is predicted again, no other is."""
    out = tmp_path / "out.zarr"
    whole = outcome_of(execute_prediction(by_pixel, data, out, here))
    files = sorted(path for path in (out / "slope").iterdir() if path.name.startswith("c."))
    assert len(files) == 4
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    files[0].unlink()
    files[2].write_bytes(b"")
    again = execute_prediction(by_pixel, data, out, here)
    assert again.progress is not None
    assert again.progress.cells_this_run == 2
    assert outcome_of(again).identical(whole)
    for number, path in enumerate(files):
        content, time = before[path]
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == time) == (number % 2 == 1)
    assert execute_prediction(by_pixel, data, out, here).progress is None
    assert again.counts == {"done": 46, "empty": 2}


def test_made_features_masks_and_the_hold_out(tmp_path: Path, here: list[str]) -> None:
    """Lags look over the borders of chunks; only samples of the part asked for are predicted."""
    path = make_data(tmp_path / "data.zarr", samples=48)
    with_mask = pixels(path).isel(latitude=[0, 1], longitude=[0, 1, 2]).drop_encoding()
    with_mask["there"] = (DIMS, np.random.default_rng(0).random((2, 3, 48)) < 0.8)
    path = tmp_path / "masked.zarr"
    with_mask.to_zarr(
        consolidated=False,
        store=path,
        encoding={n: {"chunks": (2, 2, 10)} for n in ("wet", "green")},
    )
    spec = small_spec(path, tmp_path)
    spec["models"] = [LINEAR]
    names = ["wet", "wet@-1h", "time.hour"]
    cut = "2019-03-02T12:00"
    store = swept(
        spec, tmp_path, features=names, where="there", holdout={"time": cut}, sample_weight=None
    )
    of = models_of(store)
    hours = with_mask["time"].dt.hour.values.astype(float)
    for split in ("test", "train", "all"):
        out = tmp_path / f"{split}.zarr"
        found = outcome_of(execute_prediction(store, path, out, here, split=split))  # type: ignore[arg-type]
        late = with_mask["time"].values >= np.datetime64(cut)
        chosen = {"test": late, "train": ~late, "all": np.ones(48, dtype=bool)}[split]
        for place in np.ndindex(2, 3):
            pixel = with_mask.isel(latitude=place[0], longitude=place[1])
            wet = pixel["wet"].values.astype(float)
            X = np.stack([wet, np.append(np.nan, wet[:-1]), hours], axis=1)
            X[~(chosen & pixel["there"].values)] = np.nan
            values = found["slope"].values[place]
            if place == (0, 0):  # its target is missing
                assert np.isnan(values).all()
                continue
            labels = {dim: float(pixel[dim]) for dim in DIMS[:2]}
            wanted = expected(of(**labels), X)
            np.testing.assert_allclose(values, wanted, rtol=1e-13)
            assert np.isfinite(values).any()


@pytest.mark.parametrize("outputs", ["joint", "separate"])
@pytest.mark.parametrize("cut", ["zone", "tiles"])
def test_labels_and_several_outputs(
    cut: str, outputs: str, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """Each pixel is predicted by the model of its label, each output has an array."""
    spec = small_spec(data, tmp_path)
    spec["models"] = [LINEAR]
    by = ["zone"] if cut == "zone" else [{"latitude": 4, "longitude": 8}]
    store = swept(
        spec, tmp_path, partition_by=by, target=["slope", "both"], outputs=outputs, dropna=True
    )
    part = pixels(data).isel(latitude=slice(2, None), longitude=[3, 4, 5], time=slice(30))
    part.to_zarr(consolidated=False, store=tmp_path / "part.zarr")
    found = outcome_of(execute_prediction(store, tmp_path / "part.zarr", tmp_path / "out", here))
    results, of = xr.open_zarr(store, chunks=None), models_of(store)
    for place in np.ndindex(4, 3):
        pixel = part.isel(latitude=place[0], longitude=place[1])
        X = features(pixel, "wet", "green", "hour")
        if cut == "zone":
            labels: dict[str, Any] = {"zone": int(pixel["zone"])}
        else:
            tile = results.isel(latitude=(place[0] + 2) // 4, longitude=0)
            labels = {dim: float(tile[dim]) for dim in DIMS[:2]}
        for number, name in enumerate(["slope", "both"]):
            more = {"target": name} if outputs == "separate" else {}
            model = of(**labels, **more)
            whole = np.isfinite(X).all(axis=1)
            wanted = np.full(30, np.nan)
            predicted = model.predict(X[whole])
            wanted[whole] = predicted if outputs == "separate" else predicted[:, number]
            np.testing.assert_allclose(found[name].values[place], wanted, rtol=1e-12)
    dim = "zone_label" if cut == "zone" else "latitude_label"
    assert dim in found["status"].dims


def test_rows_of_a_table_stay_in_their_order(tmp_path: Path, here: list[str]) -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"a": rng.normal(size=90), "b": rng.normal(size=90)})
    table["station"] = rng.choice(["Tay", "Esk", "Dee"], 90)
    table["y"] = table["a"] * (1 + (table["station"] == "Esk")) + rng.normal(size=90) / 9
    table.to_parquet(tmp_path / "old.parquet", row_group_size=40)
    spec = small_spec(tmp_path / "old.parquet", tmp_path)
    spec["models"] = [LINEAR]
    store = swept(spec, tmp_path, features=["a", "b"], target="y", partition_by=["station"])
    other = table.drop(columns="y").sample(frac=0.5, random_state=1).reset_index(drop=True)
    other.loc[3, "station"] = "Don"
    other.loc[7, "b"] = np.nan
    other.to_parquet(tmp_path / "new.parquet", row_group_size=20)
    outcome = execute_prediction(store, tmp_path / "new.parquet", tmp_path / "out.zarr", here)
    found = outcome_of(outcome)["y"]
    assert found.dims == ("row",)
    assert outcome.counts == {"done": 3, "unknown": 1}
    of = models_of(store)
    models = {name: of(station=name) for name in ("Tay", "Esk", "Dee")}
    for row, value in enumerate(found.values):
        if row in (3, 7):
            assert np.isnan(value)
        else:
            X = other.loc[[row], ["a", "b"]].to_numpy()
            assert value == pytest.approx(models[other.loc[row, "station"]].predict(X)[0])


def classes_data(path: Path) -> xr.Dataset:
    """Write data with classes as texts and numbers; the first pixel has two of three."""
    some = pixels(make_data(path.with_name("plain.zarr"), samples=90)).drop_encoding()
    some = some.isel(latitude=[1, 2], longitude=[1, 2])
    levels = np.digitize(some["wet"].values + some["green"].values, [-0.7, 0.7])
    levels[0, 0] = np.minimum(levels[0, 0], 1)
    some["level"] = (DIMS, levels)
    some["word"] = (DIMS, np.array(["low", "mid", "top"], dtype=object)[levels])
    some = some.drop_vars(["slope", "both"])
    some.to_zarr(consolidated=False, store=path, encoding={"wet": {"chunks": (1, 2, 40)}})
    return some


@pytest.mark.parametrize("target", ["level", "word"])
@pytest.mark.parametrize("by", [["latitude", "longitude"], []])
def test_classes_and_their_probabilities(
    by: list[str], target: str, tmp_path: Path, here: list[str]
) -> None:
    """Classes that a pixel's model has not learned are NaN; one model of all is dask-ml's work."""
    some = classes_data(tmp_path / "classes.zarr")
    spec = small_spec(tmp_path / "classes.zarr", tmp_path)
    spec["models"], spec["search"]["scoring"] = [BAYES], "accuracy"
    store = swept(spec, tmp_path, features=["wet", "green"], target=target, partition_by=by)
    plain = outcome_of(execute_prediction(store, tmp_path / "classes.zarr", tmp_path / "a", here))
    odds = outcome_of(
        execute_prediction(store, tmp_path / "classes.zarr", tmp_path / "b", here, proba=True)
    )
    of = models_of(store)
    known = ["low", "mid", "top"] if target == "word" else [0, 1, 2]
    assert odds["class"].values.tolist() == known
    for place in np.ndindex(2, 2):
        pixel = some.isel(latitude=place[0], longitude=place[1])
        labels = {dim: float(pixel[dim]) for dim in by}
        model = of(**labels)
        X = features(pixel, "wet", "green")
        whole = np.isfinite(X).all(axis=1)
        found = plain[target].values[place]
        assert found[whole].tolist() == model.predict(X[whole]).tolist()
        assert pd.isnull(found[~whole]).all() or (found[~whole] == "").all()
        likely = odds[f"{target}_probability"].values[place]
        columns = [known.index(each) for each in model.classes_.tolist()]
        np.testing.assert_allclose(likely[whole][:, columns], model.predict_proba(X[whole]))
        others = [column for column in range(3) if column not in columns]
        assert len(others) == (1 if by and place == (0, 0) else 0)
        assert np.isnan(likely[:, others]).all()
        assert np.isnan(likely[~whole]).all()


def test_boxes_cover_everything_once(by_pixel: Path, data: Path) -> None:
    """They are whole chunks of the data; many files make larger boxes, and memory is a limit."""
    spec = load_spec(small_spec(data, by_pixel)).data.model_copy(update={"target": None})
    source = open_source(spec)
    limits: dict[str, Any] = {"workers": 1, "worker_memory_bytes": None}
    cutting = make_cutting(source, 1, 1, **limits, max_files=5000)
    assert (cutting.steps, len(cutting), cutting.n_alike) == ((3, 4, 60), 4, 1)
    seen = np.zeros(cutting.lengths, dtype=int)
    for number in range(len(cutting)):
        seen[tuple(cutting.window(number).values())] += 1
    assert (seen == 1).all()
    assert len(make_cutting(source, 2, 2, **limits, max_files=4)) == 2
    limits["worker_memory_bytes"] = 364_040_000  # of one chunk, not of two
    with pytest.raises(PlanError, match=r"would have 8 files, but output\.max_files is 5"):
        make_cutting(source, 2, 2, **limits, max_files=5)


def test_boxes_with_the_same_partitions_follow_each_other() -> None:
    """What is handed out has the same partitions, as far as they are cut by place."""
    cutting = Cutting(("time", "latitude", "level"), (10, 6, 2), (3, 2, 1), (False, True, False))
    assert cutting.n_alike == 4 * 2
    rows = [cutting.index(number)[1] for number in range(len(cutting))]
    assert rows == sorted(rows)
    boxes = Boxes(cutting, {*range(len(cutting))} - {9})
    units = list(boxes.units(workers=1))
    covered = [number for unit in units for number in range(unit.start, unit.stop)]
    assert covered == [number for number in range(24) if number != 9]
    assert all(len({rows[n] for n in range(unit.start, unit.stop)}) == 1 for unit in units)


# what is refused, before anything is written


def as_text(data: xr.Dataset, name: str) -> xr.Dataset:
    return data.assign({name: data[name].astype(str).astype(object)})


def in_millimetres(data: xr.Dataset) -> xr.Dataset:
    return data.assign(wet=data["wet"].assign_attrs(units="mm"))


OTHER_UNITS = "variable 'wet': is in mm here, and models have learned it in m; convert it, or use"


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (
            lambda d: in_millimetres(as_text(d, "green").drop_vars("hour")),
            {},
            SpecError,
            r"^the data \S+/other.zarr has 3 faults:\n"
            r"  feature 'green': 'green' is of dtype \S+; estimators need numbers: .*float32 along "
            "latitude, longitude, time: give the data the same.\n"
            "  feature 'hour': the data set has no variable 'hour'; .*float64 along time: give.*\n"
            f"  {OTHER_UNITS}",
        ),
        (
            lambda d: d.assign_coords(latitude=d["latitude"] - 30),
            {},
            StoreError,
            r"none of the 48 partitions.*latitude: 6 of 6 are unknown, 30\.0, .*store has 60\.0",
        ),
        (
            lambda d: d.rename(latitude="lat", wet="damp").drop_vars("green"),
            {},
            SpecError,
            r"3 faults:\n  feature 'wet': .*, units m: give the data the same.\n"
            r"  feature 'green': .*\n"
            r"  partitions by 'latitude': 'latitude' is no dimension.*run along latitude, long",
        ),
        (
            lambda d: d.isel(time=0, drop=True),
            {},
            SpecError,
            "dimensions: no dimension is left for samples.*run along latitude, longitude, time",
        ),
        (lambda d: d, {"split": "test"}, SpecError, "holds nothing out"),
        (lambda d: d, {"proba": True}, StoreError, "has no predict_proba; leave --proba out"),
        (lambda d: d, {"settings": ["search.cv=4"]}, SpecError, "search.cv: is the sweep's"),
        (
            lambda d: d,
            {"settings": ["cluster.memory=350MB"]},
            PlanError,
            "needs .* of memory, but a worker has 350 MB",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    change: Any,
    options: Any,
    error: type[Exception],
    words: str,
    by_pixel: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    other = change(pixels(data))
    other.drop_encoding().to_zarr(consolidated=False, store=tmp_path / "other.zarr")
    with pytest.raises(error, match=words):
        execute_prediction(by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"other.zarr"}


def test_results_are_no_data(by_pixel: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"is the sweep's store of results; name data such as /"):
        execute_prediction(by_pixel, by_pixel, tmp_path / "out.zarr")


def test_units_are_compared_where_the_sweeps_data_is_gone(
    by_pixel: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has recorded them; one that has not still has its data, or it is said."""
    in_millimetres(pixels(data)).drop_encoding().to_zarr(tmp_path / "mm", consolidated=False)
    old = tmp_path / "old.zarr"
    shutil.copytree(by_pixel, old)
    Store.open(old).record_features({})
    with pytest.raises(SpecError, match=OTHER_UNITS):
        prepare(Asked(str(old), str(tmp_path / "mm"), str(tmp_path / "out")))
    monkeypatch.setattr("hpc_sweep.prediction.prepared.sweep_source", lambda spec: None)
    with pytest.raises(SpecError, match=OTHER_UNITS):
        prepare(Asked(str(by_pixel), str(tmp_path / "mm"), str(tmp_path / "out")))
    told: list[str] = []
    prepare(Asked(str(old), str(tmp_path / "mm"), str(tmp_path / "out")), told.append)
    assert told == [
        "warning: the sweep's data cannot be opened, so units of features are not compared"
    ]
    told.clear()
    asked = Asked(str(by_pixel), str(tmp_path / "mm"), str(tmp_path / "out"), ignore_units=True)
    prepare(asked, told.append)
    assert told == []


def test_another_calendar_is_told_where_features_are_made_of_dates() -> None:
    """Days of a year of 360 are others; one calendar has several names."""
    times = {
        calendar: xr.Dataset(
            coords={"time": xr.date_range("2000", periods=3, calendar=calendar, use_cftime=True)}
        )
        for calendar in ("standard", "proleptic_gregorian", "360_day")
    }
    learned = Learned(described(times["standard"], ["time"]))
    assert list(learned.calendars(times["proleptic_gregorian"])) == []
    (told,) = learned.calendars(times["360_day"])
    assert told.startswith("warning: 'time' has the calendar 360_day, and models have learned from")


def test_places_that_are_taken(by_pixel: Path, data: Path, tmp_path: Path, here: list[str]) -> None:
    """Nothing else is overwritten, nor the predictions of another job; an empty folder is good."""
    for place in (by_pixel, by_pixel / "inside", data):
        with pytest.raises(StoreError, match="name another place"):
            execute_prediction(by_pixel, data, place, here)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no prediction of hpc_sweep"):
        execute_prediction(by_pixel, data, tmp_path / "notes", here)
    out = tmp_path / "out.zarr"
    out.mkdir()
    execute_prediction(by_pixel, data, out, here)
    part = pixels(data).isel(time=slice(20))
    part.to_zarr(consolidated=False, store=tmp_path / "part.zarr")
    with pytest.raises(StoreError, match="are of other data"):
        execute_prediction(by_pixel, tmp_path / "part.zarr", out, here)
    attributes = json.loads((out / "zarr.json").read_text())
    header = json.loads(attributes["attributes"]["hpc_sweep_prediction"])
    header["job"]["models"] = "others"
    del header["crc32c"]
    attributes["attributes"]["hpc_sweep_prediction"] = json.dumps(header)
    (out / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match="of other best models: the sweep's store has changed"):
        execute_prediction(by_pixel, data, out, here)


def test_an_unfinished_store(data: Path, tmp_path: Path, here: list[str]) -> None:
    """It says how much there is; --partial predicts with that."""
    spec = small_spec(data, tmp_path / "results.zarr")
    spec["models"] = [LINEAR]
    from yearly import InProcess

    sweep = InProcess(spec)
    sweep.width = sweep.store.strategy.n_columns
    chunk = (0, 0)
    from hpc_sweep.store import Ledger, fold

    ledger = Ledger(sweep.store)
    for unit in sweep.units(chunk):
        ledger.add(sweep.leave(unit))
    fold(sweep.store, chunk, ledger.parts[chunk])
    store = tmp_path / "results.zarr"
    with pytest.raises(StoreError, match=r"12 of 48 partitions are.*--partial"):
        execute_prediction(store, data, tmp_path / "out.zarr", here)
    outcome = execute_prediction(store, data, tmp_path / "out.zarr", here, partial=True)
    assert outcome.counts == {"pending": 36, "done": 11, "empty": 1}
    assert np.isnan(outcome_of(outcome)["slope"].values[3:]).all()


def test_stored_models(
    data: Path,
    tmp_path: Path,
    here: list[str],
    faulty_on_workers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are loaded, if they are trusted and whole; nothing is written before that is known."""
    spec = small_spec(data, tmp_path / "results.zarr")
    spec["models"] = [{"estimator": "faulty.SlowToPredict"}]
    spec["output"] |= {"models": "skops", "trust": ["faulty.SlowToPredict"]}
    run(spec, here)
    store, out = tmp_path / "results.zarr", tmp_path / "out.zarr"
    with monkeypatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path / "of another user"))
        with pytest.raises(StoreError, match=r"faulty\.SlowToPredict.*you have no key"):
            execute_prediction(store, data, out, here)
        assert not out.exists()
    read_key, trust = signing.read_key, ("faulty.SlowToPredict",)

    def read_by_the_driver() -> bytes:
        assert threading.current_thread() is threading.main_thread()
        return read_key()

    monkeypatch.setattr(signing, "read_key", read_by_the_driver)
    found = outcome_of(execute_prediction(store, data, out, here))
    of, all_data = models_of(store, trust), pixels(data)
    pixel = all_data.isel(latitude=4, longitude=6)
    model = of(latitude=float(pixel["latitude"]), longitude=float(pixel["longitude"]))
    wanted = expected(model, features(pixel, "wet", "green", "hour"))
    np.testing.assert_array_equal(found["slope"].values[4, 6], wanted)
    *_, last = sorted(tmp_path.glob("results.zarr*/*.skops"))
    content = bytearray(last.read_bytes())
    content[len(content) // 3] ^= 255
    last.write_bytes(content)
    other = tmp_path / "other.zarr"
    with pytest.raises(StoreError, match=r"1\.1\.skops has a fault: the model of .* is damaged"):
        execute_prediction(store, data, other, here)
    near = all_data.isel(latitude=slice(3)).drop_encoding()
    near.to_zarr(tmp_path / "near.zarr", consolidated=False)
    execute_prediction(store, tmp_path / "near.zarr", tmp_path / "unharmed.zarr", here)
    last.unlink()
    with pytest.raises(StoreError, match=r"is not finished: 36 of 48 partitions are.*--partial"):
        execute_prediction(store, data, other, here)
    with pytest.raises(StoreError, match=r"1\.1\.skops is missing, which has models; delete"):
        execute_prediction(store, data, other, here, partial=True)
    assert not [*tmp_path.glob("other.zarr*")]


def test_a_second_driver_is_refused(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    out = tmp_path / "out.zarr"
    with hold(run_folder(out).make().lease), pytest.raises(LeaseError, match="works on"):
        execute_prediction(by_pixel, data, out, here)
    assert not out.exists()


def test_a_damaged_chunk_of_the_data_ends_the_run(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    other = pixels(data).drop_encoding()
    other.to_zarr(
        consolidated=False, store=tmp_path / "other.zarr", encoding={"wet": {"chunks": (3, 4, 60)}}
    )
    (chunk,) = (tmp_path / "other.zarr" / "wet").glob("c/1/1/0")
    chunk.write_bytes(b"\x00" * 40)
    with pytest.raises(StoreError, match=r"chunk 1\.1\.0 of 'wet' is damaged.*mend the data"):
        execute_prediction(by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", here)


def infinite(data: Path, path: Path) -> None:
    """Write data in which some pixels have features that no linear model takes."""
    other = pixels(data).drop_encoding()
    other["wet"][:] = other["wet"].where(other["latitude"] < 60, np.inf)
    other.to_zarr(consolidated=False, store=path)


def test_a_model_that_cannot_predict_fails_alone(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """Without dropna some models take gaps and others do not: what these can predict is there."""
    infinite(data, tmp_path / "other.zarr")
    outcome = execute_prediction(by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", here)
    found = outcome_of(outcome)
    assert outcome.counts == {"done": 39, "empty": 2, "not_predicted": 7}
    assert [*outcome.reasons.values()] == [7]
    assert "infinity" in next(iter(outcome.reasons))
    assert (found["status"].values[0, 1:] == 7).all()
    before = outcome.path / "status" / "c.0.0"
    content = before.read_bytes()
    store = zarr.open_group(str(outcome.path), mode="r+")
    store["status"][...] = 1  # as if it was killed before it wrote that down
    again = execute_prediction(by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", here)
    assert again.progress is None
    assert again.counts == outcome.counts
    assert before.read_bytes() == content
    assert np.isfinite(found["slope"].values[1]).any()


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
@pytest.mark.parametrize("array", ["slope", "status", "time"])
def test_a_damaged_prediction_is_told_and_mended(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str], array: str, harm: str
) -> None:
    """What was predicted comes back by the same command; coordinates were made with the store."""
    new_data(data, tmp_path / "new.zarr")
    out = execute_prediction(by_pixel, tmp_path / "new.zarr", tmp_path / "out.zarr", here).path
    assert verify(out).findings == []
    file = next(file for file in sorted((out / array).iterdir()) if file.name.startswith("c."))
    good = file.read_bytes()
    harms = {"flip": bytes([good[0] ^ 1]) + good[1:], "cut": good[:-1], "empty": b""}
    file.write_bytes(harms[harm])
    (finding,) = verify(out).findings
    assert finding.file == str(file)
    if array == "time":
        assert "bring it back from a backup" in finding.remedy
        return
    assert f"delete it, then run `hpc-sweep predict {by_pixel}" in finding.remedy
    assert hpc_sweep_says("status", out) == (2 if array == "status" else 0)
    if array == "slope":
        file.unlink()
    execute_prediction(by_pixel, tmp_path / "new.zarr", out, here)
    assert verify(out).findings == []
    assert file.read_bytes() == good


def hpc_sweep_says(*arguments: object) -> int:
    """Return the exit code of a command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments]).exit_code


def test_what_lies_about_in_a_prediction(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """And a damaged note of what could not be predicted, with a remedy that works."""
    infinite(data, tmp_path / "other.zarr")
    out = execute_prediction(by_pixel, tmp_path / "other.zarr", tmp_path / "out.zarr", here)
    (out.path / "thesis.tex").write_text("precious")
    (out.path / "slope" / "c.9.9.9.1.partial").write_text("x")
    (note, *_) = sorted(run_folder(out.path).parts.glob("*-failed-*.json"))
    note.write_text(note.read_text()[:-1])
    (note.parent / "0123456789abcdef-failed-0.0.json").write_text("{}")
    found = {Path(each.file).name: each.remedy for each in verify(out.path).findings}
    other = "0123456789abcdef-failed-0.0.json"
    assert set(found) == {"thesis.tex", "c.9.9.9.1.partial", note.name, other}
    assert found["thesis.tex"] == "move it elsewhere"
    with pytest.raises(StoreError, match=r"is damaged; hpc-sweep verify"):
        execute_prediction(by_pixel, tmp_path / "other.zarr", out.path, here)
    names = found[note.name].removeprefix("delete ").partition(", then ")[0].split()
    for name in names:
        Path(name).unlink()
    (out.path / "thesis.tex").unlink()
    again = execute_prediction(by_pixel, tmp_path / "other.zarr", out.path, here)
    assert again.counts == out.counts
    assert verify(out.path).findings == []


def test_what_failed_and_is_predicted_well_later_is_noted_no_more(
    by_pixel: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    new_data(data, tmp_path / "new.zarr")
    out = execute_prediction(by_pixel, tmp_path / "new.zarr", tmp_path / "out.zarr", here)
    destination, run = Predictions.find(out.path), run_folder(out.path)
    assert destination is not None
    index = sorted(destination.boxes_there())[0]
    note = destination.note(run.parts, index)
    note.write_text('{"0.1": "a machine without memory"}')
    assert destination.failures(run.parts) == {(0, 1): "a machine without memory"}
    for file in out.path.glob(f"slope/c.{'.'.join(map(str, index))}"):
        file.unlink()
    again = execute_prediction(by_pixel, tmp_path / "new.zarr", out.path, here)
    assert not note.exists()
    assert again.counts == out.counts
