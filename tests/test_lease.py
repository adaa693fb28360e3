"""The lease: one driver at a time, whoever dies, whatever lies there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from builders import fill, make_read_only, small_disk

from hpc_sweep.clusters import has_ended
from hpc_sweep.clusters.slurm import SlurmQueue
from hpc_sweep.errors import DiskError, LeaseError
from hpc_sweep.plan import Share
from hpc_sweep.store import check_nonce, hold, read_holder, run_folder
from hpc_sweep.store.lease import STALE_S, Holder

ROUNDS = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a lease in a folder of its own."""
    folder = tmp_path / "results.zarr.run"
    folder.mkdir()
    return folder / "lease.json"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that does nothing."""
    sleeper = subprocess.Popen(["sleep", "60"])
    yield sleeper
    sleeper.kill()
    sleeper.wait()


def holder(pid: int | None = None, **changes: object) -> Holder:
    """Return a holder: this process, or another one of this host."""
    mine = Holder.this_process()
    if pid is not None:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        mine = replace(mine, pid=pid, ticks=int(words[19]))
    return replace(mine, **changes)  # type: ignore[arg-type]


def put(path: Path, whose: Holder, beats: int | None = 7) -> Holder:
    """Leave a lease with its heartbeat."""
    path.write_text(json.dumps(asdict(whose)))
    if beats is not None:
        beat_file(path, whose).write_text(str(beats))
    return whose


def beat_file(path: Path, whose: Holder) -> Path:
    return path.with_name(f"lease.{whose.nonce}.beat")


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def never(seconds: float) -> None:
    raise AssertionError("nobody waits for a process of the same host")


# one driver


def test_holding_and_releasing(path: Path) -> None:
    with hold(path) as lease:
        assert read_holder(path) == lease.holder
        assert lease.holder.pid == os.getpid()
        lease.check()
    assert files(path) == []
    with hold(path) as again:
        assert again.holder.nonce != lease.holder.nonce


def test_nobody_holds_it(path: Path) -> None:
    assert read_holder(path) is None
    words = r"another driver had it and has ended; .* run the same command again"
    with pytest.raises(LeaseError, match=words):
        check_nonce(path, "abc")


def test_an_error_inside_releases(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hold(path):
        raise KeyboardInterrupt
    assert files(path) == []


def test_a_second_driver_is_refused_and_disturbs_nothing(path: Path) -> None:
    with hold(path) as lease:
        with pytest.raises(LeaseError, match=f"process {os.getpid()} on .*--take-over"), hold(path):
            pass
        lease.check()
        assert lease.holder == read_holder(path)
    assert files(path) == []


def test_the_heartbeat_moves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.store.lease.HEARTBEAT_S", 0.01)
    with hold(path) as lease:
        seen: set[str] = set()
        end = time.monotonic() + 10
        while len(seen) < 4 and time.monotonic() < end:
            if beat_file(path, lease.holder).exists():
                seen.add(beat_file(path, lease.holder).read_text())
            time.sleep(0.005)
    assert len(seen) >= 4
    assert files(path) == []


def test_the_job_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with hold(path):
        assert str(read_holder(path)).endswith("(job 4711)")


# several at once


def race(path: Path, count: int) -> list[str]:
    """Let threads acquire at the same moment; who wins waits until all others have tried."""
    start = threading.Barrier(count)
    tried = threading.Semaphore(0)
    outcomes: list[str] = []

    def acquire() -> None:
        start.wait(timeout=30)
        outcome = "lost"
        with suppress(LeaseError), hold(path) as lease:
            outcome = "robbed"
            for _ in range(count - 1):
                assert tried.acquire(timeout=30)
            lease.check()
            outcome = "won"
        outcomes.append(outcome)
        tried.release()

    threads = [threading.Thread(target=acquire, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return sorted(outcomes)


@pytest.mark.parametrize("count", [2, 6])
def test_one_of_several_threads_wins(path: Path, count: int) -> None:
    for _ in range(ROUNDS):
        assert race(path, count) == ["lost"] * (count - 1) + ["won"]
        assert files(path) == []


@pytest.mark.parametrize("count", [2, 6])
def test_one_of_several_threads_takes_over(path: Path, count: int) -> None:
    for _ in range(ROUNDS):
        put(path, holder(ticks=1))
        assert race(path, count) == ["lost"] * (count - 1) + ["won"]
        assert files(path) == []


CONTENDER = """
import sys, time
from pathlib import Path
from hpc_sweep.clusters import has_ended
from hpc_sweep.clusters.slurm import SlurmQueue
from hpc_sweep.errors import LeaseError
from hpc_sweep.store.lease import hold
print("ready", flush=True)
for line in sys.stdin:
    moment, path = line.split(maxsplit=1)
    while time.time() < float(moment):
        pass
    try:
        with hold(Path(path.strip())) as lease:
            print("won", flush=True)
            sys.stdin.readline()
            lease.check()
            print("still", flush=True)
            sys.stdin.readline()
    except LeaseError:
        print("lost", flush=True)
        sys.stdin.readline()
        print("still", flush=True)
        sys.stdin.readline()
    print("released", flush=True)
"""


def contender() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONTENDER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(contenders: list[subprocess.Popen[str]], text: str) -> list[str]:
    """Write a line to all, then read one from each."""
    for process in contenders:
        assert process.stdin is not None
        process.stdin.write(text + "\n")
        process.stdin.flush()
    return answers(contenders)


def answers(contenders: list[subprocess.Popen[str]]) -> list[str]:
    return sorted(process.stdout.readline().strip() for process in contenders if process.stdout)


@pytest.fixture(scope="module")
def contenders() -> Iterator[list[subprocess.Popen[str]]]:
    """Start two processes that acquire when they are asked to; the second test kills one."""
    with ExitStack() as stack:
        started = [stack.enter_context(contender()) for _ in range(2)]
        for process in started:
            stack.callback(process.kill)
        assert answers(started) == ["ready"] * 2
        yield started


def test_one_of_several_processes_wins(path: Path, contenders: list[subprocess.Popen[str]]) -> None:
    for number in range(ROUNDS):
        if number % 2:
            put(path, holder(ticks=1))
        moment = time.time() + 0.02
        assert ask(contenders, f"{moment} {path}") == ["lost", "won"]
        assert ask(contenders, "check") == ["still"] * 2
        assert ask(contenders, "release") == ["released"] * 2
        assert files(path) == []


def test_a_killed_driver_is_replaced(path: Path, contenders: list[subprocess.Popen[str]]) -> None:
    first = contenders[:1]
    assert ask(first, f"0 {path}") == ["won"]
    with pytest.raises(LeaseError, match=f"process {first[0].pid} "), hold(path, sleep=never):
        pass
    first[0].kill()
    first[0].wait()
    with hold(path, sleep=never) as lease:
        lease.check()
    assert files(path) == []


# the same host


def test_a_living_process_keeps_it(path: Path, process: subprocess.Popen[bytes]) -> None:
    other = put(path, holder(process.pid))
    with pytest.raises(LeaseError, match=f"process {process.pid}"), hold(path, sleep=never):
        pass
    assert read_holder(path) == other


def test_a_dead_process_loses_it(path: Path, process: subprocess.Popen[bytes]) -> None:
    put(path, holder(process.pid))
    process.kill()
    process.wait()
    said: list[str] = []
    with hold(path, sleep=never, say=said.append):
        assert files(path)[-1] == path.name
    assert len(said) == 1
    assert f"process {process.pid}" in said[0]
    assert files(path) == []


def test_a_zombie_is_dead(path: Path, process: subprocess.Popen[bytes]) -> None:
    """In a container nobody may collect a killed driver."""
    put(path, holder(process.pid))
    process.kill()
    end = time.monotonic() + 10
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.01)
    with hold(path, sleep=never) as lease:
        lease.check()


@pytest.mark.parametrize("shift", [-360_000, 1])
def test_a_pid_that_is_used_again_is_another_process(
    path: Path, process: subprocess.Popen[bytes], shift: int
) -> None:
    before = holder(process.pid)
    put(path, replace(before, ticks=before.ticks + shift))
    with hold(path, sleep=never) as lease:
        lease.check()


def test_a_clock_that_was_set_does_not_make_a_living_driver_look_dead(
    path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start time of psutil moves with the machine's clock; ours does not use a clock."""
    put(path, holder(process.pid))
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1e9)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    with pytest.raises(LeaseError, match=f"process {process.pid}"), hold(path, sleep=never):
        pass


def test_a_process_that_proc_hides_is_watched(
    path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc is mounted with hidepid a colleague's living driver has no folder there."""
    other = put(path, holder(process.pid))
    read_text = Path.read_text

    def hidden(self: Path, *arguments: Any, **options: Any) -> str:
        if str(self) == f"/proc/{process.pid}/stat":
            raise FileNotFoundError
        return read_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", hidden)
    clock = Clock(lambda second: beat_file(path, other).write_text(str(second)) and None)
    with pytest.raises(LeaseError, match=f"process {process.pid}"), hold(path, sleep=clock.sleep):
        pass


def test_a_machine_of_the_same_name_is_another_one(path: Path) -> None:
    """Containers and clouds: their process ids say nothing here."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = put(path, replace(holder(), pids="another start pid:[1]", pid=gone.pid))
    clock = Clock(lambda second: beat_file(path, other).write_text(str(second)) and None)
    with pytest.raises(LeaseError), hold(path, sleep=clock.sleep):
        pass


def test_a_lease_of_an_earlier_version_is_watched(path: Path) -> None:
    old = {"nonce": "0abc", "host": socket.gethostname(), "pid": 1, "started": 1763720000.5}
    path.write_text(json.dumps({**old, "job": "", "restarts": "0"}))
    assert str(read_holder(path)) == f"process 1 on {socket.gethostname()}"
    clock = Clock()
    with hold(path, sleep=clock.sleep) as lease:
        lease.check()
    assert clock.seconds >= STALE_S


# the queue


def job(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Let this process be in a job."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "PBS_")):
            monkeypatch.delenv(name)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)


SLURM = {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "test"}


def test_a_requeued_job_goes_on_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(monkeypatch, **SLURM, SLURM_RESTART_COUNT="2")
    other_host(path)
    put(path, replace(read_holder(path) or holder(), restarts="1"))
    with hold(path, sleep=never) as lease:
        assert (lease.holder.job, lease.holder.restarts) == ("12", "2")


@pytest.mark.parametrize(
    "changes", [{"restarts": "2"}, {"restarts": "3"}, {"job": "13"}, {"queue": "slurm:other"}]
)
def test_another_run_of_a_job_is_watched(
    path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    """A second process of the same run of a job, a later run, other jobs of that number."""
    job(monkeypatch, **SLURM, SLURM_RESTART_COUNT="2")
    other_host(path)
    other = put(path, replace(read_holder(path) or holder(), **changes))
    clock = Clock(lambda second: beat_file(path, other).write_text(str(second)) and None)
    with pytest.raises(LeaseError), hold(path, sleep=clock.sleep):
        pass


@pytest.mark.parametrize("nodes", ["here here2.site", "here another-node.site", None])
def test_a_rerun_of_pbs_goes_on_at_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: str | None
) -> None:
    """Nothing marks a rerun; a process on a node of this very run is no earlier one."""
    job(monkeypatch, PBS_JOBID="12.server")
    if nodes is not None:
        (tmp_path / "nodes").write_text("\n".join(nodes.split()))
        monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "nodes"))
    other_host(path)
    put(path, replace(read_holder(path) or holder(), job="12.server", queue="pbs"))
    beside = nodes is not None and "another" in nodes
    clock = Clock()
    with hold(path, sleep=clock.sleep):
        pass
    assert clock.seconds == (STALE_S if beside else 0)


def test_a_job_that_the_queue_says_has_ended_is_not_waited_for(path: Path) -> None:
    other_host(path)
    asked: list[tuple[str, str]] = []

    def has_ended(queue: str, number: str) -> bool:
        asked.append((queue, number))
        return True

    with hold(path, sleep=never, has_ended=has_ended) as lease:
        lease.check()
    assert asked == [("slurm:test", "12")]


def test_the_queue_is_not_asked_about_a_process_that_lives_here(
    path: Path, process: subprocess.Popen[bytes]
) -> None:
    """A shell of salloc outlives its job."""
    put(path, holder(process.pid, job="12", queue="slurm:test"))
    ended = pytest.raises(LeaseError, match="job 12")
    with ended, hold(path, sleep=never, has_ended=lambda queue, number: True):
        pass


JOB = """#!/bin/bash
exec "{python}" -c '
import sys, time
from pathlib import Path
from hpc_sweep.store import hold
said = []
begin = time.monotonic()
with hold(Path(sys.argv[1]) / "lease.json", say=said.append) as lease:
    waited = time.monotonic() - begin
    with open(sys.argv[1] + "/held", "a") as file:
        print(lease.holder.restarts, round(waited), *said, file=file)
    time.sleep(600)
' {folder}
"""


@pytest.mark.slurm
def test_real_jobs_that_were_requeued_or_cancelled(path: Path, slurm: Any) -> None:
    """A requeued job takes its own lease over at once, and anybody that of a cancelled one."""
    held = path.parent / "held"
    script = path.parent / "job.sh"
    script.write_text(JOB.format(python=sys.executable, folder=path.parent))
    command = ["sbatch", "--parsable", "--requeue", "--mem=500M", "--output=job.log", str(script)]
    number = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=path.parent
    ).stdout.strip()

    def wait_for(lines: int) -> list[str]:
        end = time.monotonic() + 60
        while not (held.exists() and len(held.read_text().splitlines()) == lines):
            assert time.monotonic() < end, (path.parent / "job.log").read_text()
            time.sleep(0.2)
        return held.read_text().splitlines()

    assert wait_for(1) == ["0 0"]
    first = read_holder(path)
    assert first is not None
    assert (first.queue, first.job) == (SlurmQueue().name(), number)
    assert not has_ended(first.queue, first.job)
    subprocess.run(["scontrol", "requeue", number], check=True)
    restarts, waited, *said = wait_for(2)[1].split(maxsplit=2)
    assert (restarts, waited) == ("1", "0")
    assert said == [f"took the store over from {first}, which is gone"]
    subprocess.run(["scancel", "--signal=KILL", number], check=True)
    end = time.monotonic() + 60
    while not has_ended(first.queue, number):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert not has_ended("slurm:another", number)
    with hold(path, sleep=never, has_ended=has_ended) as lease:
        assert lease.holder.job == ""


# another host


def other_host(path: Path, beats: int | None = 7) -> Holder:
    elsewhere = {"host": "another-node", "pids": "another start pid:[1]"}
    return put(path, holder(**elsewhere, job="12", queue="slurm:test"), beats)


class Clock:
    """Passes time without waiting, and does something at each second."""

    def __init__(self, event: Callable[[int], None] = lambda second: None) -> None:
        self.seconds = 0.0
        self.event = event

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.event(round(self.seconds))


@pytest.mark.parametrize("beats", [7, None])
def test_a_heartbeat_that_stands_still_is_dead(path: Path, beats: int | None) -> None:
    other_host(path, beats)
    clock, said = Clock(), list[str]()
    with hold(path, sleep=clock.sleep, say=said.append):
        pass
    assert clock.seconds >= STALE_S
    assert len(said) == 2
    assert all("on another-node (job 12)" in text for text in said)
    assert files(path) == []


@pytest.mark.parametrize("beats", [7, None])
@pytest.mark.parametrize("second", [1, STALE_S - 1])
def test_a_heartbeat_that_moves_is_alive(path: Path, beats: int | None, second: float) -> None:
    other = other_host(path, beats)

    def beat(now: int) -> None:
        if now == second:
            beat_file(path, other).write_text("8")

    clock = Clock(beat)
    with pytest.raises(LeaseError, match="on another-node"), hold(path, sleep=clock.sleep):
        pass
    assert clock.seconds == second
    assert read_holder(path) == other
    assert beat_file(path, other).exists()


def test_a_driver_that_ends_meanwhile_is_not_waited_for(path: Path) -> None:
    other = other_host(path)

    def end(now: int) -> None:
        if now == 3:
            path.unlink()
            beat_file(path, other).unlink()

    clock = Clock(end)
    with hold(path, sleep=clock.sleep) as lease:
        lease.check()
    assert clock.seconds < STALE_S
    assert files(path) == []


def test_a_third_driver_that_came_meanwhile_keeps_it(
    path: Path, process: subprocess.Popen[bytes]
) -> None:
    other_host(path)
    third = holder(process.pid, nonce="0third0")

    def come(now: int) -> None:
        if now == 3:
            put(path, third)

    with (
        pytest.raises(LeaseError, match=f"process {process.pid}"),
        hold(path, sleep=Clock(come).sleep),
    ):
        pass
    assert read_holder(path) == third


# what lies there


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"nonce": "a"}',
        '{"nonce": "a", "host": "b", "pid": "7"}',
        "\x00" * 90,
        "\xff",
    ],
)
def test_a_damaged_lease_is_dead(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with hold(path, sleep=never) as lease:
        lease.check()
    assert files(path) == []


def test_a_lease_that_is_damaged_anywhere_is_dead_or_alive(path: Path) -> None:
    content = json.dumps(asdict(holder())).encode()
    for place in range(0, len(content), 2):
        for bit in (0, 7):
            flipped = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            path.write_bytes(flipped)
            try:
                with hold(path, sleep=Clock().sleep) as lease:
                    lease.check()
                assert not path.exists()
            except LeaseError:
                path.unlink()


def test_a_claim_whose_maker_died_is_not_waited_for_long(path: Path) -> None:
    put(path, holder(ticks=1))
    os.link(path, path.with_name(f".{path.name}.claim"))
    clock = Clock()
    with hold(path, sleep=clock.sleep) as lease:
        lease.check()
    assert 0 < clock.seconds < STALE_S
    assert files(path) == []


def test_a_link_whose_answer_was_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS repeats a request whose answer was lost, and then says that the file is there."""
    link = os.link

    def repeat(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeat)
    with hold(path, sleep=never) as lease:
        lease.check()
    assert files(path) == []


def test_taking_over_by_hand(path: Path, process: subprocess.Popen[bytes]) -> None:
    put(path, holder(process.pid))
    with hold(path, take_over=True, sleep=never) as lease:
        lease.check()
    assert files(path) == []


def test_the_loser_notices_and_leaves_the_other_ones_lease(path: Path) -> None:
    with hold(path) as first, hold(path, take_over=True) as second:
        second.check()
        with pytest.raises(LeaseError, match="was taken over by process"):
            first.check()
        first.release()
        second.check()
        assert read_holder(path) == second.holder
    assert files(path) == []


def test_releasing_twice_is_harmless(path: Path) -> None:
    with hold(path) as first:
        first.release()
        with hold(path) as second:
            first.release()
            second.check()
    assert files(path) == []


# disks


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        fill(disk)
        with pytest.raises(DiskError, match="No space left") as raised, hold(disk / "lease.json"):
            pass
        assert str(raised.value).count("cannot write") == 1
        assert [file.name for file in disk.iterdir()] == ["filling"]


def test_a_disk_that_fails_meanwhile_does_not_hide_its_error(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        path = disk / "lease.json"

        def run() -> None:
            with hold(path) as lease:
                end = time.monotonic() + 10
                while not beat_file(path, lease.holder).exists() and time.monotonic() < end:
                    time.sleep(0.01)
                make_read_only(disk)
                raise DiskError(30, "of the run")

        with pytest.raises(DiskError, match="of the run"):
            run()


def test_host_and_start_are_those_of_this_process() -> None:
    mine = Holder.this_process()
    assert mine.host == socket.gethostname()
    began = psutil.boot_time() + mine.ticks / os.sysconf("SC_CLK_TCK")
    assert abs(began - psutil.Process().create_time()) < 2
    assert mine.nonce != Holder.this_process().nonce


# --- several drivers with shares ---------------------------------------------------------------


def hold_share(store: Path, index: int, count: int) -> Any:
    run = run_folder(store, Share(index, count))
    return hold(run.lease, rivals=run.rivals, sleep=never)


@pytest.mark.parametrize(
    ("held", "wanted", "allowed"),
    [
        ((1, 4), (2, 4), True),
        ((1, 4), (1, 4), False),
        ((1, 4), (2, 3), False),
        ((1, 4), (1, 1), False),
        ((1, 1), (2, 4), False),
        ((3, 14), (3, 4), False),
    ],
)
def test_shares_and_the_whole_exclude_each_other(
    path: Path, held: tuple[int, int], wanted: tuple[int, int], allowed: bool
) -> None:
    store = path.parent.with_suffix("")
    with hold_share(store, *held):
        before = sorted(path.parent.glob("lease*.json"))
        if allowed:
            with hold_share(store, *wanted):
                pass
        else:
            with pytest.raises(LeaseError, match="another driver"), hold_share(store, *wanted):
                pass
        assert sorted(path.parent.glob("lease*.json")) == before
    assert files(path) == []


def test_a_share_of_a_dead_driver_is_no_rival(path: Path, process: subprocess.Popen[bytes]) -> None:
    store = path.parent.with_suffix("")
    put(run_folder(store, Share(2, 4)).lease, holder(process.pid))
    process.kill()
    process.wait()
    with hold_share(store, 1, 1):
        assert read_holder(run_folder(store, Share(2, 4)).lease) is None


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_kill_while_it_is_given_back_leaves_no_heartbeat_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who finds a lease removes what belongs to it."""

    class Killed(BaseException):
        pass

    left, unlink = [number], Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        unlink(path, missing_ok)

    place = tmp_path / "lease.json"
    with suppress(Killed), hold(place) as lease:
        beat = {f"lease.{lease.holder.nonce}.beat"}
        monkeypatch.setattr(Path, "unlink", killed)
    monkeypatch.undo()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == [{place.name, *beat}, {place.name}, set()][number]
