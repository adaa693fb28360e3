"""Tables of results: numbers equal those made in the plainest way, in every format and store."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from builders import NEIGHBORS, RIDGE, all_chunks, cut, invent, make_store, whole
from click.testing import CliRunner, Result

from hpc_sweep.choices import DONE, EMPTY, FAILED, OUT_OF_MEMORY
from hpc_sweep.cli import main
from hpc_sweep.errors import StoreError
from hpc_sweep.results import open_results
from hpc_sweep.store import Store, fold, write_part

HOSTILE = ["50% & more_$#", "\x1b[31mred\x07", 'a "b", c', "größer\nzwei"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def make(folder: Path, chunks: int | None = None, **options: Any) -> Store:
    """Return a store of 3 × 4 partitions with failures of several kinds, some chunks pending."""
    folder.mkdir(exist_ok=True)
    coordinates = xr.Dataset(
        coords={"latitude": [52.0, 51.5, 51.0], "longitude": ("longitude", HOSTILE)}
    )
    models = [RIDGE, NEIGHBORS]
    store = make_store(folder, coordinates=coordinates, models=models, **options)
    truth = invent(store)
    status, message = truth.status.copy(), truth.message.copy()
    status[0, 1], message[0, 1, 0] = EMPTY, ""
    for place, split in (((0, 0, 1), 0), ((1, 2, 1), 2), ((2, 3, 1), 1)):
        status[place], message[place] = FAILED, f"split {split}: ValueError: no luck_{{here}}"
    status[2, 0, 4], message[2, 0, 4] = OUT_OF_MEMORY, "used more than 1 GB"
    for scores in truth.scores.values():
        scores[status != DONE] = np.nan
    truth = replace(truth, status=status, message=message)
    for chunk in all_chunks(store)[:chunks]:
        unit = whole(store, chunk)
        name = write_part(store.run.parts, store.header.id, unit, cut(store, truth, unit))
        fold(store, chunk, [name])
    return Store.open(store.path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make(tmp_path_factory.mktemp("tables"), scoring=["r2", "max_error"], refit="r2")


def opened(store: Store) -> xr.Dataset:
    return open_results(store.path)


# numbers


def test_models_are_compared_as_in_the_plainest_way(store: Store) -> None:
    results = opened(store).load()
    for metric in ("r2", "max_error"):
        table = results.sweep.models(metric=metric).set_index("model")
        mean = results[f"mean_test_{metric}"].values.reshape(12, 5)
        reached = np.stack(
            [
                np.nanmax(np.c_[mean[:, own], np.full(12, -9e9)], 1)
                for own in (slice(0, 3), slice(3, 5))
            ],
            1,
        )
        reached[reached == -9e9] = np.nan
        known = ~np.isnan(reached).all(axis=1)
        won = np.nanargmax(reached[known], axis=1)
        for code, name in enumerate(("ridge", "kneighborsregressor")):
            own = reached[:, code]
            row = table.loc[name]
            assert row["wins"] == (won == code).sum()
            assert row["partitions"] == (~np.isnan(own)).sum() == 11
            assert np.isclose(row["median"], np.nanmedian(own))
            assert np.isclose(row["std"], np.nanstd(own))
            assert np.isclose(row["q25"], np.nanquantile(own, 0.25))
            lead = (own - reached[:, 1 - code])[known][won == code]
            assert np.isclose(row["margin"], np.median(lead))
            assert row["mean_rank"] == 1 + (won != code).mean()
    assert results.sweep.models()["wins"].sum() == 11


def test_models_by_a_dimension_say_where_they_win(store: Store) -> None:
    results = opened(store)
    table = results.sweep.models(by="latitude")
    best = results["best_model"].load()
    for row in table.itertuples():
        here = best.sel(latitude=row.latitude).values
        assert row.wins == (here == row.model).sum()
    assert table["wins"].sum() == 11
    with pytest.raises(StoreError, match="did you mean 'latitude'"):
        results.sweep.models(by="latitud")


def test_candidates_are_compared_as_in_the_plainest_way(store: Store) -> None:
    results = opened(store).load()
    table = results.sweep.candidates(metric="max_error").set_index("candidate").sort_index()
    mean = results["mean_test_max_error"].values.reshape(12, 5)
    rank = results["rank_test_max_error"].values.reshape(12, 5).astype(float)
    rank[rank < 0] = np.nan
    assert np.allclose(table["mean"], np.nanmean(mean, axis=0))
    assert np.allclose(table["std"], np.nanstd(mean, axis=0))
    assert np.allclose(table["min"], np.nanmin(mean, axis=0))
    assert np.allclose(table["mean_rank"], np.nanmean(rank, axis=0))
    assert table["failed"].tolist() == [0, 3, 0, 0, 1]
    known = ~np.isnan(mean).all(axis=1)
    assert table["wins"].tolist() == np.bincount(np.nanargmax(mean[known], 1), minlength=5).tolist()
    assert np.allclose(table["fit_time"], np.nanmean(results["fit_time"].values, (0, 1, 3)))


def test_worst_partitions_come_first_and_those_without_a_score_not(store: Store) -> None:
    results = opened(store)
    table = results.sweep.worst(top=None)
    assert len(table) == 11
    assert table["score"].is_monotonic_increasing
    assert table["score"][0] == float(results["best_score"].min())
    other = results.sweep.worst(metric="max_error", top=3)
    index = results["best_index"].load()
    means = results["mean_test_max_error"].load()
    at_best = means.isel(candidate=index.clip(0)).where(index >= 0).values
    assert other["score"].tolist() == np.sort(at_best[~np.isnan(at_best)])[:3].tolist()


def test_failures_are_counted_by_reason_whatever_the_split(store: Store) -> None:
    table = opened(store).sweep.failures().set_index("reason")
    row = table.loc["ValueError: no luck_{here}"]
    assert (row["candidates"], row["partitions"], row["status"]) == (3, 3, "failed")
    assert row["examples"].startswith("latitude=52.0, longitude=50% & more_$#; ")
    assert table.loc["used more than 1 GB", "status"] == "out_of_memory"
    empty = table.loc["no sample has all features and the target"]
    assert (empty["candidates"], empty["partitions"], empty["status"]) == (5, 1, "empty")


def test_a_selection_of_partitions_has_its_own_tables(store: Store) -> None:
    results = opened(store)
    part = results.isel(latitude=[2, 0], longitude=slice(1, None))
    table = part.sweep.table()
    assert set(table["latitude"]) == {51.0, 52.0}
    for row in table.itertuples():
        there = results.sel(latitude=row.latitude, longitude=row.longitude)
        same = float(there["best_score"])
        assert row.score == same or (np.isnan(row.score) and np.isnan(same))
    one = results.isel(latitude=1, longitude=2).sweep
    assert one.table()["latitude"].tolist() == [51.5]
    assert one.models()["wins"].sum() == 1
    assert len(one.failures()) == 1
    assert (
        part.transpose("candidate", "split", "longitude", "latitude")
        .sweep.models()
        .equals(part.sweep.models())
    )
    with pytest.raises(StoreError, match="select partitions, not candidates"):
        results.isel(candidate=[1, 2]).sweep.models()
    with pytest.raises(StoreError, match="no dataset of hpc_sweep's results"):
        xr.Dataset().sweep.best()


def test_best_is_labelled_and_lazy(store: Store) -> None:
    import hpc_sweep.accessor  # noqa: F401, lets xarray know `.sweep`

    best = xr.open_zarr(store.path).sweep.best()
    assert best["best_score"].dims == ("latitude", "longitude")
    assert best["best_score"].chunks is not None
    assert {"best_model", "best_param_alpha", "partition_status"} <= set(best)


def test_dropped_candidates_are_in_no_ranking(tmp_path: Path) -> None:
    from builders import make_spec

    from hpc_sweep.store import Change, Ledger, change_store
    from hpc_sweep.strategies import draw

    store = make(tmp_path)
    fewer = [{**RIDGE, "param_grid": {"alpha": [0.1, 10]}}, NEIGHBORS]
    change = Change.between(store.strategy, draw(make_spec(tmp_path, fewer), store.strategy))
    assert change is not None
    changed = change_store(store, change)
    for chunk in Ledger.read(changed).chunks:
        fold(changed, chunk, [])
    results = opened(changed)
    table = results.sweep.candidates()
    assert table["candidate"].sort_values().tolist() == [0, 2, 3, 4]
    assert "ValueError: no luck_{here}" not in set(results.sweep.failures()["reason"])
    assert results.sweep.models().set_index("model").loc["ridge", "wins"] == int(
        (results["best_index"] < 3).sum() - (results["best_index"] < 0).sum()
    )


# formats


def test_formats_say_the_same(store: Store, tmp_path: Path) -> None:
    frame = opened(store).sweep.table()
    for name in ("best.csv", "best.parquet", "best.json"):
        result = invoke("results", store.path, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    read = pd.read_csv(tmp_path / "best.csv")
    assert read["score"].equals(frame["score"])
    assert read["longitude"].tolist() == frame["longitude"].tolist()
    parquet = pd.read_parquet(tmp_path / "best.parquet")
    assert parquet["score"].equals(frame["score"])
    assert parquet["param_alpha"].equals(frame["param_alpha"])
    rows = json.loads((tmp_path / "best.json").read_text())
    assert [row["longitude"] for row in rows] == frame["longitude"].tolist()
    assert rows[-1] == {
        "latitude": 52.0,
        "longitude": HOSTILE[1],
        "model": None,
        "params": {},
        "score": None,
        "n_samples": rows[-1]["n_samples"],
        "status": "empty",
    }
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize("what", ["best", "models", "candidates", "worst", "failures"])
def test_every_table_in_every_format(store: Store, what: str, tmp_path: Path) -> None:
    table = invoke("results", store.path, "--what", what)
    assert table.exit_code == 0, table.output
    assert "\x1b" not in table.output
    assert "\x07" not in table.output
    text = invoke("results", store.path, "--what", what, "--format", "csv").output
    lines = list(csv.DictReader(io.StringIO(text)))
    rows = json.loads(invoke("results", store.path, "--what", what, "--json").output)
    assert len(lines) == len(rows) > 0
    parquet = tmp_path / "it.parquet"
    assert invoke("results", store.path, "--what", what, "-o", parquet).exit_code == 0
    assert len(pd.read_parquet(parquet)) == len(rows)
    latex = invoke("results", store.path, "--what", what, "--format", "latex").output
    columns = re.search(r"begin\{tabular\}\{([lr]+)\}", latex)
    assert columns is not None
    body = latex[latex.index("midrule") : latex.index("bottomrule")].splitlines()[1:-1]
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
        assert not re.search(r"(?<!\\)[%#_]", line)


def test_half_finished_says_how_much(tmp_path: Path) -> None:
    store = make(tmp_path, chunks=1)
    shown = invoke("results", store.path).output
    assert "half finished: 6 partitions are pending" in shown
    result = invoke("results", store.path, "--format", "csv")
    assert "half finished: 6 of 12 partitions are pending" in result.stderr
    assert len(list(csv.reader(io.StringIO(result.stdout)))) == 13
    nothing = make(tmp_path / "none", chunks=0)
    for what in ("best", "models", "candidates", "worst", "failures"):
        for options in ((), ("--json",), ("--format", "latex"), ("--format", "csv")):
            result = invoke("results", nothing.path, "--what", what, *options)
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("columns", "is_framed"), [(120, True), (70, False)])
def test_narrow_terminals_see_whole_words(
    store: Store, monkeypatch: pytest.MonkeyPatch, columns: int, is_framed: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = invoke("results", store.path, "--what", "models").output.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("┏") == is_framed


def test_large_and_small_negative_scores_are_readable(tmp_path: Path) -> None:
    from hpc_sweep.cli.tables import _number

    assert _number("score", -123456.789) == "-1.235e+05"
    assert _number("score", -0.0000012) == "-1.2e-06"
    assert _number("score", -0.25) == "-0.2500"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "max_eror"], "no metric is called 'max_eror'; did you mean 'max_error'?"),
        (["--what", "models", "--by", "time"], "'time' is no dimension of partitions"),
        (["--by", "latitude"], "--by goes with --what models"),
        (["--format", "parquet"], "give -o FILE.parquet"),
        (["-o", "best.xlsx"], "its name says no format"),
        (["--json", "--format", "csv"], "exclude each other"),
    ],
)
def test_what_cannot_be_had_is_said(store: Store, options: list[str], words: str) -> None:
    result = invoke("results", store.path, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_the_accessor_is_known_by_one_import() -> None:
    code = "import xarray, hpc_sweep.accessor; xarray.Dataset().sweep"
    subprocess.run([sys.executable, "-c", code], check=True)
