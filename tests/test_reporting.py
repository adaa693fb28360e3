"""What a report says, against the store that it is of, and where it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from builders import NEIGHBORS, RIDGE, Truth, all_chunks, invent, leave, make_store, whole
from click.testing import CliRunner

from hpc_sweep.choices import EMPTY, FAILED
from hpc_sweep.cli import main
from hpc_sweep.errors import StoreError
from hpc_sweep.redaction import redacted
from hpc_sweep.reporting import report, write_figures
from hpc_sweep.reporting.drawing import is_logarithmic, rendered
from hpc_sweep.reporting.figures import all_figures
from hpc_sweep.reporting.findings import Findings, find, quantiles
from hpc_sweep.reporting.gathering import gather
from hpc_sweep.reporting.lying import Axis, side_of
from hpc_sweep.reporting.sentences import answer, unfinished
from hpc_sweep.reporting.words import Metric, clean, duration, number, share
from hpc_sweep.reporting.working import working
from hpc_sweep.store import Store, fold
from hpc_sweep.store.header import changed_header

GRID = xr.Dataset(
    coords={
        "latitude": ("latitude", 60 - np.arange(6) / 4, {"units": "degrees_north"}),
        "longitude": ("longitude", 358.5 + np.arange(8) / 4, {"units": "degrees_east"}),
    }
)


def finish(store: Store, truth: Truth, chunks: int | None = None) -> Store:
    """Fold the first of a store's chunks, or all, with what units would have found."""
    for chunk in all_chunks(store)[:chunks]:
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    return store


def with_data(store: Store, name: str, data: dict[str, Any]) -> Store:
    """Return a store whose spec has another name and other data."""
    spec = {**store.header.spec, "name": name}
    spec["data"] = {**spec["data"], **data}
    with changed_header(store.path) as header:
        header["spec"] = spec
    return Store.open(store.path)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a finished store of 48 pixels, of which one failed and one is empty."""
    store = make_store(
        tmp_path_factory.mktemp("pixels"),
        (6, 8),
        (3, 8),
        coordinates=GRID,
        models=[RIDGE, NEIGHBORS],
    )
    truth = invent(store)
    truth.status[0, 0], truth.status[1, 1] = FAILED, EMPTY
    truth.message[0, 0] = "ValueError: the data is too wet"
    for scores in truth.scores.values():
        scores[0, 0] = scores[1, 1] = np.nan
    return finish(store, truth)


@pytest.fixture(scope="module")
def found(pixels: Store) -> Findings:
    return find(gather(pixels), "K")


def opened(store: Store) -> xr.Dataset:
    return store.dataset().load()


def test_gathered_numbers_are_those_of_the_store(pixels: Store, found: Findings) -> None:
    results, gathered = opened(pixels), found.gathered
    np.testing.assert_array_equal(gathered.best_score, results["best_score"].values.ravel())
    names = np.array([*gathered.models, ""])
    assert (names[gathered.model] == results["best_model"].values.ravel()).all()
    best = results["best_index"].values.ravel()
    std = results["std_test_score"].values.reshape(48, -1)
    expected = np.where(best >= 0, std[np.arange(48), best], np.nan)
    np.testing.assert_array_equal(gathered.spread, expected)
    for code, model in enumerate(gathered.models):
        rows = (results["model"] == model).values
        means = results["mean_test_score"].values.reshape(48, -1)[:, rows]
        with np.errstate(invalid="ignore"):
            expected = np.fmax.reduce(means, axis=1).astype("float32")
        np.testing.assert_array_equal(gathered.of_model[code], expected)
    alpha = results["best_param_alpha"].values.ravel()
    assert [float(text) if text else None for text in alpha] == [
        None if np.isnan(number) else number for number in gathered.params["alpha"].values
    ]


def test_lead_and_doubt_are_those_of_the_two_best_models(pixels: Store, found: Findings) -> None:
    scores = opened(pixels)["test_score"].values.reshape(48, -1, 3)
    means, ridge = scores.mean(axis=2), (opened(pixels)["model"] == "ridge").values
    for place in range(48):
        if np.isnan(means[place]).all():
            assert np.isnan(found.gathered.lead[place])
            continue
        pair = [scores[place, rows][means[place, rows].argmax()] for rows in (ridge, ~ridge)]
        pair.sort(key=lambda each: -each.mean())
        difference = pair[0] - pair[1]
        assert found.gathered.lead[place] == pytest.approx(difference.mean())
        assert found.gathered.doubt[place] == pytest.approx(difference.std(ddof=1))


def test_the_answer_counts(pixels: Store, found: Findings) -> None:
    models = opened(pixels)["best_model"].values
    won = {name: int((models == name).sum()) for name in ("ridge", "kneighborsregressor")}
    first = max(won, key=lambda name: won[name])
    said = answer(found)
    assert said.headline.startswith(f"{first} is best at {won[first]} of 46 pixels")
    median = np.nanmedian(opened(pixels)["best_score"].values)
    assert f"median R² {number(float(median))}" in said.headline
    assert any("1 pixel failed" in note for note in said.notes)
    assert any("1 of 48 pixels (2\u00a0%) have no samples" in note for note in said.notes)
    assert unfinished(found) == ""


def test_responses_are_quantiles_over_pixels_of_the_best_with_a_value(
    pixels: Store, found: Findings
) -> None:
    (response,) = found.responses("alpha")
    results = opened(pixels)
    means = results["mean_test_score"].values.reshape(48, -1)
    for place, value in enumerate(response.values):
        (row,) = np.flatnonzero(results["param_alpha"].values == f"{value:g}")
        np.testing.assert_allclose(response.quantiles[:, place], quantiles(means[:, row]))
    (weights,) = found.responses("weights")
    texts = found.gathered.params["weights"].texts
    assert texts is not None
    assert [texts[int(code)] for code in weights.values] == ["uniform", "distance"]


def test_figures_are_the_same_each_time_and_say_what_they_show(found: Findings) -> None:
    pictures = all_figures(found, None)
    keys = [picture.key for picture in pictures]
    assert {"best-model", "best-score", "best-param-alpha", "score-alpha"} <= set(keys)
    assert len(set(keys)) == len(keys)
    for picture in pictures:
        assert re.search(r"\d", picture.alt), picture.key
    for kind in ("svg", "pdf"):
        assert rendered(pictures[0], kind) == rendered(pictures[0], kind)
    assert b"<text" in rendered(pictures[0], "svg")


def test_a_map_is_in_one_piece_and_north_is_up() -> None:
    east = Axis("longitude", 358.5 + np.arange(8) / 4, "degrees_east")
    side = side_of(east)
    assert side.edges == pytest.approx((-1.625, 0.375))
    np.testing.assert_array_equal(side.order, np.arange(8))
    pacific = side_of(Axis("longitude", np.arange(150.0, 211, 10), "degrees_east"))
    assert pacific.edges == (145, 215)
    wrapped = side_of(Axis("longitude", np.array([0.0, 1, 2, 358, 359]), "degrees_east"))
    np.testing.assert_array_equal(wrapped.order, [3, 4, 0, 1, 2])
    north = side_of(Axis("latitude", np.array([60.0, 59, 58]), "degrees_north"))
    np.testing.assert_array_equal(north.order, [2, 1, 0])
    uneven = side_of(Axis("depth", np.array([0.0, 1, 10, 100])))
    assert set(uneven.order) == {0, 1, 2, 3}
    assert uneven.edges == (-0.5, 145)
    large = side_of(Axis("x", np.arange(5000)))
    assert len(large.order) <= 600
    assert large.every == 9


def test_workers_are_counted_and_time_between_runs_is_left_out(tmp_path: Path) -> None:
    def event(second: int, event: str, **facts: Any) -> str:
        minutes, rest = divmod(second, 60)
        return json.dumps(
            {"time": f"2026-01-01T00:{minutes:02}:{rest:02}.000Z", "event": event, **facts}
        )

    lines = [
        event(0, "run_started", workers=9),
        event(0, "workers", workers=2),
        event(40, "unit_done", worker="a", seconds=40),
        event(80, "unit_done", worker="b", seconds=20.5),
        '{"time": "cut',
        event(100, "run_ended"),
        event(1000, "run_started"),
        event(1000, "workers", workers=1),
        event(1060, "unit_done", worker="a", seconds=60),
        event(1060, "run_ended"),
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    worked = working(tmp_path)
    assert worked is not None
    assert (worked.runs, worked.units, worked.seconds) == (2, 3, 160)
    width = worked.seconds / len(worked.busy)
    assert worked.busy.sum() * width == pytest.approx(120.5)
    assert worked.there.sum() * width == pytest.approx(260)
    assert worked.there[0] == 2
    assert worked.there[-1] == 1
    assert working(tmp_path / "none") is None
    beside = [event(50, "run_started"), event(50, "workers", workers=4), event(120, "run_ended")]
    (tmp_path / "events-2-of-2.jsonl").write_text("\n".join(beside))
    both = working(tmp_path)
    assert both is not None
    assert (both.runs, both.seconds) == (2, 180)
    assert both.there.sum() * both.seconds / len(both.there) == pytest.approx(260 + 280)


def test_an_unfinished_store_says_how_far_it_is(tmp_path: Path) -> None:
    store = make_store(tmp_path, (6, 8), (3, 8), coordinates=GRID)
    page = report(store.path, tmp_path / "page.html").read_text()
    assert "No model has a score yet" in page
    finish(store, invent(store), 1)
    page = report(store.path, tmp_path / "page.html").read_text()
    assert "24 of 48 pixels (50\u00a0%) are settled" in page
    assert "24 pixels" in page


@pytest.mark.parametrize(
    ("shape", "search"),
    [
        ((), {}),
        ((5,), {}),
        ((60,), {}),
        ((2, 3, 4), {"scoring": ["r2", "neg_mean_absolute_error"], "refit": "r2"}),
        ((3, 4), {"strategy": "optuna", "n_trials": 4}),
        ((3, 4), {"strategy": "halving"}),
    ],
    ids=str,
)
def test_any_kind_of_store_gives_a_page(
    shape: tuple[int, ...], search: dict[str, Any], tmp_path: Path
) -> None:
    models: list[dict[str, Any]] = [RIDGE, NEIGHBORS]
    if search.get("strategy") == "optuna":
        models = [
            {"estimator": model["estimator"], "param_distributions": model["param_grid"]}
            for model in models
        ]
    store = make_store(tmp_path, shape, shape, models=models, **search)
    if not search.get("strategy"):
        finish(store, invent(store))
    page = report(store.path, tmp_path / "page.html").read_text()
    assert page.count("<h1>") == 1
    if not search.get("strategy"):
        assert "is best" in page
        assert "data:image/svg+xml" in page


def test_secrets_are_left_out(tmp_path: Path) -> None:
    store = make_store(tmp_path, (2, 2), (2, 2))
    options = {"storage_options": {"secret": ["hush-2"], "key": "hush-3"}}
    place = "s3://me:hush-1@host/data.zarr"
    store = with_data(store, "tiny", {"store": place, "open_options": options})
    page = report(store.path, tmp_path / "page.html").read_text()
    assert "storage_options" in page
    assert "hush" not in page
    assert redacted({"a": [{"api_token": 1, "keys": "kept"}]}) == {
        "a": [{"api_token": "[removed]", "keys": "kept"}]
    }


def test_the_page_is_replaced_whole_or_not_at_all(
    pixels: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "new" / "page.html"
    report(pixels.path, page)
    before = page.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    done = CliRunner().invoke(main, ["report", str(pixels.path), "-o", str(page)])
    assert (done.exit_code, "No space left" in done.output) == (3, True)
    assert page.read_bytes() == before
    assert list(page.parent.iterdir()) == [page]
    monkeypatch.undo()
    done = CliRunner().invoke(main, ["report", str(pixels.path), "-o", str(page), "--json"])
    assert json.loads(done.stdout) == {"written": [str(page)]}


def test_errors_name_the_place_and_the_remedy(pixels: Store, tmp_path: Path) -> None:
    def output(*arguments: object) -> str:
        done = CliRunner().invoke(main, ["report", *map(str, arguments)])
        assert done.exit_code == 2, done.output
        return done.output

    assert "does not exist" in output(tmp_path / "none.zarr")
    assert "is a folder" in output(pixels.path, "-o", tmp_path)
    assert "inside the store" in output(pixels.path, "-o", pixels.path / "page.html")
    (tmp_path / "file").touch()
    assert "no folder" in output(pixels.path, "-o", tmp_path / "file" / "page.html")
    assert "gif" in output(pixels.path, "--figures", tmp_path / "figures", "--format", "pdf,gif")
    assert not (tmp_path / "figures").exists()


def test_figures_for_a_paper_are_as_wide_as_its_column(pixels: Store, tmp_path: Path) -> None:
    files = write_figures(pixels.path, tmp_path / "figures", ("pdf", "svg"))
    assert {file.suffix for file in files} == {".pdf", ".svg"}
    svg = (tmp_path / "figures" / "best-score.svg").read_text()
    assert 'width="252pt"' in svg  # 3.5 inches


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    store = finish(make_store(tmp_path), invent(make_store(tmp_path / "same")))
    chunk = next((store.path / "best_score").glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    done = CliRunner().invoke(main, ["report", str(store.path), "-o", str(tmp_path / "page.html")])
    told = f"error: {chunk} is damaged: its checksum is wrong; delete "
    assert (done.exit_code, told in done.output) == (2, True), done.output
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(StoreError, match=r"best_score is damaged; hpc-sweep verify .* names"):
        report(store.path, tmp_path / "page.html")


def test_numbers_are_written_as_people_do() -> None:
    assert [number(v) for v in (0.93456, -12.345, 0, 1234567.0, 2.5e-7, np.nan)] == [
        "0.935",
        "−12.3",
        "0",
        "1.23×10⁶",
        "2.50×10⁻⁷",
        "none",
    ]
    assert share(612, 784) == "612 of 784 (78\u00a0%)"
    assert share(1, 784) == "1 of 784 (0.1\u00a0%)"
    assert [duration(v) for v in (0.5, 42, 200, 7500)] == [
        "0.5 s",
        "42 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    error = Metric.of("score", "neg_mean_absolute_error", "K")
    assert (error.axis, error.text(-0.25)) == ("mean absolute error (K)", "0.250 K")
    assert clean("a\x1b[0m\n‮b" + "c" * 50) == "a�[0m �b" + "c" * 31 + "…"


def test_grids_are_logarithmic_where_their_ratios_are_alike() -> None:
    assert is_logarithmic(np.array([0.001, 0.1, 1, 10]))
    assert is_logarithmic(np.array([1.0, 10]))
    assert not is_logarithmic(np.array([2.0, 4, 6, 8]))
    assert not is_logarithmic(np.array([0.5, 1]))
    assert not is_logarithmic(np.array([0.0, 1, 10]))
