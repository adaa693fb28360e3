"""The doctor: what it says of hosts, schedulers and a small job; the bundle for bug reports."""

from __future__ import annotations

import base64
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import fill, make_read_only, small_disk
from click.testing import CliRunner
from conftest import Spec, hpc_sweep, small_spec, wait_until_queue_is_empty

from hpc_sweep.cli import main
from hpc_sweep.clusters.certificates import make_certificates
from hpc_sweep.clusters.queue import JobState
from hpc_sweep.clusters.slurm import SlurmQueue
from hpc_sweep.doctor import host, job, scheduler
from hpc_sweep.doctor.bundle import pack
from hpc_sweep.doctor.checks import Check, Seen, Verdict, fail, look, ok, worst
from hpc_sweep.doctor.examine import examine
from hpc_sweep.doctor.job import SmallJob, _same_versions, _skew
from hpc_sweep.doctor.messages import await_message, leave
from hpc_sweep.doctor.route import call, listening, own_address
from hpc_sweep.doctor.scheduler import (
    Limits,
    Part,
    job_limits,
    parse_qstat_full,
    parse_scontrol,
    queue_limits,
)
from hpc_sweep.errors import StoreError
from hpc_sweep.redaction import without_secrets
from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.store.header import changed_header
from hpc_sweep.sweep import execute
from hpc_sweep.versions import versions

WriteSpec = Callable[[Spec], Path]


BESIDE = {Verdict.SKIPPED, Verdict.WARN}
"""What a machine that is slow or full may come to, beside ok."""


def by_name(checks: Sequence[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def local(spec: Spec, **options: Any) -> dict[str, Check]:
    return by_name(examine(load_spec(spec), with_data=True, **options))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a finished run; read only."""
    spec = small_spec(data, tmp_path_factory.mktemp("whole") / "results.zarr")
    return execute(load_spec(spec)).store.path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of that store with its run folder, where `spec` has its store."""
    for path in (whole, run_folder(whole).path):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path / whole.name


# --- this host -------------------------------------------------------------------------------


def test_a_laptop_is_well(spec: Spec, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    checks = local(spec)
    assert {check.verdict for check in checks.values()} <= {Verdict.OK, *BESIDE}
    assert "720 fits" in checks["plan"].seen
    assert sorted(tmp_path.rglob("*")) == before


def test_the_store_need_not_have_a_folder_yet(spec: Spec, tmp_path: Path) -> None:
    spec["output"]["store"] = str(tmp_path / "new" / "newer" / "results.zarr")
    assert local(spec)["durable writes"].verdict is not Verdict.FAIL
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("copy")
def test_an_existing_store_is_not_touched(spec: Spec, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    assert local(spec)["plan"].verdict is Verdict.OK
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_faults_of_data_and_models(spec: Spec, tmp_path: Path) -> None:
    spec["data"]["store"] = str(tmp_path / "absent.zarr")
    spec["models"][0]["estimator"] = "sklearn.linear_model.Rigde"
    plan = local(spec)["plan"]
    assert plan.verdict is Verdict.FAIL
    assert "absent.zarr" in plan.seen
    assert "Rigde" in plan.seen


def test_a_full_disk(spec: Spec, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        spec["output"]["store"] = str(disk / "results.zarr")
        space = local(spec)["space"]
        assert space.verdict is Verdict.FAIL
        assert space.seen.startswith("65.5 kB and ")
        assert "files needed" in space.seen
        fill(disk)
        writes = local(spec)["durable writes"]
        assert writes.verdict is Verdict.FAIL
        assert "No space left on device" in writes.seen
        make_read_only(disk)
        writes = local(spec)["durable writes"]
        assert writes.verdict is Verdict.FAIL
        assert "Read-only file system" in writes.seen


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    seen = host.open_files(100, 16)
    assert seen.verdict is Verdict.OK
    assert seen.text == "soft limit 1,024, raised up to the hard one of 4,096; 1,856 needed"
    seen = host.open_files(1000, 16)
    assert seen.verdict is Verdict.FAIL
    assert "16,256 open files" in seen.text


def test_the_advice_for_a_thousand_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many jobs that import from one network disk; the same on a local disk is well."""
    monkeypatch.setattr(host, "PRELOADED", ["json"])
    assert host.environment(1000, 63).verdict is Verdict.OK
    monkeypatch.setattr(host, "file_system", lambda path: "lustre")
    assert host.environment(16, 1).verdict is Verdict.OK
    seen = host.environment(1000, 63)
    assert seen.verdict is Verdict.WARN
    assert "1,000 workers in 63 jobs" in seen.text
    assert "15,000 small reads" in seen.remedy


@pytest.mark.parametrize(
    ("command", "verdict", "words"),
    [
        ("echo used 12 GB of 100 GB, 12%", Verdict.OK, "used 12 GB"),
        ("echo 'home 97.5 % of 10 GB'", Verdict.WARN, "97.5 %"),
        ("false", Verdict.WARN, "false failed"),
        ("no-such-quota -u me", Verdict.WARN, "no-such-quota"),
    ],
)
def test_quota(spec: Spec, command: str, verdict: Verdict, words: str) -> None:
    from hpc_sweep.doctor import examine as module

    spec["cluster"]["quota_command"] = command
    seen = module._quota(load_spec(spec), Path.cwd())
    assert seen.verdict is verdict
    assert words in seen.text


def test_scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOBFS", str(tmp_path))
    assert host.scratch("$JOBFS").verdict is not Verdict.FAIL
    assert host.scratch("$JOBFS/absent").verdict is Verdict.FAIL
    assert list(tmp_path.iterdir()) == []
    assert "counts as memory" in host.scratch("/dev/shm").remedy
    assert host.scratch("$JOBFS", 10**18).verdict is Verdict.WARN


def test_a_probe_that_breaks_is_a_failure() -> None:
    check = look("x", "here", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert (check.verdict, check.seen) == (Verdict.FAIL, "ZeroDivisionError: division by zero")


def test_the_worst_counts() -> None:
    checks = [look("a", "", lambda: ok("")), look("b", "", lambda: fail("", ""))]
    assert worst(checks) is Verdict.FAIL
    assert worst(checks[:1]) is Verdict.OK


def test_messages_come_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "hello.json"
    file.write_text('{"half": ')  # some file systems show a file before its content
    threading.Timer(0.3, lambda: leave(file, {"whole": 1})).start()
    assert await_message(file, 10) == {"whole": 1}
    assert await_message(tmp_path / "absent", 0.2) is None
    assert await_message(tmp_path / "absent", 60, still=lambda: False) is None


# --- routes ----------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    make_certificates(folder)
    return folder


def test_a_route_is_really_used(keys: Path) -> None:
    with listening("lo", keys) as address:
        assert address is not None
        assert call(address, keys, "").verdict is Verdict.OK
        assert call(address, keys, "").verdict is Verdict.OK
    seen = call(address, keys, "another interface")
    assert seen.verdict is Verdict.FAIL
    assert "Connection refused" in seen.text
    assert seen.remedy == "another interface"


def test_strangers_get_no_answer(keys: Path, tmp_path: Path) -> None:
    """Another certificate is refused on both sides."""
    others = tmp_path / "others"
    others.mkdir(mode=0o700)
    make_certificates(others)
    with listening("lo", keys) as address:
        assert address is not None
        seen = call(address, others, "")
        assert seen.verdict is Verdict.FAIL
        assert "certificate" in seen.text
        assert call(address, keys, "").verdict is Verdict.OK


def test_an_interface_that_is_not_there(keys: Path) -> None:
    with listening("ib0x", keys) as address:
        assert address is None
    assert own_address("lo") == "127.0.0.1"
    seen = host.interface("ib0x", "cluster.interface")
    assert seen.verdict is Verdict.FAIL
    assert "no interface 'ib0x'" in seen.text
    assert "lo (127.0.0.1)" in seen.text


@pytest.mark.parametrize(
    ("there", "lag", "verdict"),
    [
        (100.0, 0.1, Verdict.OK),
        (104.0, 0.1, Verdict.OK),
        (160.0, 0.1, Verdict.WARN),
        (40.0, 0.1, Verdict.FAIL),  # certificates would not be valid yet
        (115.0, 30.0, Verdict.OK),  # within what a slow file system leaves open
    ],
)
def test_clocks(there: float, lag: float, verdict: Verdict) -> None:
    assert _skew(there, 100.0, lag).verdict is verdict


# --- what schedulers say ---------------------------------------------------------------------

PARTITIONS = (
    "PartitionName=debug AllowGroups=ALL Default=YES MaxTime=01:00:00 State=UP TotalNodes=3\n"
    "PartitionName=long Default=NO MaxTime=7-00:00:00 State=UP TotalNodes=3\n"
    "PartitionName=free Default=NO MaxTime=UNLIMITED State=UP\n"
    "PartitionName=closed Default=NO MaxTime=UNLIMITED State=DOWN\n"
)
CONFIG = "MaxArraySize            = 1001\nMaxJobCount             = 10000\n"

QUEUES = """\
Queue: workq
    queue_type = Execution
    total_jobs = 12
    state_count = Transit:0 Queued:2 Held:0 Waiting:0 Running:10 Exiting:0 Begun
\t:0
    max_queued = [u:PBS_GENERIC=30],[u:alice=100]
    resources_max.ncpus = 16
    resources_max.walltime = 48:00:00
    resources_default.walltime = 01:00:00
    enabled = True
    started = True

Queue: stopped
    queue_type = Execution
    enabled = True
    started = False

Queue: full
    queue_type = Execution
    max_user_queuable = 3
    enabled = False
    started = True

"""
SERVER = """\
Server: head
    server_state = Active
    default_queue = workq
    max_array_size = 10000
    pbs_version = 23.06.06
"""
WRAPPER = (
    "Queue:\tdebug\n\tqueue_type = Execution\n\tresources_default.nodes = 3\n\tenabled = yes\n"
)


def test_slurm_limits_are_parsed() -> None:
    limits = parse_scontrol(CONFIG, PARTITIONS, "|\n20|200\n|50\n")
    assert limits.default == "debug"
    assert limits.array_size == 1001
    assert limits.jobs == 200
    assert limits.parts["long"].walltime_s == 7 * 86400
    assert limits.parts["free"].walltime_s is None
    assert limits.parts["closed"].closed == "its state is DOWN"
    assert parse_scontrol("", "") == Limits()


def test_pbs_limits_are_parsed() -> None:
    limits = parse_qstat_full(QUEUES, SERVER)
    assert limits.default == "workq"
    assert limits.array_size == 10000
    assert limits.parts["workq"] == Part("workq", "", 48 * 3600, 30)
    assert limits.parts["stopped"].closed == "its jobs do not start (started = False)"
    assert limits.parts["full"].closed == "it takes no jobs (enabled = False)"
    assert limits.parts["full"].jobs == 3
    assert parse_qstat_full(WRAPPER).parts == {"debug": Part("debug")}
    assert parse_qstat_full("") == Limits()


PBSNODES = """\
n001
     Mom = n001.cluster
     ntype = PBS
     state = job-busy
     jobs = 71.head/0, 71.head/1
     resources_available.arch = linux
     resources_available.host = n001
     resources_available.mem = 16777216kb
     resources_available.ncpus = 16
     resources_assigned.ncpus = 16

fat[0]
     state = free
     resources_available.host = fat
     resources_available.mem = 64gb
     resources_available.ncpus = 24

fat[1]
     state = free
     resources_available.host = fat
     resources_available.mem = 64gb
     resources_available.ncpus = 24

huge
     state = down,offline
     resources_available.mem = 1tb
     resources_available.ncpus = 128

head
     state = free
"""


def test_nodes_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fits nowhere would wait for ever; parts of a host count together."""
    monkeypatch.setattr(scheduler, "ask", lambda command: PBSNODES)
    monkeypatch.setattr(shutil, "which", lambda name, **options: name)
    gib = 1024**3
    assert scheduler.nodes_that_fit(8, 16 * gib).text.endswith(": 2 of 3 nodes")
    assert scheduler.nodes_that_fit(48, 128 * gib).text.endswith(": 1 of 3 nodes")
    assert scheduler.nodes_that_fit(64, 128 * gib).verdict is Verdict.WARN
    seen = scheduler.nodes_that_fit(129, gib)
    assert seen.verdict is Verdict.FAIL
    assert "the largest 128 cores and 1.1 TB" in seen.text
    monkeypatch.setattr(scheduler, "ask", lambda command: "node1\n    state = free\n    np = 4\n")
    assert scheduler.nodes_that_fit(1, 1).verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("queue", "walltime", "verdict", "words"),
    [
        (None, "00:30:00", Verdict.OK, "debug: walltime 00:30:00, longest 01:00:00"),
        ("long", "7-00:00:00", Verdict.OK, "longest 168:00:00"),
        ("free", "365-00:00:00", Verdict.OK, "no limit"),
        ("debug", "01:00:01", Verdict.FAIL, "longest 01:00:00"),
        ("closed", None, Verdict.FAIL, "its state is DOWN"),
        ("debgu", None, Verdict.FAIL, "did you mean 'debug'"),
        ("closed,long", "02:00:00", Verdict.OK, "long: walltime 02:00:00"),
        ("long,absent", "02:00:00", Verdict.FAIL, "no queue 'absent'"),
        ("long@server", "02:00:00", Verdict.OK, "long: walltime 02:00:00"),
    ],
)
def test_queue_limits(
    queue: str | None, walltime: str | None, verdict: Verdict, words: str
) -> None:
    seen = queue_limits(parse_scontrol(CONFIG, PARTITIONS), queue, walltime, "workers")
    assert seen.verdict is verdict
    assert words in seen.text
    assert seen.remedy or verdict is Verdict.OK


def test_no_queue_is_the_default() -> None:
    limits = parse_qstat_full(QUEUES)
    assert queue_limits(limits, None, None, "driver").verdict is Verdict.SKIPPED
    seen = queue_limits(limits, "stopped", None, "driver")
    assert seen.remedy == "set cluster.driver.queue to one of workq, or wait"


def test_job_limits() -> None:
    limits = parse_qstat_full(QUEUES, SERVER)
    assert job_limits(limits, None, 27).verdict is Verdict.OK
    seen = job_limits(limits, None, 28)
    assert seen.verdict is Verdict.WARN
    assert "limit of a user: 30" in seen.text
    assert "below 10,000" in seen.text


# --- the job's watch -------------------------------------------------------------------------


class Told(SlurmQueue):
    """A queue that says what it was told to; counts the questions."""

    def __init__(self, *answers: JobState | None) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.cancelled: list[str] = []

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs

    def states(self, jobs: Sequence[str]) -> list[JobState]:
        self.asked.append(time.monotonic())
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return [] if answer is None else [answer]


PENDING = JobState("7", "PENDING", "Resources", ended=False)


def test_the_queue_is_asked_politely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four questions in the first half minute, then one a minute."""
    now = [1000.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    queue = Told(PENDING)
    watched = SmallJob(queue, "7", _began=now[0])
    for _ in range(3000):
        assert watched.may_answer()
        now[0] += 0.1
    assert len(queue.asked) == 8
    assert [round(at - 1000) for at in queue.asked[:6]] == [3, 7, 15, 30, 90, 150]


@pytest.mark.parametrize("ended", [None, JobState("7", "FAILED", "NonZeroExitCode", ended=True)])
def test_a_job_that_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, ended: JobState | None
) -> None:
    """Its files may show late; a queue without history forgets the job."""
    now = [0.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    watched = SmallJob(Told(PENDING, ended), "7", _began=0.0)
    while watched.may_answer():
        now[0] += 0.1
        assert now[0] < 60
    assert now[0] == pytest.approx(7 + job.SETTLE_S, abs=0.3)


def test_why_a_job_did_not_start(tmp_path: Path) -> None:
    def why(state: str, reason: str) -> Seen:
        told = SmallJob(Told(JobState("7", state, reason, ended=False)), "7")
        return job._why_silent(told, tmp_path, 5)

    for passing in (
        *("", "Priority", "Resources", "QOSMaxJobsPerUserLimit", "AssocGrpCpuLimit"),
        "ReqNodeNotAvail, Reserved for maintenance",
        "Not Running: Insufficient amount of resource: ncpus",
        "Not Running: User has reached queue workq running job limit.",
    ):
        assert why("PENDING", passing).verdict is Verdict.WARN, passing
    for lasting in (
        *("PartitionDown", "PartitionTimeLimit", "InvalidAccount", "AssocGrpCPUMinutesLimit"),
        *("JobHeldUser", "Not Running: Queue not started.", "ReqNodeNotAvail, UnavailableNodes:x"),
    ):
        assert why("PENDING", lasting).verdict is Verdict.FAIL, lasting
    never = why("QUEUED", "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 2)")
    assert never.verdict is Verdict.FAIL
    assert "R: 64" in never.text
    assert "seen here" in why("RUNNING", "None").text


def test_versions_of_both_sides() -> None:
    here = versions()
    assert _same_versions(dict(here)).verdict is Verdict.OK
    assert "other there" in _same_versions({**here, "cpu": "other"}).text
    patched = {**here, "dask": here["dask"] + ".post1"}
    assert _same_versions(patched).verdict is Verdict.WARN
    seen = _same_versions({**here, "scikit-learn": "0.1.0"})
    assert seen.verdict is Verdict.FAIL
    assert f"scikit-learn {here['scikit-learn']} here, 0.1.0 there" in seen.text
    seen = _same_versions({"error": "No package metadata was found for zarr"})
    assert seen.verdict is Verdict.FAIL
    assert seen.text.startswith("No package metadata was found for zarr, python")


# --- the command -----------------------------------------------------------------------------


def test_without_a_scheduler(
    spec: Spec, tmp_path: Path, write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec["cluster"] = {"kind": "pbs", "workers": 2, "memory": "1GB"}
    file = write_spec(spec)
    monkeypatch.setattr(shutil, "which", lambda name, **options: None)
    shown = CliRunner().invoke(main, ["doctor", str(file), "--json"])
    assert shown.exit_code == 3, shown.output
    said = json.loads(shown.stdout)
    assert said["verdict"] == "fail"
    checks = {check["name"]: check for check in said["checks"]}
    assert checks["scheduler commands"]["seen"] == "qsub, qstat, qdel not on PATH"
    assert checks["small job"]["verdict"] == "skipped"
    assert set(tmp_path.iterdir()) == {file}


def test_a_profile_without_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind is the profile's, whatever commands are here."""
    machines = tmp_path / "config" / "hpc-sweep" / "machines"
    machines.mkdir(parents=True)
    text = "description: mine\nkind: local\nquota_command: echo 99 % used\n"
    (machines / "mine.yaml").write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, ["doctor", "--set", "cluster.machine=mine", "--json"])
    assert shown.exit_code == 0, shown.output
    said = json.loads(shown.stdout)
    assert said["verdict"] == "warn"
    assert {c["name"]: c["seen"] for c in said["checks"]}["quota"] == "99 % used"


def test_without_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, ["doctor", "--cluster", "local"])
    assert shown.exit_code == 0, shown.output
    assert "durable writes" in shown.output
    assert list(tmp_path.iterdir()) == []


def test_bad_specs_are_spec_errors(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["doctor", str(tmp_path / "absent.yaml")])
    assert shown.exit_code == 2
    shown = CliRunner().invoke(main, ["doctor", "--cluster", "slrum"])
    assert shown.exit_code == 2
    assert "did you mean 'slurm'" in shown.output


# --- bundles ---------------------------------------------------------------------------------


def key_material(folder: Path) -> list[bytes]:
    """Return lines that only keys and certificates have."""
    lines = b"\n".join(file.read_bytes() for file in folder.glob("*.pem")).splitlines()
    return [line for line in lines if len(line) > 40]


@pytest.fixture
def ran(copy: Path) -> tuple[Path, list[bytes]]:
    """Return a store whose driver was killed: its keys are still there; and their content."""
    store, run = copy, run_folder(copy)
    make_certificates(run.keys)
    secret = key_material(run.keys)
    assert secret
    leaked = (run.keys / "key.pem").read_text()
    (run.logs / "job-1.log").write_text(f"start\n{leaked}\nafter the key\n")
    (run.logs / "job-2.log").write_text(leaked[len(leaked) // 2 :] + "after half a key\n")
    (run.logs / "job-3.log").write_text("before half a key\n" + leaked[: len(leaked) // 2])
    (run.logs / "job-4.log").symlink_to(run.keys / "key.pem")
    shutil.copytree(run.keys, run.path / "keys-4711")  # another account's
    (run.path / "events-1-of-2.jsonl").write_text('{"event": "of a share"}\n')
    (run.logs / "job-5.log").write_text(json.dumps({"text": leaked}))
    run.spec.write_text(
        json.dumps({"url": "s3://me:hunter2@host/x", "token": "abc123", "tokenizer": "char"})
    )
    return store, secret


def test_a_bundle_has_no_keys(ran: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    store, secret = ran
    file = tmp_path / "report.zip"
    shown = CliRunner().invoke(main, ["doctor", "--bundle", str(file), str(store)])
    assert shown.exit_code == 0, shown.output
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    everything = b"\n".join([*content.values(), *(name.encode() for name in content)])
    for line in secret:
        assert line not in everything
        assert base64.b64encode(line) not in everything
    for word in (b"PRIVATE KEY", b"hunter2", b"abc123", b".pem"):
        assert word not in everything
    assert not [name for name in content if "keys" in name]
    assert b"after the key" in content["logs/job-1.log"]
    assert b"after half a key" in content["logs/job-2.log"]
    assert b"before half a key" in content["logs/job-3.log"]
    assert "logs/job-4.log" not in content
    assert b"of a share" in content["events-1-of-2.jsonl"]
    assert json.loads(content["spec.json"])["tokenizer"] == "char"
    assert json.loads(content["versions.json"])["hpc-sweep"]
    assert b"Ridge" in content["store.json"]
    assert content["events.jsonl"].count(b"\n") == len(list(read_events(run_folder(store).events)))


def test_a_bundle_has_the_scripts(ran: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    store, _ = ran
    with changed_header(store) as header:
        header["spec"]["cluster"].update(kind="slurm", queue="compute", memory=4_000_000_000)
    run_folder(store).script.write_text("#!/bin/bash\nexport API_KEY=abc123\n")
    pack(store, tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        assert "#SBATCH -p compute" in archive.read("worker.sh").decode()
        assert archive.read("driver.sh").decode().endswith('API_KEY="[removed]"\n')


def test_bundles_keep_the_ends_of_logs(ran: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    store, _ = ran
    noise = "".join(f"{secrets.token_hex(40)}\n" for _ in range(20_000))
    (run_folder(store).logs / "long.log").write_text(noise + "the end\n")
    pack(store, tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        text = archive.read("logs/long.log").decode()
    assert text.endswith("the end\n")
    assert len(text) == 100_000


def test_no_bundle(ran: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    store, _ = ran
    with pytest.raises(StoreError, match="nothing to pack"):
        pack(tmp_path / "absent.zarr", tmp_path / "report.zip")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        pack(store, tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    shown = CliRunner().invoke(main, ["doctor", "--bundle", str(tmp_path / "x.zip")])
    assert shown.exit_code == 2


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pw@host/p and https://host/p", "https://[removed]@host/p and https://host/p"),
        ("AWS_SECRET_ACCESS_KEY=abc next", 'AWS_SECRET_ACCESS_KEY="[removed]" next'),
        ('{"password": "a b", "n": 1}', '{"password": "[removed]", "n": 1}'),
        ("tokenizer: char, token_pattern: x", "tokenizer: char, token_pattern: x"),
        ("----- begin -----", "----- begin -----"),
    ],
)
def test_secrets_are_removed(text: str, left: str) -> None:
    assert without_secrets(text) == left


# --- a real Slurm ----------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files show at once here, so a job that ended is not waited for."""
    monkeypatch.setattr(job, "SETTLE_S", 1.0)


@pytest.mark.slurm
@pytest.mark.usefixtures("copy")
def test_on_slurm(spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, tmp_path: Path) -> None:
    """All is well; nothing is left, no job and no file."""
    file = write_spec({**spec, "cluster": slurm_cluster})
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    done = hpc_sweep("doctor", file, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    slow = {"durable writes", "space", "environment", "local scratch"}  # a busy or small machine
    assert {c["verdict"] for c in checks if c["name"] not in slow} == {"ok", "skipped"}, checks
    assert not [check for check in checks if check["verdict"] == "fail"]
    on_node = {check["name"] for check in checks if check["where"].startswith("node")}
    assert on_node == {
        *("small job", "shared folder", "clock", "versions", "environment", "data", "models"),
        *("durable writes", "open files", "local scratch", "interface", "route to the driver"),
    }
    wait_until_queue_is_empty()
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


@pytest.mark.slurm
def test_what_a_node_lacks(spec: Spec, slurm_cluster: Spec) -> None:
    """Data in the login node's own /tmp, and an interface that the nodes do not have."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="login-only-") as folder:
        shutil.copytree(spec["data"]["store"], f"{folder}/data.zarr")
        spec["data"]["store"] = f"{folder}/data.zarr"
        spec["cluster"] = {**slurm_cluster, "interface": "ib0"}
        checks = local(spec)
    assert checks["plan"].verdict is Verdict.OK
    assert checks["data"].verdict is Verdict.FAIL
    assert "data.zarr" in checks["data"].seen
    assert checks["interface"].verdict is Verdict.FAIL
    assert "no interface 'ib0'" in checks["interface"].seen
    assert "eth0 (10.77." in checks["interface"].seen
    assert checks["route to the driver"].verdict is Verdict.OK
    wait_until_queue_is_empty()


@pytest.mark.slurm
def test_no_way_back(spec: Spec, slurm: Any, slurm_cluster: Spec) -> None:
    """The driver's interface is one that nodes cannot reach."""
    spec["cluster"] = {**slurm_cluster, "scheduler_interface": "lo"}
    checks = local(spec)
    assert checks["route to the driver"].verdict is Verdict.FAIL
    assert "Connection refused" in checks["route to the driver"].seen
    assert slurm.bridge in checks["route to the driver"].remedy


@pytest.mark.slurm
@pytest.mark.usefixtures("quick")
def test_a_folder_that_nodes_do_not_see(spec: Spec, slurm_cluster: Spec) -> None:
    spec["cluster"] = slurm_cluster
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="login-only-") as folder:
        spec["output"]["store"] = f"{folder}/results.zarr"
        checks = local(spec)
        assert os.listdir(folder) == []
    small = checks["small job"]
    assert small.verdict is Verdict.FAIL
    assert "ended without a word" in small.seen
    assert f"nodes must see {folder}" in small.remedy
    wait_until_queue_is_empty()


@pytest.mark.slurm
@pytest.mark.usefixtures("quick")
def test_an_environment_without_the_package(
    spec: Spec, slurm_cluster: Spec, tmp_path: Path
) -> None:
    """The end of the job's own log is in the verdict."""
    (tmp_path / "other" / "hpc_sweep").mkdir(parents=True)
    (tmp_path / "other" / "hpc_sweep" / "__init__.py").write_text("")
    prologue = [f"export PYTHONPATH={tmp_path / 'other'}"]
    spec["cluster"] = {**slurm_cluster, "prologue": prologue}
    small = local(spec)["small job"]
    assert small.verdict is Verdict.FAIL
    assert "NonZeroExitCode" in small.seen
    assert "No module named 'hpc_sweep.doctor'" in small.seen
    assert f"nodes must see {tmp_path} and {sys.prefix}" in small.remedy


@pytest.mark.slurm
def test_jobs_that_pend_or_are_refused(spec: Spec, slurm_cluster: Spec) -> None:
    spec["cluster"] = {**slurm_cluster, "queue": "closed"}
    checks = local(spec, wait_s=4.0)
    assert checks["queue of the workers"].seen == "closed: its state is DOWN"
    assert checks["small job"].verdict is Verdict.FAIL
    assert "did not start within 4 s: PENDING (PartitionDown)" in checks["small job"].seen
    wait_until_queue_is_empty()
    spec["cluster"] = {**slurm_cluster, "queue": "nonesuch", "memory": "900GB"}
    checks = local(spec)
    assert "no queue 'nonesuch'" in checks["queue of the workers"].seen
    assert "Invalid partition name specified" in checks["small job"].seen
    assert checks["worker job"].verdict is Verdict.FAIL
    spec["cluster"] = {**slurm_cluster, "memory": "900GB"}
    refused = local(spec, with_job=False)["worker job"]
    assert "Requested node configuration is not available" in refused.seen


@pytest.mark.slurm
def test_inside_a_job(spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec) -> None:
    """A submitted driver is on a node: routes between two nodes, not the login node's interface."""
    cluster = {**slurm_cluster, "directives": ["--exclude=node1"]}
    file = write_spec({**spec, "cluster": cluster})
    srun = ["srun", "--partition=debug", "--mem=1G", "--nodelist=node1"]
    command = [sys.executable, "-m", "hpc_sweep", "doctor", str(file), "--json"]
    done = subprocess.run([*srun, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    for name in ("route to the driver", "route to a worker"):
        assert checks[name]["seen"].startswith("connected to 10.77."), checks[name]
    assert checks["driver's interface"]["where"] == "node1"
    assert checks["small job"]["where"] in ("node2", "node3")


@pytest.mark.slurm
def test_a_full_disk_on_a_queue(spec: Spec, slurm_cluster: Spec, tmp_path: Path) -> None:
    """All other checks are made all the same."""
    spec["cluster"] = slurm_cluster
    with small_disk(tmp_path) as disk:
        spec["output"]["store"] = str(disk / "results.zarr")
        fill(disk)
        checks = local(spec)
    assert checks["durable writes"].verdict is Verdict.FAIL
    assert checks["queue of the workers"].verdict is Verdict.OK
    assert checks["small job"].seen == "its files cannot be written"


@pytest.mark.slurm
def test_driver_and_workers_in_one_job(spec: Spec, slurm_cluster: Spec) -> None:
    """The job that would be submitted is asked about, and no other one."""
    whole = {"place": "one_job", "workers": None, "nodes": 3, "workers_per_node": 4}
    spec["cluster"] = {**slurm_cluster, **whole, "driver": {"memory": "1GB"}}
    checks = local(spec, with_job=False)
    assert "worker job" not in checks
    assert "queue of the workers" not in checks
    assert checks["driver job"].verdict is Verdict.OK
    spec["cluster"]["nodes"] = 4
    refused = local(spec, with_job=False)["driver job"]
    assert refused.verdict is Verdict.FAIL
    assert "More processors requested than permitted" in refused.seen


@pytest.mark.slurm
def test_a_stopped_doctor_leaves_nothing(
    spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, tmp_path: Path
) -> None:
    file = write_spec({**spec, "cluster": {**slurm_cluster, "queue": "closed"}})
    command = [sys.executable, "-m", "hpc_sweep", "doctor", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("submitted job ")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)  # the login ends too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("stopped by SIG")
    assert "Traceback" not in said
    wait_until_queue_is_empty()
    assert set(tmp_path.iterdir()) == {file}
