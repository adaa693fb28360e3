"""Versions of scikit-learn: another one is refused, or recorded; workers have the driver's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from builders import make_store
from conftest import Spec, hpc_sweep

from hpc_sweep.clusters.base import WORKER_ENVIRONMENT
from hpc_sweep.errors import StoreError
from hpc_sweep.prepare import check_versions
from hpc_sweep.store import Store, list_parts, read_events, run_folder
from hpc_sweep.store.header import changed_header
from hpc_sweep.versions import differences, installed

WriteSpec = Callable[[Spec], Path]
HERE = installed("scikit-learn")


def pretend(folder: Path, version: str) -> Path:
    """Make a folder that, on the Python path, says that scikit-learn has that version."""
    info = folder / f"scikit_learn-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: scikit-learn\nVersion: {version}\n"
    )
    return folder


def begun_under(store: Path, version: str) -> None:
    """Let a store say that it was begun under another scikit-learn."""
    with changed_header(store) as header:
        header["versions"]["scikit-learn"] = version


def half_done(spec: Spec) -> Path:
    """Run a sweep, and take a result chunk away again."""
    from hpc_sweep.spec import load_spec
    from hpc_sweep.sweep import execute

    store = execute(load_spec(spec)).store
    (store.path / "status" / "c.1.1.0").unlink()
    return store.path


@pytest.mark.parametrize(
    ("version", "different"),
    [(HERE, False), (".".join([*HERE.split(".")[:2], "99"]), False), ("1.2.3", True)],
)
def test_minor_versions_differ_and_patches_do_not(version: str, different: bool) -> None:
    found = differences({"scikit-learn": version})
    assert found == ([f"scikit-learn {HERE} instead of {version}"] if different else [])


def test_another_scikit_learn_is_refused_or_recorded(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path
) -> None:
    store = half_done(spec)
    assert Store.open(store).header.mixed_versions == ()
    begun_under(store, "1.2.3")
    spec_file = write_spec(spec)
    before = (store / "zarr.json").read_bytes()
    refused = hpc_sweep("run", spec_file)
    assert refused.returncode == 2
    assert f"here is scikit-learn {HERE} instead of 1.2.3" in refused.stderr
    assert "--mixed-versions" in refused.stderr
    assert (store / "zarr.json").read_bytes() == before
    done = hpc_sweep("run", spec_file, "--mixed-versions")
    assert done.returncode == 0, done.stderr
    header = Store.open(store).header
    assert header.versions["scikit-learn"] == "1.2.3"
    assert header.mixed_versions == (HERE,)
    events = [e for e in read_events(run_folder(store).events) if e["event"] == "version_mixed"]
    assert [event["scikit_learn"] for event in events] == [HERE]
    # complete: nothing is computed, so nothing is refused
    assert hpc_sweep("run", spec_file).returncode == 0


def test_a_store_that_does_not_know_its_version_is_not_refused(tmp_path: Path) -> None:
    check_versions(make_store(tmp_path), mixed=False)


def test_recording_twice(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    begun_under(store.path, "1.8.0")
    for version in ("1.9.0", "1.8.0", "1.9.0", "1.9.1"):
        store.record_version(version)
    again = Store.open(store.path)
    assert again.header.mixed_versions == ("1.9.0", "1.9.1")
    assert again.header.id == store.header.id
    assert again.dataset()["status"].attrs["flag_values"][0] == 0  # the metadata is whole
    with pytest.raises(StoreError, match=r"instead of 1\.8\.0"):
        check_versions(again, mixed=False)


@contextlib.contextmanager
def external(folder: Path, worker: list[str], **variables: str) -> Iterator[dict[str, str]]:
    """Start a scheduler, and a worker by its own command; give the ``cluster`` section."""
    scheduler_file = folder / "scheduler.json"
    common = [f"--scheduler-file={scheduler_file}", "--no-dashboard"]
    commands = [
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--host=127.0.0.1"],
        [*worker, *common, "--nthreads=1"],
    ]
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(
                command,
                env={**os.environ, **WORKER_ENVIRONMENT, **variables},
                cwd=folder,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, timeout=30)
            stack.callback(process.terminate)
        while not scheduler_file.exists():
            assert process.poll() is None
            time.sleep(0.1)
        yield {"kind": "external", "scheduler_file": str(scheduler_file)}


def test_workers_with_other_versions_are_refused(
    spec: Spec, write_spec: WriteSpec, tmp_path: Path
) -> None:
    """An external cluster of another environment: no unit of it leaves a part."""
    folder = pretend(tmp_path / "other", "0.0.7")
    command = [sys.executable, "-m", "distributed.cli.dask_worker"]
    with external(tmp_path, command, PYTHONPATH=str(folder)) as spec["cluster"]:
        spec_file = write_spec(spec)
        refused = hpc_sweep("run", spec_file)
        assert refused.returncode == 3
        words = f"has scikit-learn 0.0.7 instead of {HERE}, which the driver has"
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
        store = Store.open(spec["output"]["store"])
        assert list_parts(store.run.parts, store.header.id) == []
        mixed = hpc_sweep("run", spec_file, "--mixed-versions")
        assert mixed.returncode == 0, mixed.stderr
        assert Store.open(spec["output"]["store"]).header.mixed_versions == ("0.0.7",)


def test_workers_without_the_package(spec: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    """Their environment is ours but for this package."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for place in Path(sysconfig.get_path("purelib")).iterdir():
        if "hpc_sweep" not in place.name and place.suffix != ".pth":
            (packages / place.name).symlink_to(place)
    start = (
        f"import sys; sys.path.append({str(packages)!r}); "
        "from distributed.cli.dask_worker import main; main()"
    )
    with external(tmp_path, [sys.executable, "-I", "-S", "-c", start]) as spec["cluster"]:
        refused = hpc_sweep("run", write_spec(spec), timeout=60)
    assert refused.returncode == 3
    assert "lacks the package hpc-sweep" in refused.stderr
    assert "Traceback" not in refused.stderr
