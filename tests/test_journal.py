"""The event log: whole lines only, for readers at any moment; never the end of a run."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import fill, make_read_only, small_disk

from hpc_sweep.store import Journal, read_events
from hpc_sweep.tally import Tally


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a log that is not there."""
    return tmp_path / "events.jsonl"


def kinds(path: Path) -> list[str]:
    return [event["event"] for event in read_events(path)]


def test_events_are_read_in_order(path: Path) -> None:
    journal = Journal(path)
    journal.write("run_started", host="a", workers=2)
    journal.write("unit_done", unit="0.0_0-1_0-3", note='ß "\n')
    first, second = read_events(path)
    assert (first["event"], first["host"], first["workers"]) == ("run_started", "a", 2)
    assert second["note"] == 'ß "\n'
    assert len(path.read_text().splitlines()) == 2


def test_times_go_on_evenly_when_the_clock_jumps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    journal.write("before")
    now = time.time()
    for jump in (3600, -3600):
        monkeypatch.setattr("time.time", lambda jump=jump: now + jump)
        journal.write("after")
    moments = [datetime.fromisoformat(event["time"]).timestamp() for event in read_events(path)]
    assert sorted(moments) == moments
    assert moments[-1] - moments[0] < 60


def test_times_are_in_utc(path: Path) -> None:
    Journal(path).write("x")
    (event,) = read_events(path)
    moment = datetime.strptime(event["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs(moment.timestamp() - time.time()) < 60


def test_lines_that_are_no_events_are_passed_over(path: Path) -> None:
    """As where a disk has changed a letter of a key; and no share of drivers is one."""
    journal = Journal(path)
    journal.write("run_started", share="1.1")
    good = path.read_text()
    damaged = good.replace('"time"', '"tile"') + good.replace('"event"', '"evenu"')
    path.write_text(f'{damaged}5\n[]\nnull\n{{"a": 1}}\n{good[:-2]}\n{good}')
    assert [event["share"] for event in read_events(path)] == ["1.1"]
    tally = Tally(path)
    tally.look()
    assert (tally.n_events, tally.share) == (1, (1, 1))


def test_no_log_is_no_events(path: Path) -> None:
    assert list(read_events(path)) == []
    path.touch()
    assert list(read_events(path)) == []


def test_a_torn_last_line_is_passed_over_and_swallows_nothing(path: Path) -> None:
    Journal(path).write("first")
    whole = path.read_bytes()
    Journal(path).write("second")
    line = path.read_bytes()[len(whole) :]
    for length in range(len(line)):
        path.write_bytes(whole + line[:length])
        assert kinds(path) == ["first", *(["second"] if length == len(line) - 1 else [])]
        journal = Journal(path)
        journal.write("third")
        journal.write("fourth")
        assert [kind for kind in kinds(path) if kind != "second"] == ["first", "third", "fourth"]
        assert b"\n\n" not in path.read_bytes()


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\n", b"\x00" * 100 + b"\n", b'{"event": "\xc3'])
def test_damaged_lines_are_passed_over(path: Path, rubbish: bytes) -> None:
    Journal(path).write("first")
    with path.open("ab") as file:
        file.write(rubbish)
    Journal(path).write("second")
    assert kinds(path) == ["first", "second"]


def test_reading_while_writing(path: Path) -> None:
    def write() -> None:
        journal = Journal(path)
        for number in range(300):
            journal.write("unit_done", number=number, filling="x" * (number * 37 % 3000))

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while writer.is_alive():
        numbers = [event["number"] for event in read_events(path)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= seen
        seen = len(numbers)
    writer.join()
    assert [event["number"] for event in read_events(path)] == list(range(300))


def test_several_threads_of_a_driver(path: Path) -> None:
    journal = Journal(path)

    def write() -> None:
        for n in range(100):
            journal.write("x", n=n)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event["n"] for event in read_events(path)) == sorted([*range(100)] * 4)


def test_lines_written_together_are_one_visit_to_the_disk(path: Path) -> None:
    journal = Journal(path)
    journal.write("first")
    before = path.read_bytes()
    with contextlib.suppress(ZeroDivisionError), journal.together():
        with journal.together():
            journal.write("second")
        journal.write("third")
        assert path.read_bytes() == before
        raise ZeroDivisionError
    assert kinds(path) == ["first", "second", "third"]


def test_a_full_disk_delays_lines(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        path = disk / "events.jsonl"
        journal = Journal(path)
        journal.write("first")
        fill(disk)
        for _ in range(8):  # to the end of the page that the file has, then in vain
            journal.write("late", filling="x" * 1000)
        assert kinds(path).count("late") < 8
        (disk / "filling").unlink()
        journal.write("next")
        journal.write("last")
        assert kinds(path) == ["first", *["late"] * 8, "next", "last"]


def test_a_read_only_disk_loses_lines_and_not_the_run(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        journal = Journal(disk / "events.jsonl")
        journal.write("first")
        make_read_only(disk)
        journal.write("lost")
        assert kinds(disk / "events.jsonl") == ["first"]


def test_a_folder_that_is_gone_loses_lines_and_not_the_run(tmp_path: Path) -> None:
    Journal(tmp_path / "none" / "events.jsonl").write("lost")
    assert list(tmp_path.iterdir()) == []


def test_every_line_is_json(path: Path) -> None:
    Journal(path).write("x", nothing=None, many=[1, 2], number=1.5)
    assert json.loads(path.read_text())["many"] == [1, 2]
