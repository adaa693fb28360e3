"""Predictions as jobs of a queue: what the job does, its chain, and whose core-hours it uses."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from click.testing import CliRunner
from conftest import small_spec
from yearly import in_process

from hpc_sweep import submission
from hpc_sweep.budget import forecast, total_spent
from hpc_sweep.cli import main
from hpc_sweep.cli.facts import line
from hpc_sweep.cli.predict import predict
from hpc_sweep.drive import Progress
from hpc_sweep.errors import PlanError
from hpc_sweep.prediction import Asked, chain_of, execute_prediction
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Holder, Store, hold, read_asked, read_events, run_folder
from hpc_sweep.tally import Tally
from hpc_sweep.watching import Seen, look_once

SLURM = {"kind": "slurm", "workers": 3, "memory": "1GB", "queue": "debug", "walltime": "01:00:00"}


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished sweep of 48 pixels whose cluster is Slurm."""
    folder = tmp_path_factory.mktemp("submitted")
    spec = small_spec(data, folder / "results.zarr")
    spec["models"] = [{"estimator": "sklearn.linear_model.Ridge"}]
    in_process(spec)
    made = Store.open(folder / "results.zarr")
    made.record_spec(load_spec({**spec, "cluster": SLURM}))
    return made.path


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what a queue, that takes all jobs, was given."""
    given: list[tuple[Any, ...]] = []

    def submit_driver(queue: Any, run: Any, *about: Any) -> str:
        given.append((run.path.name, *about))
        return str(len(given))

    monkeypatch.setattr(submission, "submit_driver", submit_driver)
    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")
    return given


def words_of(script: str) -> list[str]:
    """Return the command of a driver's script, after ``hpc-sweep``."""
    (line,) = (line for line in script.splitlines() if line.startswith("exec "))
    words = shlex.split(line)
    return words[words.index("predict") :]


def test_what_is_asked_in_words(tmp_path: Path) -> None:
    """The command takes them as they were meant."""
    trust, settings = ("a.B", "c.D"), ("cluster.queue=debug", "output.max_files=300")
    flags = dict.fromkeys(("proba", "partial", "ignore_units", "mixed_versions"), True)
    asked = Asked("s t.zarr", "d.zarr", "o.zarr", settings, "test", trust=trust, spec="f", **flags)
    for each in (asked, Asked("s", "loaders.py:make", "o").absolute()):
        params = predict.make_context("predict", each.words()[1:]).params
        assert {key: params[key] for key in asdict(each)} == asdict(each)
    assert asked.absolute().store == str(Path("s t.zarr").absolute())
    module = Path("loaders.py").absolute()
    assert Asked("s", "loaders.py:make", "o").absolute().data == f"{module}:make"
    assert Asked("s", "memory://a/b.zarr", "o").absolute().data == "memory://a/b.zarr"


def test_the_job_predicts(
    store: Path,
    data: Path,
    tmp_path: Path,
    queue: list[tuple[Any, ...]],
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From anywhere, what was asked for; a dry run writes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.zarr").symlink_to(data)
    asked = ["predict", str(store), "data.zarr", "out.zarr", "--set", "cluster.workers=5"]
    shown = CliRunner().invoke(main, [*asked, "--submit", "--one-job", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "#SBATCH --nodes=5" in shown.output
    assert "# --- on each of its nodes ---" in shown.output
    assert [path.name for path in tmp_path.iterdir()] == ["data.zarr"]
    shown = CliRunner().invoke(main, [*asked, "--submit", "--chain", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["jobs"] == ["1", "2"]
    assert queue == [("out.zarr.run", None, None), ("out.zarr.run", "1", None)]
    run, out = run_folder(tmp_path / "out.zarr"), str(tmp_path / "out.zarr")
    told = CliRunner().invoke(main, ["status", out]).output
    assert "prediction: small: not begun\n" in told
    assert f"store:      {out} (is made by the first driver)\n" in told
    words = words_of(run.script.read_text())
    assert words[-1] == "--link"
    spec = load_spec(run.spec)
    assert (spec.cluster.workers, spec.cluster.machine) == (5, None)
    monkeypatch.chdir("/")
    sets = [word for setting in here for word in ("--set", setting)]
    done = CliRunner().invoke(main, [*words[:-1], *sets])
    assert done.exit_code == 0, done.output
    told = CliRunner().invoke(main, ["status", out, "--watch"]).output
    assert told.startswith("prediction: small: complete\n")
    assert read_asked(run)[-4:] == ["--set", "cluster.workers=5", "--submit", "--chain"]
    found = xr.open_zarr(tmp_path / "out.zarr", chunks=None)
    execute_prediction(Asked(str(store), str(data), str(tmp_path / "plain.zarr"), tuple(here)))
    plain = xr.open_zarr(tmp_path / "plain.zarr", chunks=None)
    assert found.drop_attrs().identical(plain.drop_attrs())


@pytest.mark.parametrize("words", [["--chain"], ["--one-job"]])
def test_what_goes_with_submit(words: list[str]) -> None:
    shown = CliRunner().invoke(main, ["predict", "a", "b", "c", *words])
    assert shown.exit_code == 2
    assert "go with --submit" in shown.output


def test_what_a_chain_aims_at(
    store: Path, data: Path, tmp_path: Path, queue: list[tuple[Any, ...]], here: list[str]
) -> None:
    """What is done is what a run's event log says at its start."""
    asked = Asked(str(store), str(data), str(tmp_path / "out.zarr"))
    spec, aim = chain_of(asked)
    assert run_folder(spec.output.store) == run_folder(asked.out)
    assert aim.done() == (0, 0, 0)
    execute_prediction(Asked(asked.store, asked.data, asked.out, tuple(here)))
    assert aim.done() == (4, 4, 0)
    next((tmp_path / "out.zarr" / "slope").glob("c.0*")).unlink()
    assert aim.done() == (3, 3, 0)
    execute_prediction(Asked(asked.store, asked.data, asked.out, tuple(here)))
    started = [e for e in read_events(run_folder(asked.out).events) if e["event"] == "run_started"]
    assert [(e["cells_done"], e["chunks_folded"]) for e in started] == [(0, 0), (3, 3)]


def test_status_while_it_predicts_and_when_it_has_stopped(
    store: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """Its event log says what it shows itself, and the command that is told goes on with it."""
    out, seen, shown = tmp_path / "out.zarr", list[Seen](), list[Progress]()
    asked = Asked(str(store), str(data), str(out), tuple(here))

    def on_progress(progress: Progress) -> None:
        if progress.phase == "predicting" and progress.units:
            seen.append(look_once(out))
        shown.append(progress)

    execute_prediction(asked, on_progress=on_progress)
    assert seen[0].state == "running"
    assert seen[0].status is not None
    assert seen[0].status.driver == str(Holder.this_process())
    mine = Tally(run_folder(out).events)
    mine.look()
    names = ("cells", "cells_done", "fits", "fits_per_cell", "counts", "units", "failed", "name")
    for name in (*names, "chunks", "chunks_folded", "workers_asked"):
        assert getattr(mine.progress(), name) == getattr(shown[-1], name), name
    assert "2,880 of 2,880 samples in 4 of 4 chunks, " in line(mine.progress())

    next((out / "slope").glob("c.0*")).unlink()
    invoke = CliRunner().invoke
    told = invoke(main, ["status", str(out)])
    lines = dict(text.split(":", 1) for text in told.output.splitlines())
    assert lines["prediction"].strip() == "small: stopped"
    assert lines["models"].strip() == str(store)
    assert lines["samples"].strip() == "2,160 of 2,880 (75.0%)"
    assert lines["chunks"].strip() == "3 of 4 in the store"
    assert lines["partitions"].strip() == "46 done, 2 empty"
    words = lines["driver"].partition("to go on: hpc-sweep ")[2]
    assert shlex.split(words) == asked.words()
    (facts,) = json.loads(invoke(main, ["status", str(out), "--json"]).stdout)
    assert (facts["what"], facts["state"], facts["samples_done"]) == ("prediction", "stopped", 2160)
    assert invoke(main, shlex.split(words)).exit_code == 0
    (facts,) = json.loads(invoke(main, ["status", str(out), "--json"]).stdout)
    assert facts["complete"]
    assert facts["core_hours"] > 0
    followed = invoke(main, ["status", str(out), "--watch", "--json"])
    assert json.loads(followed.stdout)["samples_done"] == 2880


def test_a_prediction_whose_driver_was_killed_at_its_very_end(
    store: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """The same command removes its lease, but not one of a driver that is about to end."""
    asked = Asked(str(store), str(data), str(tmp_path / "out.zarr"), tuple(here))
    counts, run = execute_prediction(asked).counts, run_folder(asked.out)
    kept = {path.name for path in run.path.iterdir()}
    assert kept == {"parts", "logs", "keys", "events.jsonl", "asked.json"}
    with hold(run.lease):
        assert execute_prediction(asked).counts == counts
        assert run.lease.exists()
    dead = replace(Holder.this_process(), nonce="0", ticks=1)
    run.lease.write_text(json.dumps(asdict(dead)))
    run.lease.with_name("lease.0.beat").write_text("000000000007")
    done = execute_prediction(replace(asked, settings=(*here, "cluster.max_core_hours=1e-9")))
    assert (done.counts, done.progress) == (counts, None)  # without a budget either
    assert {path.name for path in run.path.iterdir()} == kept
    (run.parts / ".x.tmp").touch()
    assert execute_prediction(asked).counts == counts
    assert not list(run.parts.iterdir())


def test_cancel_says_what_it_leaves(tmp_path: Path) -> None:
    """A driver that is no job of ours, such as of `hpc-sweep predict` on a terminal."""
    run = run_folder(tmp_path / "out.zarr").make()
    with hold(run.lease) as lease:
        told = CliRunner().invoke(main, ["cancel", str(tmp_path / "out.zarr")])
        mine = lease.holder
    assert told.exit_code == 0
    assert f"no job was alive\n{mine} is at work on it, and is no job: end it" in told.output


def test_predictions_use_the_sweeps_core_hours(
    store: Path, data: Path, tmp_path: Path, here: list[str]
) -> None:
    """They count in its account, not in the pace of its searches; used up, none begins."""
    run = run_folder(store).path
    before = total_spent(run).core_hours
    asked = Asked(str(store), str(data), str(tmp_path / "out.zarr"), tuple(here))
    execute_prediction(asked)
    spent = total_spent(run).core_hours
    assert spent > before
    assert forecast(Store.open(store)).spent.core_hours == spent
    limit = f"cluster.max_core_hours={spent / 2}"
    other = Asked(asked.store, asked.data, str(tmp_path / "other"), (*here, limit))
    with pytest.raises(PlanError, match=r"were used, in the sweep and its predictions.*raise it"):
        execute_prediction(other)
    assert not (tmp_path / "other").exists()
    assert (
        execute_prediction(Asked(asked.store, asked.data, asked.out, (*here, limit))).progress
        is None
    )
