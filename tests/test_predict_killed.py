"""Predictions are killed and go on: on this machine, and on a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import (
    Spec,
    hpc_sweep,
    make_data,
    repeated_units,
    small_spec,
    start_hpc_sweep,
    wait_for_units,
    wait_until_queue_is_empty,
)
from yearly import in_process

from hpc_sweep.models import open_models
from hpc_sweep.prediction import Asked, execute_prediction
from hpc_sweep.store import Store, run_folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data in 24 chunks and a finished sweep of 48 pixels on it."""
    folder = tmp_path_factory.mktemp("killed")
    data = xr.open_zarr(make_data(folder / "data.zarr"), chunks=None, consolidated=False)
    encoding = {name: {"chunks": (3, 4, 20)} for name in ("wet", "green", "slope")}
    data = data.load().drop_encoding()
    data.to_zarr(folder / "chunked.zarr", consolidated=False, encoding=encoding)
    spec = small_spec(folder / "chunked.zarr", folder / "results.zarr")
    spec["models"] = [{"estimator": "faulty.SlowToPredict"}]
    in_process(spec)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(sweep: Path, here: list[str]) -> xr.Dataset:
    """Return the predictions that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SLOW_PREDICT", "0")
        places = (str(sweep / name) for name in ("results.zarr", "chunked.zarr", "whole.zarr"))
        outcome = execute_prediction(Asked(*places, tuple(here)))
    return xr.open_zarr(outcome.path, chunks=None).load()


def kill_and_go_on(sweep: Path, out: Path, whole: xr.Dataset, *settings: str) -> None:
    """Kill a prediction after its first units, let the same command go on, and compare."""
    command = ["predict", sweep / "results.zarr", sweep / "chunked.zarr", out]
    command += [word for setting in settings for word in ("--set", setting)]
    process = start_hpc_sweep(*command, stderr=subprocess.STDOUT, process_group=0)
    wait_for_units(out, 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    half = xr.open_zarr(out, chunks=None).load()
    missing = np.isnan(half["slope"]) & ~np.isnan(whole["slope"])
    assert missing.any()
    assert (half["slope"].where(~missing) == whole["slope"].where(~missing)).sum() > 0
    done = hpc_sweep(*command)
    assert done.returncode == 0, done.stderr
    assert "46 of 48 partitions predicted" in done.stdout
    again, twice = repeated_units(out)
    assert len(again) <= 9  # in flight: three for each worker
    assert not twice
    found = xr.open_zarr(out, chunks=None).load()
    assert found.drop_attrs().identical(whole.drop_attrs())
    assert not list(run_folder(out).parts.iterdir())


def equals_the_models(sweep: Path, found: xr.Dataset) -> None:
    """Fail unless predictions are those of each pixel's best model."""
    store = Store.open(sweep / "results.zarr")
    data = xr.open_zarr(sweep / "chunked.zarr", chunks=None, consolidated=False).load()
    places = np.indices((6, 8)).reshape(2, 48).T
    for place, model in zip(places.tolist(), open_models(store).of(places), strict=True):
        at = dict(zip(("latitude", "longitude"), place, strict=True))
        pixel = data.isel(at)
        X = np.stack([pixel[name].values.astype(float) for name in ("wet", "green", "hour")], 1)
        wanted = np.full(60, np.nan)
        whole = np.isfinite(X).all(axis=1)
        if model is not None:
            wanted[whole] = model.predict(X[whole])
        np.testing.assert_array_equal(found["slope"].isel(at).values, wanted)


@pytest.fixture
def slow(faulty_on_workers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each prediction take its time."""
    monkeypatch.setenv("TEST_SLOW_PREDICT", "0.05")


def test_killed_on_this_machine(
    sweep: Path, uninterrupted: xr.Dataset, slow: None, tmp_path: Path
) -> None:
    equals_the_models(sweep, uninterrupted)
    kill_and_go_on(sweep, tmp_path / "out.zarr", uninterrupted)


@pytest.fixture
def empty_queue(slurm: Any) -> Iterator[None]:
    """Leave no job to the next test."""
    yield
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until_queue_is_empty()


@pytest.mark.slurm
def test_killed_on_slurm(
    sweep: Path,
    uninterrupted: xr.Dataset,
    slow: None,
    slurm_cluster: Spec,
    empty_queue: None,
    tmp_path: Path,
) -> None:
    section = {**slurm_cluster, "workers": 2}  # chunks are cut for as many as in the other run
    settings = [f"cluster.{key}={json.dumps(value)}" for key, value in section.items()]
    kill_and_go_on(sweep, tmp_path / "out.zarr", uninterrupted, *settings)
