"""Core-hours: used, by the event log; needed; charged; and the end of a run at the limit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Spec, hpc_sweep, make_data, start_run, wait_for_units

from hpc_sweep.budget import Budget, account_of, forecast, total_spent
from hpc_sweep.charge import charge_rate, spent
from hpc_sweep.cli import main
from hpc_sweep.clusters import make_cluster
from hpc_sweep.spec import ChargeSpec, ClusterSpec
from hpc_sweep.store import Journal, Ledger, Store, read_events, run_folder

WriteSpec = Callable[[Spec], Path]


def at(seconds: float, event: str, **facts: Any) -> dict[str, Any]:
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_800_000_000 + seconds))
    return {"time": f"{clock}.000Z", "event": event, **facts}


def test_spent_by_the_log() -> None:
    """Counts of workers × time, and the driver's own core; not what is between two runs."""
    events = [
        at(-9999, "driver_submitted"),
        at(0, "run_started", workers=9, own_cores=1, charge_rate=2.0, charge_unit="SU"),
        at(10, "workers_ready", workers=2),
        at(20, "unit_done"),
        at(30, "workers", workers=3),
        at(40, "unit_done"),  # the driver is killed after this
        at(5000, "driver_submitted"),
        at(9000, "cancelled"),
        at(10_000, "run_started", workers=9),
        at(10_010, "workers", workers=1),
        {"event": "of another version"},
        at(10_005, "unit_done"),  # the clock was set back
        at(10_015, "run_ended"),
        at(20_000, "workers", workers=7),
    ]
    found = spent(events)
    seconds = 10 * 1 + 20 * 3 + 10 * 4, 10 * 1
    assert found.core_hours == pytest.approx(sum(seconds) / 3600)
    assert found.charges == {"SU": pytest.approx(2 * seconds[0] / 3600)}
    assert found.units == 3
    assert spent([]).core_hours == 0
    whole = [
        at(0, "run_started", own_cores=8, workers_apart=False),
        at(900, "workers", workers=8),
        at(3600, "run_ended"),
    ]
    assert spent(whole).core_hours == 8.0


@pytest.mark.parametrize(
    ("charge", "cores", "memory", "rate"),
    [
        ({"per_core_hour": 2}, 48, None, 2),
        ({"per_core_hour": 2, "memory_per_core": "4GB"}, 48, 4_000_000_000 * 48, 2),
        ({"per_core_hour": 2, "memory_per_core": "4GB"}, 8, 4_000_000_000 * 16, 4),
        ({"per_core_hour": 2, "memory_per_core": "4GB"}, 8, 1_000, 2),
        ({"per_node_hour": 128}, 64, None, 2),
    ],
)
def test_rates(charge: Any, cores: int, memory: int | None, rate: float) -> None:
    assert charge_rate(ChargeSpec.model_validate(charge), cores, memory) == rate


def test_the_most_that_jobs_may_use(tmp_path: Path) -> None:
    def most(**section: Any) -> Any:
        spec = ClusterSpec(kind="slurm", **section)
        return make_cluster(spec, tmp_path, lambda event, **facts: None).most_core_hours()

    size = {"workers": 10, "workers_per_node": 4, "walltime": "02:00:00"}
    assert most(**size) == (26.0, "13 cores for 02:00:00")
    assert most(**size, place="one_job") == (24.0, "12 cores for 02:00:00")
    day = most(**size, driver={"walltime": "1-00:00:00"})
    assert day == (13 * 24.0, "13 cores for 24:00:00")


def test_plan_tells_what_it_may_cost(
    spec: Spec, write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")
    charge = {"unit": "SU", "per_core_hour": 2}
    cluster = {"kind": "slurm", "workers": 7, "memory": "1GB", "walltime": "01:00:00"}
    spec["cluster"] = {**cluster, "charge": charge, "max_core_hours": 99}
    shown = CliRunner().invoke(main, ["plan", str(write_spec(spec))])
    assert "core-hours: 8 (16 SU) at the most: 8 cores for 01:00:00, limit 99" in shown.output


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_counts_while_it_runs(tmp_path: Path) -> None:
    """Changes are journaled, and the count once a minute; logs of others count too."""
    clock, folder = Clock(), run_folder(tmp_path / "x.zarr")
    folder.make()
    other = [at(0, "run_started"), at(0, "workers", workers=3), at(1200, "run_ended")]
    (folder.path / "events-1-of-2.jsonl").write_text("\n".join(map(json.dumps, other[:2])))
    account_of(folder, "predicted").path.write_text("\n".join(map(json.dumps, other)))
    budget = Budget(Journal(folder.events), 4.0, 1, clock=clock)
    budget.update(2)
    assert not budget.is_used_up()
    for minute in range(1, 61):
        clock.now = 60.0 * minute
        budget.update(2)
        budget.update(2)
    assert budget.core_hours == pytest.approx(1 + 3)
    assert budget.is_used_up()
    budget.update(0)
    assert budget.is_used_up()
    budget.update(2)
    assert "used 4 core-hours, and cluster.max_core_hours is 4" in str(budget.error())
    events = list(read_events(folder.events))
    assert [event["workers"] for event in events] == [2] * 61 + [0, 2]


@pytest.fixture
def slow_spec(
    spec: Spec, tmp_path: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> Spec:
    """Return a spec of 17 core-seconds, most of which are slept away."""
    data = make_data(tmp_path / "larger.zarr", shape=(18, 16))
    spec["data"]["store"] = str(data)
    spec["models"][1] = {"estimator": "faulty.Slow"}
    monkeypatch.setenv("TEST_SLOW_FIT", "0.02")
    return spec


def test_the_limit_ends_a_run_and_a_higher_one_goes_on(
    slow_spec: Spec, write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, all that is done is kept, and what it refuses then it says beforehand."""
    spec = slow_spec
    spec["cluster"]["max_core_hours"] = 0.0015
    file, store = write_spec(spec), Path(spec["output"]["store"])
    ended = hpc_sweep("run", file)
    assert ended.returncode == 3, ended.stderr
    message = ended.stderr.strip().splitlines()[-1]
    assert message.startswith("error: used 0.00")
    assert "cluster.max_core_hours is 0.0015; what is done is kept" in message
    done = Store.open(store)
    known = forecast(done)
    assert 0.001 < known.spent.core_hours < 0.006
    assert known.remaining_core_hours
    for command in (["plan", file], ["run", file]):
        refused = hpc_sweep(*command)
        assert refused.returncode == 2
        assert "the rest needs about 0.0" in refused.stderr
    shown = CliRunner().invoke(main, ["status", str(store)])
    assert "used, about 0.0" in shown.output
    monkeypatch.setenv("TEST_SLOW_FIT", "0")
    goes_on = hpc_sweep("run", file, "--set", "cluster.max_core_hours=1")
    assert goes_on.returncode == 0, goes_on.stderr
    assert Ledger.read(Store.open(store)).is_complete


def test_spent_after_a_kill(slow_spec: Spec, write_spec: WriteSpec) -> None:
    """A driver that was killed has used what it used until its last event."""
    spec = slow_spec
    spec["cluster"]["charge"] = {"unit": "SU", "per_core_hour": 3}
    file, store = write_spec(spec), Path(spec["output"]["store"])
    process = start_run(file)
    wait_for_units(store, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    killed = total_spent(run_folder(store).path)
    events = list(read_events(run_folder(store).events))
    ready = next(e for e in events if e["event"] == "workers_ready")
    seconds = _clock(events[-1]) - _clock(ready)
    assert killed.core_hours == pytest.approx(2 * seconds / 3600, rel=0.5, abs=2 / 3600)
    time.sleep(3)  # what nobody works in does not count
    assert hpc_sweep("run", file).returncode == 0
    both = total_spent(run_folder(store).path)
    wall = _clock(list(read_events(run_folder(store).events))[-1]) - _clock(events[0])
    assert killed.core_hours < both.core_hours < 2 * (wall - 3) / 3600
    assert both.charges == {"SU": pytest.approx(3 * both.core_hours)}


def _clock(event: dict[str, Any]) -> float:
    import datetime

    return datetime.datetime.fromisoformat(event["time"]).timestamp()
