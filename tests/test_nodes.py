"""Workers as children of the driver, on the nodes of one job."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from hpc_sweep.clusters import make_queue
from hpc_sweep.clusters.nodes import Nodes
from hpc_sweep.clusters.pbs import PbsQueue
from hpc_sweep.errors import ClusterError


def test_pbs_nodes_and_its_launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is named once for each of its chunks; TM's own launcher is taken before ssh."""
    file = tmp_path / "nodes"
    here = socket.gethostname()
    file.write_text(f"{here}.site\nb.site\nb.site\nc.site\n")
    monkeypatch.setenv("PBS_NODEFILE", str(file))
    monkeypatch.setenv("PATH", str(tmp_path))
    queue = make_queue("pbs")
    assert queue.nodes() == [f"{here}.site", "b.site", "c.site"]
    assert queue.launcher(f"{here}.site", 4) == []
    assert queue.launcher("c.site", 4)[0] == "ssh"
    for command, words in (
        ("pbsdsh", ["pbsdsh", "-n", "3", "--"]),
        ("pbs_tmrsh", ["pbs_tmrsh", "c.site"]),
    ):
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(0o755)
        assert queue.launcher("c.site", 4) == words


class Here(PbsQueue):
    """Three names for this host."""

    def nodes(self) -> list[str]:
        return ["a", "b", "c.site"]

    def launcher(self, node: str, cpus: int) -> list[str]:
        return ["env", f"NODE={node}"]


def nodes_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    (folder / "logs").mkdir()
    monkeypatch.setenv("PBS_JOBID", "7.host")
    return Nodes(Here(), folder, 2)


def test_scripts_on_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on each node; what they print is kept, by node; they end when told to."""
    nodes = nodes_of(tmp_path, monkeypatch)
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho on $NODE\nexec sleep 60\n")
    names = [nodes.submit(script) for _ in range(3)]
    assert names == ["worker-a-1", "worker-b-2", "worker-c-site-3"]
    end = time.monotonic() + 10
    while (tmp_path / "logs" / "worker-b-2.log").read_text() != "on b\n":
        assert time.monotonic() < end
    assert [state.ended for state in nodes.states(names)] == [False] * 3
    nodes.cancel(names[1:2])
    assert [state.ended for state in nodes.states(names)] == [False, True, False]
    assert nodes.submit(script) == "worker-b-4"
    nodes.cancel([*names, "worker-b-4"])


def test_nodes_that_never_work_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(tmp_path, monkeypatch)
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/sh\n[ $NODE = c.site ] && exec sleep 60\necho "no module"; exit 7\n')
    names = [nodes.submit(script) for _ in range(3)]
    for _ in range(2):
        end = time.monotonic() + 10
        while sum(state.ended for state in nodes.states(names)) < len(names) - 1:
            assert time.monotonic() < end
        names += [nodes.submit(script) for _ in range(2)]
    assert nodes.nodes() == ["c.site"]
    nodes.cancel(names)
    script.write_text("#!/bin/sh\necho no module; exit 7\n")
    for _ in range(2):
        (name := nodes.submit(script))
        with contextlib.suppress(ClusterError):
            while not nodes.states([name])[0].ended:
                time.sleep(0.01)
    with pytest.raises(ClusterError, match=r"on every node.*exit code 7.*\nno module"):
        nodes.states([name])


def test_one_job_needs_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PBS_JOBID", raising=False)
    with pytest.raises(ClusterError, match="use hpc-sweep submit"):
        Nodes(Here(), tmp_path, 1)
