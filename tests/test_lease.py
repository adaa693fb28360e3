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

import psutil
import pytest
from builders import fill, make_read_only, small_disk

from hpc_sweep.errors import DiskError, LeaseError
from hpc_sweep.store import check_nonce, hold, read_holder
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
        mine = replace(mine, pid=pid, started=psutil.Process(pid).create_time())
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
    with pytest.raises(LeaseError, match="taken over by nobody"):
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
        put(path, holder(started=1.0))
        assert race(path, count) == ["lost"] * (count - 1) + ["won"]
        assert files(path) == []


CONTENDER = """
import sys, time
from pathlib import Path
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
            put(path, holder(started=1.0))
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


@pytest.mark.parametrize("shift_s", [-3600.0, 10.0])
def test_a_pid_that_is_used_again_is_another_process(
    path: Path, process: subprocess.Popen[bytes], shift_s: float
) -> None:
    before = holder(process.pid)
    put(path, replace(before, started=before.started + shift_s))
    with hold(path, sleep=never) as lease:
        lease.check()


# another host


def other_host(path: Path, beats: int | None = 7) -> Holder:
    return put(path, holder(host="another-node", job="12"), beats)


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
    "text", ["", "{", "null", "[]", "{}", '{"nonce": "a"}', "\x00" * 90, "\xff"]
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
    put(path, holder(started=1.0))
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


def test_host_and_start_time_are_those_of_this_process() -> None:
    mine = Holder.this_process()
    assert mine.host == socket.gethostname()
    assert abs(mine.started - psutil.Process().create_time()) < 1
    assert mine.nonce != Holder.this_process().nonce
