"""What is predicted of a sweep, beside what comes: fits that sleep, so that load changes little."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Spec, hpc_sweep, small_spec

from hpc_sweep import calibration
from hpc_sweep.calibration import calibrate
from hpc_sweep.errors import ClusterError
from hpc_sweep.prepare import prepare
from hpc_sweep.source import CopiedSource, Slab, open_source
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Store
from hpc_sweep.sweep import execute


@pytest.fixture
def sleeping(spec: Spec, faulty_on_workers: None) -> Spec:
    """48 pixels, of which each takes 0.18 s."""
    spec["models"] = [
        {"estimator": {"faulty.Sleepy": {"seconds": 0.03}}, "param_grid": {"number": [1, 2]}}
    ]
    return spec


def within_factor_two(predicted: float, came: float) -> bool:
    return came / 2 <= predicted <= came * 2


def test_predictions_are_within_a_factor_of_two(sleeping: Spec) -> None:
    before = calibrate(prepare(load_spec(sleeping)), seconds=2)
    store = execute(load_spec(sleeping)).store
    (run,) = Store.open(store.path).header.runs
    came, predicted = run["came"], run["predicted"]
    assert within_factor_two(before.core_s, came["core_seconds"])
    assert within_factor_two(predicted["core_seconds"], came["core_seconds"])
    assert within_factor_two(predicted["seconds"], came["seconds"])
    assert within_factor_two(predicted["memory_bytes"], came["memory_bytes"])
    assert within_factor_two(before.peak_bytes, came["memory_bytes"])
    assert predicted["after_units"] < came["units"]
    assert came["result"] == "complete"
    assert came["core_seconds"] > 48 * 0.18


def test_data_that_is_copied_first_is_measured_on_a_copy_in_small(
    sleeping: Spec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", -1000.0)
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.SLAB_BYTES", 3000)
    sleeping["data"]["partition_by"] = ["zone", {"time": "hour"}]
    prepared = prepare(load_spec(sleeping))
    assert prepared.copy is not None
    before = calibrate(prepared, seconds=2)
    assert before.core_s > prepared.plan.grid.size * 0.18  # and the copy
    slabs = list(prepared.copy.tiling.slabs())
    copied: list[Slab] = []
    original = CopiedSource.copy_slab
    monkeypatch.setattr(
        CopiedSource,
        "copy_slab",
        lambda self, slab: copied.append(slab) or original(self, slab),  # type: ignore[func-returns-value]
    )
    copy = replace(prepared.copy, folder=tmp_path / "copy.zarr")
    took = calibration._copy_in_small(copy, prepared.spec.model_dump_json(), 0.0)
    assert copy.is_whole
    assert len(copied) == len(copy.tiling.pieces) < len(slabs)
    assert took > 0
    source = open_source(prepared.spec.data, prepared.spec.search, copy)
    partitions = source.grid.reading_order(source.grid.shape, (0, 0))
    assert all(len(samples) > 0 for samples in source.read(partitions))


def test_every_run_of_a_sweep_is_kept(sleeping: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hpc_sweep.drive.Drive._unit_done", _disk_full_after(2))
        with pytest.raises(RuntimeError):
            execute(load_spec(sleeping))
    store = execute(load_spec(sleeping)).store
    first, second = Store.open(store.path).header.runs
    assert first["came"]["result"] == "RuntimeError"
    assert second["came"]["result"] == "complete"
    assert second["came"]["units"] > 0


def _disk_full_after(count: int) -> Callable[..., None]:
    from hpc_sweep.drive import Drive

    original, left = Drive._unit_done, [count]

    def unit_done(drive: Any, unit: Any, receipt: Any) -> None:
        original(drive, unit, receipt)
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("for the test")

    return unit_done


def test_plan_says_when_how_many_workers_are_through(
    sleeping: Spec, write_spec: Callable[[Spec], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_spec(sleeping)
    facts = json.loads(hpc_sweep("plan", file, "--json").stdout)
    assert facts["finish_seconds"] is None
    facts = json.loads(hpc_sweep("plan", file, "--json", "--calibrate").stdout)
    finish = {int(count): seconds for count, seconds in facts["finish_seconds"].items()}
    assert finish[8] == pytest.approx(finish[2] / 4, rel=0.01)
    assert within_factor_two(finish[2], 48 * 0.18 / 2)
    assert not Path(sleeping["output"]["store"]).exists()
    shown = hpc_sweep("plan", file, "--calibrate").stdout
    assert "with 2 workers" in shown
    assert "partitions measured here" in shown


def test_what_cannot_be_measured_is_said_and_nothing_stays(
    data: Path, tmp_path: Path, faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    spec = small_spec(data, tmp_path / "results.zarr")
    spec["models"] = [{"estimator": {"faulty.Sleepy": {"seconds": 600}}}]
    monkeypatch.setattr(calibration, "PATIENCE_S", 3.0)
    with pytest.raises(ClusterError, match="none of its samples was done in 3 s"):
        calibrate(prepare(load_spec(spec)))
    spec["models"] = [{"estimator": {"faulty.Sleepy": {}}}]
    with pytest.raises(ClusterError, match="ended with exit code 9"):
        calibrate(prepare(load_spec(spec)))
    assert not list((tmp_path / "temporary").glob("hpc-sweep-*"))
    assert not (tmp_path / "results.zarr").exists()
