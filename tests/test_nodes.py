"""Workers as children of the driver, on the nodes of one job."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
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


class Started(Nodes):
    """Remembers what it started."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Here(), folder, 2)
        self.names: list[str] = []

    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        self.names.append(super().submit(script, after, walltime_s))
        return self.names[-1]


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Return three nodes; what is at work on them at the end is ended."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("PBS_JOBID", "7.host")
    started = Started(tmp_path)
    yield started
    started.cancel(started.names)


def wait_for_ends(nodes: Nodes, names: list[str]) -> None:
    """Return when all these scripts have ended."""
    end = time.monotonic() + 30
    while not all(state.ended for state in nodes.states(names)):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_scripts_on_nodes(nodes: Started, tmp_path: Path) -> None:
    """One on each node; what they print is kept, by node; they end when told to."""
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho on $NODE\nexec sleep 60\n")
    names = [nodes.submit(script) for _ in range(3)]
    assert names == ["worker-a-1", "worker-b-2", "worker-c-site-3"]
    end = time.monotonic() + 30
    while (tmp_path / "logs" / "worker-b-2.log").read_text() != "on b\n":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [state.ended for state in nodes.states(names)] == [False] * 3
    nodes.cancel(names[1:2])
    assert [state.ended for state in nodes.states(names)] == [False, True, False]
    assert nodes.submit(script) == "worker-b-4"


def test_a_node_whose_script_ended_at_once_waits_for_the_others(
    nodes: Started, tmp_path: Path
) -> None:
    """The one with the fewest quick ends is taken, then the one that was used longest ago."""
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\nexit 7\n")
    taken = []
    for _ in range(5):
        taken.append(nodes.submit(script))
        wait_for_ends(nodes, taken[-1:])
    assert [name.split("-")[1] for name in taken] == ["a", "b", "c", "a", "b"]


def test_nodes_that_never_work_are_given_up(nodes: Started, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/sh\n[ $NODE = c.site ] && exec sleep 60\necho "no module"; exit 7\n')
    first = [nodes.submit(script) for _ in range(3)]
    wait_for_ends(nodes, first[:2])
    assert nodes.nodes() == ["a", "b", "c.site"]
    again = [nodes.submit(script) for _ in range(2)]
    assert again == ["worker-a-4", "worker-b-5"]
    wait_for_ends(nodes, again)
    assert nodes.nodes() == ["c.site"]
    script.write_text("#!/bin/sh\necho no module; exit 7\n")
    nodes.cancel(first)
    last = nodes.submit(script)
    with pytest.raises(ClusterError, match=r"on every node.*exit code 7.*\nno module"):
        wait_for_ends(nodes, [last])


def test_one_job_needs_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PBS_JOBID", raising=False)
    with pytest.raises(ClusterError, match="use hpc-sweep submit"):
        Nodes(Here(), tmp_path, 1)
