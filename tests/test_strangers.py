"""Another user of the same host: no way to scheduler, workers, nannies, pages or keys."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from conftest import Spec, start_run

from hpc_sweep.clusters import make_cluster
from hpc_sweep.errors import SpecError
from hpc_sweep.prepare import prepare
from hpc_sweep.spec import ClusterSpec, load_spec
from hpc_sweep.store import read_events, run_folder

WriteSpec = Callable[[Spec], Path]
UID = 64123
STRANGER = Path(__file__).with_name("stranger.py")
as_root = pytest.mark.skipif(
    os.getuid() != 0 and os.environ.get("CI") != "true", reason="only root can become others"
)


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Return where a process accepts TCP connections, in its own network namespace."""
    proc = Path(f"/proc/{process.pid}")
    links = [str(link.readlink()) for link in (proc / "fd").iterdir() if link.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for line in (proc / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            address, port = fields[1].split(":")
            host = socket.inet_ntoa(struct.pack("<I", int(address, 16)))
            found.append(("127.0.0.1" if host == "0.0.0.0" else host, int(port, 16)))
    return found


def unix_sockets(process: psutil.Process) -> list[str]:
    """Return the Unix sockets that a process listens on; abstract ones begin with @."""
    return [c.laddr for c in process.net_connections(kind="unix") if c.laddr]


def tried(
    processes: list[psutil.Process],
    store: Path,
    inside: psutil.Process | None = None,
    more: list[tuple[str, int]] | None = None,
) -> dict[str, list[str]]:
    """Return what a stranger gets at.

    Parameters
    ----------
    processes : list of psutil.Process
        Whose ports, sockets and memory he tries.
    store : Path
        Whose run folder he reads.
    inside : psutil.Process, optional
        He is in this process's network namespace.
    more : list, optional
        Further ports.
    """
    keys = run_folder(store).keys
    files = [str(path) for path in (store.parent / "sweep.yaml", keys, *keys.glob("*"))]
    files += [
        str(path)
        for path in (
            store.parent / "nothing",
            run_folder(store).parts / ".." / keys.name / "key.pem",
        )
    ]
    for process in processes:
        proc = f"/proc/{process.pid}"
        files += [f"{proc}/root{keys}/key.pem", f"{proc}/environ", f"{proc}/fd", f"{proc}/mem"]
    target = {
        "uid": UID,
        "ports": sorted({place for p in processes for place in listening(p)} | set(more or ())),
        "files": files,
        "sockets": [path for p in processes for path in unix_sockets(p)],
    }
    command = [sys.executable, str(STRANGER)]
    if inside is not None:
        command = ["nsenter", f"--net=/proc/{inside.pid}/ns/net", *command]
    done = subprocess.run(
        command, input=json.dumps(target), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    found["tried"] = [f"{host}:{port}" for host, port in target["ports"]]
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody may read, as a project folder of a cluster; on all nodes."""
    umask = os.umask(0o022)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
    os.umask(umask)


@pytest.fixture
def long_spec(spec: Spec, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """Make a run long enough for a visit."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("TEST_SLOW_FIT", "2")
    monkeypatch.setenv("TEST_SLOW_LOG", os.devnull)
    spec["models"] = [{"estimator": "faulty.Slow"}]
    spec["output"] = {"store": str(open_folder / "results.zarr")}
    return spec


@pytest.fixture
def write_spec(open_folder: Path) -> WriteSpec:
    """Return a function that writes a spec where everybody can read it."""

    def write(spec: Spec) -> Path:
        path = open_folder / "sweep.yaml"
        path.write_text(json.dumps(spec))
        return path

    return write


def wait_for_workers(store: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run has handed out units."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        events = [event["event"] for event in read_events(run_folder(store).events)]
        if "unit_started" in events:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("no unit was handed out within a minute")


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    driver = psutil.Process(process.pid)
    return [driver, *driver.children(recursive=True)]


def nothing_but_the_spec(found: dict[str, list[str]], store: Path) -> None:
    """Fail unless the stranger saw the public file, and that only."""
    assert found.pop("files") == [str(store.parent / "sweep.yaml")]
    assert len(found.pop("tried")) >= 4
    assert found == {
        "plain": [],
        "anonymous tls": [],
        "own certificate": [],
        "pages": [],
        "sockets": [],
    }


@as_root
def test_local_run(long_spec: Spec, write_spec: WriteSpec) -> None:
    store = Path(long_spec["output"]["store"])
    process = start_run(write_spec(long_spec))
    try:
        wait_for_workers(store, process)
        processes = family(process)
        found = tried(processes, store)
        sockets = [path for p in processes for path in unix_sockets(p)]
        assert process.poll() is None, "the run ended before the visit did"
    finally:
        process.kill()
        process.communicate()
    assert sockets  # the fork server's, which runs code of whoever connects
    nothing_but_the_spec(found, store)
    assert not list(run_folder(store).keys.iterdir())  # they are in memory only


@as_root
def test_without_security_the_stranger_comes_in(long_spec: Spec, write_spec: WriteSpec) -> None:
    """What the other tests try does work where nothing is in its way."""
    store = Path(long_spec["output"]["store"])
    process = start_run(write_spec(long_spec), "--set", "cluster.security=none")
    try:
        wait_for_workers(store, process)
        found = tried(family(process), store)
    finally:
        process.kill()
        output = process.communicate()[0]
    assert len(found["plain"]) == 5  # the scheduler, two workers, two nannies
    assert not found["own certificate"]
    assert not found["pages"]
    assert "warning: the Dask cluster (cluster.security: none) is not encrypted" in output


@as_root
def test_dashboard(long_spec: Spec, write_spec: WriteSpec) -> None:
    """It is served, the warning is true, and it gives no way in."""
    store = Path(long_spec["output"]["store"])
    process = start_run(write_spec(long_spec), "--dashboard")
    try:
        wait_for_workers(store, process)
        found = tried(family(process), store)
    finally:
        process.kill()
        output = process.communicate()[0]
    (port,) = {page.partition("/")[0].partition(":")[2] for page in found["pages"]}
    for route in ("/status", "/info/main/workers.html", "/json/identity.json"):
        assert f"127.0.0.1:{port}{route}" in found["pages"]
    assert not [page for page in found["pages"] if "passwd" in page]
    host = re.escape(socket.gethostname())
    assert re.search(
        rf"your own machine: ssh -N -L {port}:127.0.0.1:{port} \S+@{host}$", output, re.M
    )
    assert f"then open http://127.0.0.1:{port}/status" in output
    assert "is not private: every user of that host can read it" in output
    found["pages"] = []
    nothing_but_the_spec(found, store)


@as_root
@pytest.mark.slurm
def test_slurm_run(long_spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec, slurm: Any) -> None:
    """From the host of the driver, and from a node, where he may have a job of his own."""
    store = Path(long_spec["output"]["store"])
    process = start_run(write_spec({**long_spec, "cluster": {**slurm_cluster, "workers": 2}}))
    try:
        wait_for_workers(store, process)
        keys = str(run_folder(store).keys)
        end = time.monotonic() + 60
        outside: list[tuple[str, int]] = []
        while len(outside) < 4:  # two for each nanny and its worker; the second one may be late
            assert time.monotonic() < end
            nannies = [
                p
                for p in psutil.process_iter(["cmdline"])
                if keys in " ".join(p.info["cmdline"] or [])
            ]
            workers = [child for nanny in nannies for child in nanny.children(recursive=True)]
            others = [*nannies, *workers]
            outside = [place for p in others for place in listening(p) if place[0] != "127.0.0.1"]
            time.sleep(0.2)
        assert len(nannies) == 2
        driver = family(process)
        assert len(list(run_folder(store).keys.iterdir())) == 3
        host = tried(driver, store, more=outside)
        scheduler = [place for place in listening(driver[0]) if place[0] != "127.0.0.1"]
        node = tried(others, store, inside=workers[0], more=scheduler)
        assert process.poll() is None, "the run ended before the visit did"
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert scheduler
    nothing_but_the_spec(host, store)
    nothing_but_the_spec(node, store)
    assert not list(run_folder(store).keys.iterdir())


@pytest.mark.slurm
def test_keys_after_a_kill(long_spec: Spec, slurm_cluster: Spec, write_spec: WriteSpec) -> None:
    """What a killed driver leaves is its owner's alone, and the next driver replaces it."""
    store = Path(long_spec["output"]["store"])
    spec_file = write_spec({**long_spec, "cluster": {**slurm_cluster, "workers": 1}})
    keys, texts = run_folder(store).keys, []
    for _ in range(2):
        process = start_run(spec_file)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if len(list(keys.glob("*.pem"))) == 3 and (keys / "key.pem").read_text() not in texts:
                break
            time.sleep(0.1)
        assert keys.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in keys.iterdir()} == {0o600}
        texts.append((keys / "key.pem").read_text())
        process.kill()
        process.communicate()
    assert texts[0] != texts[1]


# --- half of a configuration -----------------------------------------------------------------

FILES = dict.fromkeys(("ca_file", "cert", "key"), os.devnull)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"options": {"protocol": "tls://"}}, r"cluster.options.protocol: take it out: cluster"),
        ({"options": {"security": True}}, r"cluster.options.security: take it out"),
        ({"options": {"protocol": "tcp://"}, "security": "none"}, r"options.protocol: take it out"),
        ({"kind": "slurm", "memory": "1GB", "options": {"protocol": "tcp://"}}, "options.protocol"),
        (
            {"kind": "pbs", "memory": "1GB", "options": {"scheduler_options": {"security": True}}},
            r"cluster.options.scheduler_options.security: take it out",
        ),
        (
            {"kind": "slurm", "memory": "1GB", "options": {"worker_extra_args": ["--tls-key=x"]}},
            r"cluster.options.worker_extra_args.--tls-key: take it out",
        ),
        (
            {"kind": "distributed:LocalCluster", "options": {"protocol": "tls://"}},
            r"cluster.options.protocol: 'tls://' needs security: true beside it",
        ),
        (
            {
                "kind": "distributed:LocalCluster",
                "options": {"protocol": "tcp://", "security": True},
            },
            r"cluster.options.protocol: 'tcp://' is not encrypted, but there is security",
        ),
        (
            {"kind": "external", "address": "tcp://10.0.0.1:1", "tls": FILES},
            r"cluster.tls: tcp://10.0.0.1:1 is not encrypted, so certificates are of no use",
        ),
        (
            {"tls": FILES},
            r"cluster.tls: is for kind external; a local cluster makes its own certificates",
        ),
        (
            {"kind": "external", "address": "tls://10.0.0.1:1", "security": "none"},
            r"cluster.security: is none, but tls://10.0.0.1:1 is encrypted",
        ),
        ({"kind": "external", "address": "tcp://10.0.0.1:1", "dashboard": True}, "is not ours"),
        (
            {"kind": "external", "address": "tcp://10.0.0.1:1", "performance_report": True},
            "is not ours",
        ),
        ({"security": "some"}, r"cluster.security: 'some': input should be 'tls' or 'none'"),
    ],
)
def test_half_a_configuration_is_refused(spec: Spec, section: Spec, words: str) -> None:
    spec["cluster"] = section
    with pytest.raises(SpecError, match=words):
        prepare(load_spec(spec))


def test_half_a_configuration_in_the_users_files(spec: Spec) -> None:
    import dask_jobqueue.config  # noqa: F401  (reads jobqueue.yaml)

    spec["cluster"] = {"kind": "slurm", "memory": "1GB"}
    theirs = {
        "jobqueue.slurm.worker-extra-args": ["--protocol tcp://"],
        "jobqueue.slurm.scheduler-options": {"protocol": "tcp://"},
        "distributed.comm.require-encryption": True,
    }
    with dask.config.set(theirs), pytest.raises(SpecError) as refused:
        prepare(load_spec(spec))
    assert "jobqueue.slurm.worker-extra-args.--protocol: take it out" in str(refused.value)
    assert "jobqueue.slurm.scheduler-options.protocol: take it out" in str(refused.value)
    spec["cluster"] = {"kind": "local", "security": "none"}
    with dask.config.set(theirs), pytest.raises(SpecError, match="require-encryption; leave it"):
        prepare(load_spec(spec))


@pytest.mark.parametrize("section", [{"address": "tcp://127.0.0.1:9"}, {"scheduler_file": "s"}])
def test_an_external_cluster_that_is_open(tmp_path: Path, section: Spec) -> None:
    if "scheduler_file" in section:
        section["scheduler_file"] = str(tmp_path / "s.json")
        (tmp_path / "s.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    cluster = make_cluster(ClusterSpec(kind="external", **section), tmp_path, print)
    (warning,) = cluster.warnings()
    assert warning.startswith("the cluster at tcp://127.0.0.1:9 is not encrypted")
