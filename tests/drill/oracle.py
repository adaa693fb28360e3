"""Whether a sweep that was broken, and run again, came to what it should have come to."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import equal_stores, repeated_units, wait_until_queue_is_empty
from running import half_written
from sweeps import LONGEST_S, ON_QUEUE, Ended, Sweep

from hpc_sweep.keeping import verify

WINDOW = 3
"""Units in flight for each worker."""

KEPT = {"parts", "logs", "keys", "events.jsonl", "spec.json", "driver.sh"}
KEPT |= {"events-1-of-2.jsonl", "events-2-of-2.jsonl"}
"""What stays in a run folder."""

REMEDIES = (
    "run the same command again",
    "the same command goes on from here",
    "run the spec again",
    "use --take-over",
    "name another output.store",
    "name another place",
)


@dataclass(frozen=True)
class Seen:
    """What the oracle counted."""

    again: int
    twice: int
    lost: int


def check_end(ended: Ended, *, may_be_silent: bool = False) -> None:
    """Fail unless a command ended well, was killed, or said what to do in one message.

    Where its log was on a disk that refused, its words may be lost.
    """
    assert "Traceback (most recent call last)" not in ended.text, ended.text
    assert ended.code != 1, f"our fault\n{ended.text}"
    if ended.code in (2, 3, 130) and not may_be_silent:
        _, error, message = ended.text.rpartition("error: ")
        assert error or ended.code == 130, ended.text
        assert any(words in message for words in REMEDIES), ended.text


def look(sweep: Sweep, whole: Path) -> Seen:
    """Compare a finished store with the uninterrupted one, and look for what is left behind.

    Parameters
    ----------
    sweep : Sweep
        Complete.
    whole : Path
        The store of the same sweep that nothing was done to.
    """
    names = {model.get("name") for model in sweep.spec["models"]}
    # Slurm's limit of memory may be faster than ours, and the message says who it was
    aside = ["message"] if "memory" in names else []
    equal_stores(sweep.store, whole, aside)
    found = verify(sweep.store)
    assert found.findings == [], found.findings
    assert found.is_complete
    again, twice = repeated_units(sweep.store)
    most = WINDOW * len_workers(sweep) * (sweep.kills + len(sweep.ended))
    assert len(again) <= most, f"{len(again)} units again, {most} were in flight"
    steady_times(sweep)
    leftover_files(sweep)
    if sweep.outside is not None:  # it is not ours
        sweep.outside.stop()
    leftover_processes(sweep)
    if sweep.where in ON_QUEUE:
        wait_until_queue_is_empty(150)
    return Seen(len(again), len(twice), len(sweep.events("unit_lost")))


def len_workers(sweep: Sweep) -> int:
    """Return how many workers the sweep has."""
    return int(sweep.spec["cluster"]["workers"])


def steady_times(sweep: Sweep) -> None:
    """Fail where the times of a run's events do not go on evenly, whatever clocks did."""
    last, run, began = "", ("", 0.0), 0.0
    for event in sweep.events():
        moment = datetime.datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "run_started":
            last, run, began = "", (event["event"], moment), moment
        elif sweep.taken_over and moment < began:
            continue  # the first driver woke up, and wrote what it had still to write
        elif run[0] and event["event"] in ("unit_started", "unit_done", "chunk_folded"):
            passed = moment - run[1]
            assert -1 < passed < LONGEST_S, f"{passed:.0f} s between {last} and {event}"
            last, run = str(event), (run[0], moment)


def leftover_files(sweep: Sweep) -> None:
    """Fail where a finished sweep keeps anything but its store, its logs, its events."""
    run = sweep.run_folder
    assert half_written(sweep.store.parent) == []
    assert list(run.parts.iterdir()) == []
    assert list(run.keys.iterdir()) == []
    names = {path.name for path in run.path.iterdir()} - KEPT
    assert not [name for name in names if not name.startswith("performance")], names
    assert not [path for path in sweep.store.iterdir() if path.name.startswith(".")]


def leftover_processes(sweep: Sweep, seconds: float = 150) -> None:
    """Fail unless every process of the sweep ends by itself."""
    end = time.monotonic() + seconds
    while left := sweep.processes():
        assert time.monotonic() < end, [_told(process) for process in left]
        time.sleep(0.3)


def _told(process: Any) -> str:
    return f"{process.pid} {' '.join(process.cmdline())[:200]}"
