"""Fits that hang, crash or take all memory are ended; nothing else suffers."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
from conftest import Spec, equal_stores, hpc_sweep, small_spec
from distributed import KilledWorker

from hpc_sweep.choices import FAILED, OUT_OF_MEMORY, TIMED_OUT
from hpc_sweep.drive import Drive
from hpc_sweep.drive.drive import MOST_DEATHS
from hpc_sweep.errors import ClusterError
from hpc_sweep.plan import Unit
from hpc_sweep.processes import end_with_parent, start_child
from hpc_sweep.spec import load_spec
from hpc_sweep.sweep import execute
from hpc_sweep.work.evaluation import Loss
from hpc_sweep.work.guard import Child, Death, Guard, Limits, Stopwatch
from hpc_sweep.work.place import FITS, SHARES, STARTS, Place

VICTIM = (2, 2)
"""The one pixel at which `faulty.Faulty` does what it is told."""


@pytest.fixture(scope="module")
def deadly_data(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = xr.open_zarr(data, chunks=None, consolidated=False).load()
    source["wet"] = -abs(source["wet"])
    source["wet"][VICTIM] *= -1
    path = tmp_path_factory.mktemp("deadly") / "deadly.zarr"
    source.drop_encoding().chunk(latitude=3, longitude=4).to_zarr(path, consolidated=False)
    return path


def faulty(spec: Spec, data: Path, how: str, store: str, timeout: float | None = None) -> Spec:
    """Return a spec of which the first of two candidates misbehaves at one pixel."""
    return {
        **spec,
        "data": {**spec["data"], "store": str(data), "features": ["wet", "hour"]},
        "models": [
            {"estimator": {"faulty.Faulty": {"how": how}}},
            {"estimator": "sklearn.linear_model.Ridge"},  # solved for many partitions at once
        ],
        "search": {**spec["search"], "timeout": timeout},
        "output": {"store": str(Path(spec["output"]["store"]).with_name(store))},
    }


@pytest.fixture(scope="module")
def raising(
    deadly_data: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Return the store of a sweep in which the victim raises; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.syspath_prepend(str(Path(__file__).parent))
        spec = small_spec(data, tmp_path_factory.mktemp("raising") / "raising.zarr")
        yield execute(load_spec(faulty(spec, deadly_data, "raise", "raising.zarr"))).store.path


def equal_but_for_the_victim(first: Path, second: Path, candidate: int = 0) -> None:
    """Fail unless two stores differ in reason and status of one cell, and in times, only."""
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (first, second))
    for name in ("status", "message"):
        kept = np.ones(left[name].shape, dtype=bool)
        kept[(*VICTIM, candidate)] = False
        np.testing.assert_array_equal(left[name].values[kept], right[name].values[kept])
    other = {"status", "message", "fit_time", "score_time", "candidate_id", "candidate_json"}
    for name in set(left.variables) - other:
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(
    ("how", "timeout", "status", "words"),
    [
        ("hang", 1, TIMED_OUT, "took longer than search.timeout, 1 s, and was ended"),
        ("loop", 1, TIMED_OUT, "took longer than search.timeout, 1 s, and was ended"),
        ("crash", 30, FAILED, "crashed its process (SIGSEGV), 2 times"),
        ("kill", None, FAILED, "ended its process (exit code 7), 2 times"),
        ("memory", None, OUT_OF_MEMORY, "took more than the 950 MB of memory that a worker has"),
    ],
)
def test_one_cell_suffers(
    spec: Spec,
    deadly_data: Path,
    raising: Path,
    faulty_on_workers: None,
    how: str,
    timeout: float | None,
    status: int,
    words: str,
) -> None:
    """Beside a sweep in which the same fits raise: all else is the same."""
    outcome = execute(load_spec(faulty(spec, deadly_data, how, "ended.zarr", timeout)))
    equal_but_for_the_victim(outcome.store.path, raising)
    results = outcome.store.dataset().load()
    assert results["status"].values[(*VICTIM, 0)] == status
    message = str(results["message"].values[(*VICTIM, 0)])
    assert message.startswith("latitude=59.5, longitude=-0.5: ")
    assert '"model": "faulty"' in message
    assert words in message
    assert outcome.progress is not None
    assert outcome.progress.failed == 1


def test_guarded_numbers_are_those_of_unguarded_ones(spec: Spec) -> None:
    plain = execute(load_spec(spec)).store.path
    guarded = {**spec, "search": {**spec["search"], "timeout": 60}}
    guarded["output"] = {"store": str(plain.with_name("guarded.zarr"))}
    equal_stores(execute(load_spec(guarded)).store.path, plain)


def test_the_timeout_may_change_between_runs(spec: Spec) -> None:
    first = execute(load_spec(spec))
    assert first.progress is not None
    again = execute(load_spec({**spec, "search": {**spec["search"], "timeout": 60}}))
    assert again.progress is None


def test_a_shared_fit_that_hangs_is_done_one_by_one(
    spec: Spec, deadly_data: Path, faulty_on_workers: None
) -> None:
    """Three pipelines share their scaler; the last step of the second one hangs."""

    def pipelines(how: str, timeout: float | None) -> Path:
        made = faulty(spec, deadly_data, "", f"{how}.zarr", timeout)
        steps = [{"sklearn.preprocessing.MaxAbsScaler": {}}, {"faulty.Faulty": {}}]
        grid = {"faulty__how": ["none", how, "nothing"]}
        made["models"] = [{"pipeline": steps, "param_grid": grid}]
        return execute(load_spec(made)).store.path

    hanging, raising = pipelines("hang", 1), pipelines("raise", None)
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (hanging, raising))
    np.testing.assert_array_equal(left["test_score"], right["test_score"])
    assert (left["status"] == TIMED_OUT).sum() == 1
    assert left["status"].values[(*VICTIM, 1)] == TIMED_OUT


@pytest.mark.parametrize("strategy", ["halving", "optuna"])
def test_strategies_that_ask_again_and_again_lose_one_candidate(
    spec: Spec, deadly_data: Path, faulty_on_workers: None, strategy: str
) -> None:
    """These ask by what was answered: a search that begins anew after a crash asks the same."""
    made = faulty(spec, deadly_data, "", f"{strategy}.zarr", 30)
    grid = {"how": ["none", "crash", "nothing", "never"]}
    made["models"] = [{"estimator": "faulty.Faulty"}]
    if strategy == "optuna":
        pytest.importorskip("optuna")
        made["models"][0]["param_distributions"] = grid
        made["search"] |= {"strategy": "optuna", "n_trials": 6, "trials_at_once": 3}
    else:
        made["models"][0]["param_grid"] = grid
        made["search"] |= {"strategy": "halving"}
    results = execute(load_spec(made)).store.dataset().load()
    if strategy == "optuna":
        crashes = results["param_how"].values == 1
        assert crashes[VICTIM].any()
    else:
        crashes = np.zeros((6, 8, 4), dtype=bool)
        crashes[..., 1] = True
    crashes[tuple(np.delete(np.indices((6, 8)).reshape(2, -1), 2 * 8 + 2, axis=1))] = False
    done = results["partition_status"].values == 1
    assert ((results["status"].values == 2)[done] == crashes[done]).all()
    message = str(results["message"].values[VICTIM][crashes[VICTIM]][0])
    assert "latitude=59.5, longitude=-0.5: " in message
    assert '"crash"' in message
    assert "crashed its process (SIGSEGV), 2 times" in message


def test_what_was_found_before_a_hang_is_kept(
    spec: Spec,
    data: Path,
    faulty_on_workers: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one partition with long fits not all are done again."""
    log = tmp_path / "fits.txt"
    monkeypatch.setenv("TEST_FIT_LOG", str(log))
    one = xr.open_zarr(data, chunks=None, consolidated=False).load().isel(latitude=[1])
    path = tmp_path / "one.zarr"
    one.isel(longitude=[1]).drop_encoding().to_zarr(path, consolidated=False)
    spec["data"]["store"] = str(path)
    grid = {"number": [0, 1, 2, 9, 3]}
    monkeypatch.setattr("hpc_sweep.plan.plan.UNITS_PER_WORKER", 1)  # all candidates in one unit
    spec["models"] = [{"estimator": "faulty.Counted", "param_grid": grid}]
    spec["search"]["timeout"] = 2
    spec["cluster"]["workers"] = 1
    results = execute(load_spec(spec)).store.dataset().load()
    assert results["status"].values.ravel().tolist() == [1, 1, 1, TIMED_OUT, 1]
    assert np.isfinite(np.delete(results["test_score"].values[0, 0], 3, axis=0)).all()
    fits = Counter(log.read_text().splitlines())
    assert len(fits) == 4 * 3 + 1
    repeated = [fit for fit, count in fits.items() if count > 1]
    assert len(repeated) <= 5  # of nine; those of about the last second, and some air


def test_a_crash_while_reading(
    spec: Spec, data: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DEADLY_FILE", str(data / "wet" / "c" / "1" / "0" / "0"))
    spec["models"] = [{"estimator": "faulty.Deadly"}, {"estimator": "sklearn.linear_model.Lasso"}]
    spec["search"]["timeout"] = 60
    # in a process of its own: the hook stays
    path = Path(spec["output"]["store"]).with_name("spec.json")
    path.write_text(json.dumps(spec))
    done = hpc_sweep("run", path)
    assert done.returncode == 4, done.stderr
    results = xr.open_zarr(spec["output"]["store"], chunks=None).load()
    failed = results["partition_status"].values == FAILED
    assert failed[3:6, 0:4].all()
    assert failed.sum() == 12
    message = str(results["message"].values[3, 0, 1])
    assert message == (
        "latitude=59.25, longitude=-1.0: reading ended its process (exit code 9), 2 times"
    )


# the parent's decisions, with a child that does what the test says


class Scripted:
    """Answers each request with the next line of a script: answers, or a death."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.requests: list[Any] = []

    def answers(self, request: Any, limits: Limits) -> Iterator[Any]:
        remains = request.remains
        left = (dict(remains.candidates), dict(remains.partitions))
        self.requests.append((remains.one_by_one, *left, remains.alone))
        line = self.script.pop(0)
        if isinstance(line, Death):
            raise line
        yield from line


CRASH = Loss(FAILED, "crashed")
UNIT = Unit((0, 0), 0, 4, 0, 2)


def guard(*script: Any) -> tuple[Guard, Scripted]:
    child = Scripted(*script)
    return Guard(child, Limits()), child  # type: ignore[arg-type]


def test_a_child_that_never_starts() -> None:
    watched, _ = guard(*[Death(Place(kind=STARTS), CRASH)] * 2)
    with pytest.raises(ClusterError, match="does not start: it crashed, 2 times"):
        watched.evaluate("store", "spec", UNIT, math.inf)


def test_what_was_over_when_it_was_ended_is_not_blamed() -> None:
    watched, child = guard(Death(Place(kind=FITS, batch=2), None), [])
    watched.evaluate("store", "spec", UNIT, math.inf)
    assert child.requests[1] == (0, {}, {}, False)


def test_a_shared_crash_is_nobodys_until_it_comes_alone() -> None:
    shared, alone = (
        Place(kind=SHARES, batch=3),
        Place(kind=FITS, position=1, candidate=0xAB, batch=3),
    )
    deaths = [Death(place, CRASH) for place in (shared, alone, alone)]
    watched, child = guard(*deaths, [])
    watched.evaluate("store", "spec", UNIT, math.inf)
    assert [request[0] for request in child.requests] == [0, 3, 3, 3]
    assert not any(request[1] for request in child.requests[:3])
    assert list(child.requests[3][1]) == [(1, 0, 0xAB)]


def test_crashes_between_fits_end_at_last() -> None:
    place = Place(kind=SHARES, position=0, count=2, batch=2)
    watched, child = guard(*[Death(place, CRASH)] * 4, [])
    watched.evaluate("store", "spec", UNIT, math.inf)
    assert list(child.requests[-1][2]) == [0, 1]
    assert [request[3] for request in child.requests] == [False, False, True, True, True]


class Stalling(Child):
    """Ends the first request for the time that work shared by two partitions took."""

    stalls = True

    def answers(self, request: Any, limits: Limits) -> Iterator[Any]:
        if self.stalls:
            self.stalls = False
            raise Death(Place(kind=SHARES, batch=2), Loss(TIMED_OUT, "took longer"))
        yield from super().answers(request, limits)


def test_a_machine_that_was_slow_for_a_moment_leaves_the_same_bits(
    spec: Spec, deadly_data: Path, raising: Path, faulty_on_workers: None
) -> None:
    """Ridge is shared again, then partition by partition: scikit-learn's solver has others."""
    text = load_spec(faulty(spec, deadly_data, "raise", "raising.zarr", 60)).model_dump_json()
    child = Stalling()
    try:
        watched = Guard(child, Limits(60))
        outcomes = watched.evaluate(str(raising), text, Unit((0, 0), 0, 12, 0, 2), math.inf)
    finally:
        child.end()
    assert not child.stalls
    whole = xr.open_zarr(raising, chunks=None)["test_score"].values[:3, :4, 1]
    for outcome, scores in zip(outcomes, whole.reshape(12, 3), strict=True):
        own = outcome.found.scores["score"][1]
        np.testing.assert_array_equal(own, scores[: len(own)])


def test_time_in_which_nobody_looks_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended job stops fits and who looks at them alike, also just after a fit has begun."""
    clock = iter([10.1, 10.2, 70.0, 70.1, 130.0, 130.1])
    monkeypatch.setattr("hpc_sweep.work.guard.time", SimpleNamespace(monotonic=clock.__next__))
    watched = Stopwatch()
    began = [10.0, 10.0, 10.0, 10.0, 70.2, 70.2]
    seen = [watched.seconds(since, most=1.0) for since in began]
    assert seen == pytest.approx([0.1, 0.2, 1.2, 1.3, 1.0, 1.1])


@pytest.mark.parametrize(
    ("guards", "words"), [(True, ", the last ones while its fits .* their own"), (False, "")]
)
def test_workers_that_die_again_and_again_end_the_run(guards: bool, words: str) -> None:
    """Also where there are no fits that could be guarded, as in predictions."""

    class Quiet:
        status = "running"

        def write(self, event: str, **facts: Any) -> None: ...

    quiet: Any = Quiet()
    quiet.guards = guards
    drive = Drive(quiet, quiet, quiet, quiet, quiet, quiet, quiet, 1.0)
    lost = KilledWorker("unit", quiet, 1)
    for _ in range(MOST_DEATHS - 1):
        drive._failed(UNIT, lost)
    with pytest.raises(
        ClusterError, match=f"{MOST_DEATHS} workers died at unit 0.0_0-4_0-2{words}: the nodes"
    ):
        drive._failed(UNIT, lost)


# processes


def _hang(connection: Any) -> None:
    import ctypes

    end_with_parent()
    connection.send(os.getpid())
    ctypes.PyDLL(None).sleep(600)  # no thread of Python's can look after anything


def _parent(connection: Any) -> None:
    end_with_parent()
    ours, theirs = multiprocessing.Pipe()
    child = start_child(_hang, theirs)
    connection.send((ours.recv(), psutil.Process(child.pid).ppid(), os.getppid()))
    signal.pause()


def test_a_child_ends_with_its_parent_whatever_it_does(faulty_on_workers: None) -> None:
    """And it comes from the same fork server as its parent, which is daemonic, as workers are."""
    ours, theirs = multiprocessing.Pipe()
    parent = start_child(_parent, theirs)
    assert parent.daemon
    pid, server, parents_server = ours.recv()
    assert server == parents_server
    hanging = psutil.Process(pid)
    parent.kill()
    end = time.monotonic() + 30
    while hanging.is_running() and hanging.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.01)
