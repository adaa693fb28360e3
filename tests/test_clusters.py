"""One suite for every kind of cluster: the same sweep, the same store, nothing left behind."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from conftest import (
    Spec,
    equal_stores,
    forked,
    small_spec,
    wait_until_queue_is_empty,
)
from cryptography import x509
from distributed.batched import BatchedSend
from outside import OutsideCluster
from tornado.ioloop import IOLoop

from hpc_sweep.clusters import KINDS, make_cluster, make_queue
from hpc_sweep.clusters.base import settings
from hpc_sweep.clusters.certificates import make_certificates, remove_certificates
from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.pbs import Pbs, parse_qstat
from hpc_sweep.clusters.queue import JobState, QueueSilentError, is_temporary
from hpc_sweep.clusters.recording import queue_words
from hpc_sweep.clusters.slurm import Slurm, parse_squeue
from hpc_sweep.clusters.timing import keep_time
from hpc_sweep.errors import ClusterError, SpecError
from hpc_sweep.spec import ClusterSpec, load_spec
from hpc_sweep.sweep import execute


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store that every kind has to equal."""
    spec = small_spec(data, tmp_path_factory.mktemp("reference") / "whole.zarr")
    return execute(load_spec(spec)).store.path


@pytest.fixture
def external(tmp_path: Path) -> Iterator[Spec]:
    """Start a scheduler and two workers by Dask's own commands; return the cluster section."""
    cluster = OutsideCluster(tmp_path)
    cluster.start()
    try:
        yield cluster.section
    finally:
        cluster.stop()


@pytest.fixture(params=[*KINDS, "importable"])
def cluster_section(request: pytest.FixtureRequest) -> Spec:
    """Return one ``cluster`` section for each kind."""
    if request.param == "slurm":
        section: Spec = request.getfixturevalue("slurm_cluster")
        return section
    if request.param == "pbs":
        if shutil.which("qsub") is None and os.environ.get("CI") != "true":
            pytest.skip("no qsub: slurm-wlm-torque is not installed")
        pbs: Spec = {**request.getfixturevalue("slurm_cluster"), "kind": "pbs"}
        return pbs
    if request.param == "external":
        external: Spec = request.getfixturevalue("external")
        return external
    if request.param == "importable":
        options = {"n_workers": 0, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        return {"kind": "distributed:LocalCluster", "workers": 2, "options": options}
    return {"kind": request.param, "workers": 2}


def test_conformance(
    cluster_section: Spec,
    spec: Spec,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every kind gives the store of a local run, and ends what it started.

    Of somebody else's scheduler there is no report, and nothing is said of that.
    """
    monkeypatch.setattr("hpc_sweep.sweep.performance.LEAST_S", 0.0)
    monkeypatch.chdir(tmp_path)  # Slurm's qsub leaves its logs there
    before = set(psutil.Process().children(recursive=True))
    spec["cluster"] = cluster_section
    texts: list[str] = []
    outcome = execute(load_spec(spec), say=texts.append)
    assert outcome.counts == {**outcome.counts, "done": 46, "empty": 2}
    equal_stores(outcome.store.path, reference)
    reports = outcome.store.run.performance_reports()
    assert len(reports) == (cluster_section["kind"] == "local")
    assert "no performance report" not in str(texts)
    assert not list(outcome.store.run.keys.iterdir())
    assert not outcome.store.run.lease.exists()
    if cluster_section["kind"] in ("slurm", "pbs"):
        wait_until_queue_is_empty()
    elif cluster_section["kind"] != "external":
        left = set(psutil.Process().children(recursive=True)) - before
        # multiprocessing's own, one of each, end with this process
        servers = ("resource_tracker", "forkserver")
        assert not [child for child in left if not any(s in str(child.cmdline()) for s in servers)]
        assert not forked(psutil.Process())


@pytest.mark.parametrize("name", ["distributed", "distributed.client", "distributed.scheduler"])
def test_dask_says_nothing_itself(name: str) -> None:
    """A scheduler that was killed had the client print a traceback before our message."""
    logger = logging.getLogger(name)
    before = logger.getEffectiveLevel()
    with settings():
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.getEffectiveLevel() == before


def test_dask_goes_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message waited until the clock had caught up, and with it the whole run."""
    keep_time()
    now = time.time()

    async def send() -> None:
        sender = BatchedSend(interval="10ms", loop=IOLoop.current())
        written = asyncio.Event()

        class Comm:
            def closed(self) -> bool:
                return False

            async def close(self) -> None: ...

            async def write(self, payload: list[str], **options: Any) -> int:
                monkeypatch.setattr("time.time", lambda: now - 3600)
                if "second" in payload:
                    written.set()
                else:
                    sender.send("second")
                return 1

        sender.start(Comm())
        sender.send("first")
        await asyncio.wait_for(written.wait(), 30)
        await sender.close()

    asyncio.run(send())


def test_no_external_scheduler(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.clusters.external.CONNECT_S", 1)
    spec["cluster"] = {"kind": "external", "address": "tcp://127.0.0.1:9"}
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        execute(load_spec(spec))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"scheduler_file": "absent.json"}, "absent.json' does not exist"),
        ({"address": "127.0.0.1:8786"}, "must begin with tcp:// or tls://"),
        ({"address": "tls://127.0.0.1:8786"}, "needs ca_file, cert and key"),
    ],
)
def test_external_faults(spec: Spec, section: Spec, words: str) -> None:
    spec["cluster"] = {"kind": "external", **section}
    with pytest.raises(SpecError, match=words):
        execute(load_spec(spec))


def test_a_class_that_does_not_start(spec: Spec) -> None:
    spec["cluster"] = {"kind": "json:JSONDecoder", "options": {"no_such_option": 1}}
    with pytest.raises(ClusterError, match=r"json:JSONDecoder did not start: .*no_such_option"):
        execute(load_spec(spec))


def test_a_worker_is_killed_while_the_cluster_starts(spec: Spec, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    spec["cluster"] = {"kind": "local", "workers": 1, "options": {"preload": [str(deadly)]}}
    before = {*psutil.Process().children(recursive=True)}
    with pytest.raises(ClusterError, match=r"did not start: .*; run the same command again"):
        execute(load_spec(spec))
    left = {*psutil.Process().children(recursive=True)} - before
    assert not [child for child in left if "spawn_main" in str(child.cmdline())]


def test_no_workers_come(spec: Spec) -> None:
    """A cluster without workers ends at the deadline with one message."""
    options = {"n_workers": 0, "dashboard_address": "127.0.0.1:0"}
    spec["cluster"] = {"kind": "distributed:LocalCluster", "options": options, "start_timeout": 2}
    with pytest.raises(ClusterError, match=r"no worker within 2 s \(cluster.start_timeout\)"):
        execute(load_spec(spec))


def test_certificates_are_private_and_replaced(tmp_path: Path) -> None:
    first = make_certificates(tmp_path)
    text = (tmp_path / "key.pem").read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    second = make_certificates(tmp_path)
    assert (tmp_path / "key.pem").read_text() != text
    assert first.tls_worker_key == second.tls_worker_key == str(tmp_path / "key.pem")
    made = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    age = datetime.datetime.now(datetime.UTC) - made.not_valid_before_utc
    assert age > datetime.timedelta(days=2)  # a node's clock may be behind
    remove_certificates(tmp_path)
    assert not list(tmp_path.iterdir())


def job_script(
    cluster: type[JobQueue],
    section: Spec,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Any = None,
) -> str:
    """Return the script of a worker job; needs no queue."""
    import dask_jobqueue.config  # noqa: F401  (reads jobqueue.yaml)

    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.sys.executable", "/opt/env/bin/python")
    name = f"jobqueue.{cluster.queue.kind}"
    with dask.config.set({name: {**dask.config.get(name), **(config or {})}}):
        kind = ClusterSpec(kind=cluster.queue.kind, **section)
        made = cluster(kind, folder, lambda event, **facts: None)
        script = made.job_script().replace(str(folder), "FOLDER")
    assert not folder.exists()
    return script


@pytest.mark.parametrize("cluster", [Slurm, Pbs])
def test_job_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: type[JobQueue]
) -> None:
    section = {
        "workers": 8,
        "workers_per_node": 4,
        "memory": "2GB",
        "queue": "compute",
        "account": "p42",
        "walltime": "02:00:00",
        "directives": ["--constraint=haswell"] if cluster is Slurm else ["-r n"],
        "prologue": ["module load python"],
    }
    script = job_script(cluster, section, tmp_path / "x.zarr.run", monkeypatch)
    golden = Path(__file__).parent / "golden" / f"{cluster.queue.kind}-worker.sh"
    assert script == golden.read_text()


def test_the_users_jobqueue_yaml_is_the_ground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "memory": "8GB",
        "processes": 4,
        "cores": 4,
        "queue": "theirs",
        "account": "theirs",
        "job-script-prologue": ["module load theirs"],
        "job-extra-directives": ["--qos=theirs"],
    }
    section = {"queue": "mine", "directives": ["--constraint=mine"]}
    script = job_script(Slurm, section, tmp_path / "x.zarr.run", monkeypatch, config)
    for line in (
        "#SBATCH -p mine",
        "#SBATCH -A theirs",
        "#SBATCH --qos=theirs",
        "#SBATCH --constraint=mine",
        "#SBATCH --cpus-per-task=4",
        "module load theirs",
    ):
        assert line in script.splitlines()
    assert "-p theirs" not in script
    assert "--nworkers 4" in script


def test_slurm_needs_memory_and_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = make_cluster(ClusterSpec(kind="slurm"), tmp_path / "a b.run", print)
    assert [fault.path for fault in cluster.faults()] == [
        "cluster.kind",
        "cluster.memory",
        "output.store",
    ]


def test_pbs_states_and_why_jobs_wait() -> None:
    why = "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 2 T: 2)"
    jobs = {
        "2.host": {"job_state": "Q", "comment": why},
        "4.host": {
            "job_state": "R",
            "resources_used": {"walltime": "00:01:02"},
            "Resource_List": {"walltime": "02:00:00"},
        },
        "5.host": {"job_state": "F", "Exit_status": 271},
    }
    text = json.dumps({"timestamp": 1, "pbs_version": "23.06", "Jobs": jobs})
    assert parse_qstat(text) == [
        JobState("2.host", "QUEUED", why, ended=False),
        JobState("4.host", "RUNNING", "", ended=False, ran_s=62.0, left_s=7138.0),
        JobState("5.host", "FINISHED", "", ended=True),
    ]
    assert parse_qstat('{"timestamp": 1}') == []


def test_pbs_tells_the_time_used_late() -> None:
    """So the time left is counted from the start, as soon as that is more."""
    started = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 300))
    used, asked = {"walltime": "00:02:00"}, {"walltime": "01:00:00"}
    job = {"job_state": "R", "stime": started, "resources_used": used, "Resource_List": asked}
    (state,) = parse_qstat(json.dumps({"Jobs": {"4.host": job}}))
    assert state.left_s == pytest.approx(3300, abs=3)


def test_pbs_in_its_long_form() -> None:
    """The form that qstat(1B) documents, for servers whose JSON is broken by a value."""
    text = (
        "Job Id: 4.host\n"
        "    Job_Name = a = b\n"
        "    resources_used.walltime = 00:01:02\n"
        "    job_state = R\n"
        "    Resource_List.mem = 1gb\n"
        "    Resource_List.walltime = 02:00:00\n"
        "    Variable_List = PBS_O_HOME=/home/me,PBS_O_PATH=/bin:/usr/bi\n"
        "\tn,PBS_O_SHELL=/bin/bash\n"
        "\n"
        "Job Id: 5[].host\n"
        "    job_state = Q\n"
        "    comment = Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 2 T\n"
        "\t: 2)\n"
    )
    why = "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 2 T: 2)"
    assert parse_qstat(text) == [
        JobState("4.host", "RUNNING", "", ended=False, ran_s=62.0, left_s=7138.0),
        JobState("5[].host", "QUEUED", why, ended=False),
    ]


def test_pbs_whose_json_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for qstat."""
    stub = tmp_path / "qstat"
    stub.write_text(
        "#!/bin/bash\n"
        """[[ " $* " == *" json "* ]] && { echo '{"Jobs": {"4.host": {"x": 007}}}'; exit; }\n"""
        "printf 'Job Id: 4.host\\n    job_state = F\\n'\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert make_queue("pbs").states(["4.host"]) == [JobState("4.host", "FINISHED", "", ended=True)]


def test_pbs_without_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for qstat of a server that keeps none, and knows one of two jobs."""
    stub = tmp_path / "qstat"
    stub.write_text(
        "#!/bin/bash\n"
        '[[ $1 == -x ]] && { echo "qstat: job_history_enable is not set" >&2; exit 1; }\n'
        '[[ " $* " == *" 3.host "* ]] && { echo "qstat: Unknown Job Id 3.host" >&2; exit 153; }\n'
        """echo '{"Jobs": {"4.host": {"job_state": "R"}}}'\n"""
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert make_queue("pbs").states(["3.host", "4.host"]) == [
        JobState("4.host", "RUNNING", "", ended=False)
    ]


def test_pbs_by_slurms_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the qstat of slurm-wlm-torque, as it answered, which knows two of three jobs.

    It does not tell since when a job runs.
    """
    stub = tmp_path / "qstat"
    stub.write_text(
        "#!/bin/bash\n"
        '[[ $1 == -x ]] && { printf "Unknown option: x\\nUsage:\\n    qstat\\n" >&2; exit 2; }\n'
        '[[ $* == "-f 3" ]] && exit 153\n'
        "walltime='Resource_List.walltime = 00:30:00'\n"
        'printf "Job Id:\\t4\\n\\tjob_state = R\\n\\t$walltime\\n\\n"\n'
        'printf "Job Id:\\t5\\n\\tjob_state = C\\n\\t$walltime\\n\\n"\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert make_queue("pbs").states(["3", "4", "5"]) == [
        JobState("4", "RUNNING", "", ended=False),
        JobState("5", "COMPLETED", "", ended=True),
    ]
    assert make_queue("pbs").states(["3"]) == []


@pytest.mark.parametrize("text", ["", "qstat: cannot connect"])
def test_pbs_says_nothing(text: str) -> None:
    with pytest.raises(QueueSilentError):
        parse_qstat(text)


def test_slurm_states() -> None:
    text = (
        "12|PENDING|0:00|10:00|Resources\n"
        "13|RUNNING|1-02:03:04|UNLIMITED|None\n"
        "14|NODE_FAIL|0:05|9:55|NodeDown\n"
    )
    assert parse_squeue(text) == [
        JobState("12", "PENDING", "Resources", ended=False, ran_s=0.0, left_s=600.0),
        JobState("13", "RUNNING", "None", ended=False, ran_s=93784.0),
        JobState("14", "NODE_FAIL", "NodeDown", ended=True, ran_s=5.0, left_s=595.0),
    ]


@pytest.mark.parametrize(
    ("words", "temporary"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", True),
        ("qsub: would exceed complex's per-user limit", True),
        ("qsub: cannot connect to server host (errno=111)", True),
        ("sbatch: error: invalid partition specified: x", False),
        ("qsub: Unknown queue", False),
    ],
)
def test_what_only_asks_to_wait(words: str, temporary: bool) -> None:
    assert is_temporary(words) is temporary


@pytest.mark.parametrize(
    ("stdout", "stderr", "words"),
    [
        ("", "qsub: Unknown queue\n", "qsub: Unknown queue"),
        ("sbatch: error: invalid partition\n", "", "sbatch: error: invalid partition"),
        ("", "a\n  b\n", "a; b"),
    ],
)
def test_the_words_of_a_rejection(stdout: str, stderr: str, words: str) -> None:
    """The form is that of dask_jobqueue.core.Job._call."""
    error = (
        "Command exited with non-zero exit code.\nExit code: 170\nCommand:\nqsub /tmp/x.sh\n"
        f"stdout:\n{stdout}\nstderr:\n{stderr}\n"
    )
    assert queue_words(error) == words
    assert queue_words("[Errno 2] No such file: 'qsub'") == "[Errno 2] No such file: 'qsub'"
