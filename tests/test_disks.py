"""Disks that refuse in the middle of a run: they are waited for, and the run goes on or ends."""

from __future__ import annotations

import contextlib
import errno
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import all_chunks, fill, invent, leave, make_read_only, make_store, small_disk, whole
from conftest import (
    Spec,
    equal_stores,
    hpc_sweep,
    make_data,
    slow,
    small_spec,
    wait_until_queue_is_empty,
)
from running import Run, half_written, kinds

from hpc_sweep.drive import Drive, Progress
from hpc_sweep.errors import EXIT_CLUSTER, DiskError
from hpc_sweep.plan import Unit
from hpc_sweep.results import open_results
from hpc_sweep.spec import load_spec
from hpc_sweep.store import (
    Journal,
    Ledger,
    Outage,
    Receipt,
    Store,
    fold,
    hold,
    probe,
    run_folder,
)
from hpc_sweep.store.outage import FIRST_PAUSE_S, LONGEST_PAUSE_S
from hpc_sweep.store.parts import read_part

WriteSpec = Callable[[Spec], Path]
UNREADABLE = Path("/proc/self/mem")
"""Reading its beginning is a real I/O error."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk with room for the store of the slow sweep, and not much more."""
    with small_disk(tmp_path, 4000) as mounted:
        yield mounted


@pytest.fixture
def slow_spec(spec: Spec, disk: Path) -> Spec:
    """Return the slow sweep with its store on the small disk."""
    return {**slow(spec), "output": {"store": str(disk / "results.zarr")}}


@pytest.fixture
def running(disk: Path) -> Iterator[Callable[[Path, Path], Run]]:
    """Return a function that starts a run; it is gone before the disk is."""
    with contextlib.ExitStack() as stack:
        yield lambda spec_file, store: stack.enter_context(
            contextlib.closing(Run(spec_file, store))
        )


def refuse_full(disk: Path) -> Callable[[], None]:
    fill(disk)
    return (disk / "filling").unlink


def refuse_writing(disk: Path) -> Callable[[], None]:
    assert make_read_only(disk)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True) and None


@pytest.mark.parametrize(
    ("refuse", "words"),
    [(refuse_full, "No space left on device"), (refuse_writing, "Read-only file system")],
)
def test_a_disk_that_comes_back(
    slow_spec: Spec,
    disk: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
    running: Callable[[Path, Path], Run],
    refuse: Callable[[Path], Callable[[], None]],
    words: str,
) -> None:
    store = Path(slow_spec["output"]["store"])
    run = running(write_spec(slow_spec), store)
    with run.paused_in_the_middle():
        come_back = refuse(disk)
    run.wait_for(f"waiting for the disk to work again: {words}")
    time.sleep(1.5)  # a probe in vain
    come_back()
    assert run.end() == 0, run.text
    events = kinds(store)
    assert events.count("disk_refuses") == events.count("disk_works") >= 1
    assert "unit_lost" not in events
    equal_stores(store, uninterrupted)
    assert not half_written(disk)
    assert not list(run_folder(store).parts.iterdir())


def test_a_disk_that_stays_full(
    slow_spec: Spec,
    disk: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
    running: Callable[[Path, Path], Run],
) -> None:
    """It ends within its patience with one message; what is done is kept."""
    store = Path(slow_spec["output"]["store"])
    slow_spec["cluster"]["disk_patience"] = 4
    spec_file = write_spec(slow_spec)
    run = running(spec_file, store)
    with run.paused_in_the_middle():
        fill(disk)
    run.wait_for("waiting for the disk to work again")
    begin = time.monotonic()
    assert run.end() == EXIT_CLUSTER, run.text
    assert time.monotonic() - begin < 4 + 15  # ending the workers takes its time
    message = run.text.splitlines()[-1]
    assert message.startswith("error: [Errno 28] No space left on device: cannot write ")
    assert message.endswith("(waited 4 s for the disk, cluster.disk_patience)")
    assert "Traceback" not in run.text
    assert not half_written(disk)
    done = Ledger.read(Store.open(store)).cells_done()
    assert 0 < done < 48 * 7
    (disk / "filling").unlink()
    again = hpc_sweep("run", spec_file)
    assert again.returncode == 0, again.stderr
    equal_stores(store, uninterrupted)


def test_a_disk_that_is_full_from_the_beginning(
    slow_spec: Spec, disk: Path, write_spec: WriteSpec
) -> None:
    fill(disk)
    refused = hpc_sweep("run", write_spec(slow_spec))
    assert refused.returncode == EXIT_CLUSTER
    assert refused.stderr.count("cannot write") == 1
    assert not half_written(disk)
    assert not Path(slow_spec["output"]["store"]).exists()


def test_data_that_cannot_be_read_for_a_while(
    spec: Spec,
    tmp_path: Path,
    write_spec: WriteSpec,
    uninterrupted: Path,
    running: Callable[[Path, Path], Run],
) -> None:
    """An I/O error of the input is no failure of its partitions."""
    own = make_data(tmp_path / "own.zarr")
    chunk = own / "wet" / "c" / "1" / "1" / "0"
    kept = chunk.rename(tmp_path / "kept")
    chunk.symlink_to(UNREADABLE)
    spec = slow(spec)
    spec["data"]["store"] = str(own)
    run = running(write_spec(spec), Path(spec["output"]["store"]))
    run.wait_for("waiting for the disk to work again: Input/output error: cannot read ")
    shutil.copy(kept, tmp_path / "copy")
    (tmp_path / "copy").replace(chunk)
    assert run.end() == 0, run.text
    equal_stores(Path(spec["output"]["store"]), uninterrupted)


@pytest.mark.slurm
def test_a_chain_ends_with_a_disk_that_stays_away(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec
) -> None:
    """No successor is left; the parts' folder refuses as a quota does."""
    store = Path(spec["output"]["store"])
    spec["cluster"] = {**slurm_cluster, "workers": 1, "disk_patience": 3}
    parts = run_folder(store).parts
    parts.mkdir(parents=True)
    if subprocess.run(["chattr", "+i", str(parts)], check=False).returncode:
        pytest.skip("no chattr here")
    try:
        done = hpc_sweep("submit", write_spec(slow(spec)), "--chain")
        assert done.returncode == 0, done.stderr
        wait_until_queue_is_empty(120)
    finally:
        subprocess.run(["chattr", "-i", str(parts)], check=True)
    (log,) = run_folder(store).logs.glob("driver-*.log")
    assert "Operation not permitted: cannot write " in log.read_text()
    assert "(waited 3 s for the disk, cluster.disk_patience)" in log.read_text()
    assert "cancelled the queued links" in log.read_text()
    assert kinds(store).count("run_started") == 1


@pytest.mark.slurm
def test_data_that_nodes_do_not_see(spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec) -> None:
    """It lies in the /tmp of the submit host; each node has its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        data = shutil.copytree(spec["data"]["store"], Path(folder) / "data.zarr")
        spec["data"]["store"] = str(data)
        spec["cluster"] = {**slurm_cluster, "workers": 1}
        refused = hpc_sweep("run", write_spec(spec))
    assert refused.returncode == EXIT_CLUSTER
    assert "does not see what the driver sees" in refused.stderr
    assert f"'{data}' does not exist" in refused.stderr


def test_a_unit_that_worked_brings_the_folds_that_were_refused(tmp_path: Path) -> None:
    """It was in flight when the disk refused a fold, and ends the outage before the next probe."""
    unit = Unit((0, 1), 0, 4, 0, 2)
    part = SimpleNamespace(unit=unit)
    receipt: Any = Receipt(part, 1.0, "one", 0, "")
    folded: list[Any] = []

    class Task:
        status = "finished"

        def add_done_callback(self, tell: Any) -> None: ...

    def fold(client: Any, chunk: Any, parts: Any) -> Any:
        folded.append(chunk)
        return Task()

    ledger: Any = SimpleNamespace(complete=lambda: [(0, 0)], parts={}, add=lambda part: False)
    tasks: Any = SimpleNamespace(fold=fold)
    nothing: Any = None
    outage, journal = Outage(lambda: None, 60), Journal(tmp_path / "events.jsonl")
    drive = Drive(nothing, nothing, ledger, tasks, journal, Progress(4, 0), outage, 1.0)
    drive._failed((0, 0), DiskError(errno.EROFS, "Read-only file system"))
    assert outage.error is not None
    drive._flying[good := Task()] = unit
    drive._take(good, {good: receipt})
    assert outage.error is None
    assert folded == [(0, 0)]


# what is read


def unreadable(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(UNREADABLE)


def test_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    unreadable(store.path / "zarr.json")
    with pytest.raises(DiskError, match=r"Input/output error: cannot read .*zarr\.json; restore"):
        Store.open(store.path)
    told = hpc_sweep("status", store.path)
    assert told.returncode == EXIT_CLUSTER
    assert "cannot read" in told.stderr


def test_a_status_that_cannot_be_read_is_not_pending(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    part = leave(store, invent(store), whole(store, (0, 0)))
    fold(store, (0, 0), [part])
    unreadable(store.path / "status" / "c.0.0.0")
    with pytest.raises(DiskError, match="Input/output error: cannot read"):
        Ledger.read(store)
    with pytest.raises(DiskError):
        open_results(store.path)


def test_a_part_that_cannot_be_read_is_not_missing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    part = leave(store, invent(store), whole(store, (0, 0)))
    unreadable(store.run.parts / str(part))
    for read in (lambda: Ledger.read(store), lambda: read_part(store.run.parts, part)):
        with pytest.raises(DiskError, match="Input/output error: cannot read"):
            read()


def test_a_lease_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    unreadable(path)
    with pytest.raises(DiskError, match="Input/output error: cannot read"), hold(path):
        pass
    assert path.is_symlink()


def test_a_result_that_cannot_be_read(tmp_path: Path) -> None:
    """xarray reads lazily, long after the store was opened."""
    store = make_store(tmp_path)
    for chunk in all_chunks(store):
        fold(store, chunk, [leave(store, invent(store), whole(store, chunk))])
    unreadable(store.path / "best_score" / "c.0.0")
    told = hpc_sweep("results", store.path)
    assert told.returncode == EXIT_CLUSTER
    assert told.stderr.startswith("error: [Errno 5] Input/output error: cannot use ")


# patience


class Disk:
    """Refuses until a moment of its own clock."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.now = 0.0
        self.probed: list[float] = []

    def probe(self) -> None:
        self.probed.append(self.now)
        if self.now < self.until:
            raise DiskError(errno.EDQUOT, f"still over at {self.now:g}")

    def outage(self, patience_s: float = 600.0) -> Outage:
        return Outage(self.probe, patience_s, lambda: self.now)

    def pass_until(self, outage: Outage, end: float) -> bool:
        """Let time pass in steps while the outage lasts; return whether it still does."""
        while self.now < end:
            if not outage.lasts():
                return False
            self.now += 0.5
        return True


REFUSED = DiskError(errno.ENOSPC, "no space")


def test_probes_come_with_growing_pauses() -> None:
    disk = Disk(200.0)
    outage = disk.outage()
    assert not outage.lasts()
    assert outage.begin(REFUSED)
    assert not outage.begin(REFUSED)  # the other ones that were in flight
    assert not disk.pass_until(outage, 400.0)
    pauses = [b - a for a, b in zip([0.0, *disk.probed], disk.probed, strict=False)]
    assert pauses[:5] == [FIRST_PAUSE_S, 2.0, 4.0, 8.0, 16.0]
    assert set(pauses[5:]) == {LONGEST_PAUSE_S}
    assert outage.worked()
    assert not outage.worked()


def test_patience_ends_with_what_the_disk_said_last() -> None:
    disk = Disk(1000.0)
    outage = disk.outage(20.0)
    outage.begin(REFUSED)
    with pytest.raises(DiskError, match=r"still over at 15 \(waited 20 s") as raised:
        disk.pass_until(outage, 100.0)
    assert raised.value.errno == errno.EDQUOT
    assert disk.now == 20.0


def test_a_disk_that_passes_the_probe_but_refuses_the_work_is_not_tried_for_ever() -> None:
    """A node whose mount is stale, an input that the driver does not probe."""
    disk = Disk(0.0)
    outage = disk.outage(100.0)
    outage.begin(REFUSED)
    tries = 0
    while disk.now < 100.0:
        if not outage.lasts():
            tries += 1
            outage.begin(REFUSED)
        disk.now += 0.5
    assert 4 < tries < 10
    with pytest.raises(DiskError, match="no space"):
        outage.lasts()


def test_a_disk_that_refuses_one_node_only_does_not_end_the_run() -> None:
    """That node refuses each time at once; the others finish a unit every minute."""
    disk = Disk(0.0)
    outage = disk.outage(100.0)
    tries = 0
    while disk.now < 1000.0:
        if disk.now % 60 == 59:
            assert outage.worked()
        if not outage.lasts():
            tries += 1
            assert outage.begin(REFUSED) == (disk.now % 60 == 59 or disk.now == 0)
        disk.now += 1.0
    assert tries > 1000 / LONGEST_PAUSE_S


def test_no_patience() -> None:
    outage = Disk(0.0).outage(0.0)
    outage.begin(REFUSED)
    with pytest.raises(DiskError):
        outage.lasts()


def test_a_probe_needs_room_for_more_than_a_few_bytes(tmp_path: Path) -> None:
    with small_disk(tmp_path, 400) as disk:
        probe(disk)
        fill(disk, but=20_000)
        with pytest.raises(DiskError, match="No space left"):
            probe(disk)
        assert [path.name for path in disk.iterdir()] == ["filling"]


def test_a_link_waits_for_the_disk_before_it_queues_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc_sweep import chain

    queued: list[Any] = []
    monkeypatch.setattr(chain, "_queue_successor", lambda *found: queued.append(found))
    with small_disk(tmp_path, 400) as disk:
        spec = load_spec(small_spec(tmp_path, disk / "results.zarr"))
        cluster = spec.cluster.model_copy(update={"kind": "slurm", "disk_patience": 2.0})
        spec = spec.model_copy(update={"cluster": cluster})
        run_folder(spec.output.store).make()
        fill(disk)
        with pytest.raises(DiskError, match="waited 2 s"), chain.chain_link(spec, print):
            pass
    assert queued == []
