"""Acts on disks and clocks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import clocks
import disks
from builders import make_read_only
from cutting import node_at_work
from sweeps import LOCAL, ON_QUEUE, PLACES, Sweep
from table import BEFORE, act


def _while_paused(sweep: Sweep, rng: Random, hinder: Callable[[], Callable[[], object]]) -> float:
    """Hinder the disk while nobody writes, then for some seconds while everybody does."""
    seconds = round(rng.uniform(1, 8), 1)
    sweep.disk_refused = True
    with sweep.paused():
        heal = hinder()
    try:
        time.sleep(seconds)
    finally:
        heal()
    return seconds


def _with_disk(sweep: Sweep) -> None:
    """Put the sweep on a small disk; that of a local one has one already."""
    if sweep.where == LOCAL:
        return
    run = sweep.run_folder.path.name
    sweep.disk = sweep.mounts.enter_context(disks.small(sweep.mountable, Path(run)))
    sweep.move_to(sweep.disk)


@act(LOCAL, *ON_QUEUE, prepare=_with_disk)
def fill_disk(sweep: Sweep, rng: Random) -> str:
    def hinder() -> Callable[[], object]:
        return disks.fill(sweep.disk).unlink

    return f"the disk was full for {_while_paused(sweep, rng, hinder)} s"


@act(LOCAL, *ON_QUEUE, prepare=_with_disk)
def make_disk_read_only(sweep: Sweep, rng: Random) -> str:
    disk = str(sweep.disk)

    def heal() -> None:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)

    def hinder() -> Callable[[], object]:
        return heal if make_read_only(sweep.disk) else lambda: None

    return f"the disk was read-only for {_while_paused(sweep, rng, hinder)} s"


def _with_quota(sweep: Sweep) -> None:
    """Put the sweep on a disk with a quota."""
    if not disks.has_quota():
        return
    sweep.disk = sweep.mounts.enter_context(disks.with_quota(sweep.mountable))
    sweep.move_to(sweep.disk / "store")
    sweep.has_quota = True


@act(*PLACES, prepare=_with_quota)
def quota(sweep: Sweep, rng: Random) -> str:
    """No new file for some seconds; it is said where files are opened if no disk has a quota."""
    seconds = round(rng.uniform(1, 8), 1)
    sweep.disk_refused = True
    if not sweep.has_quota:
        sweep.hindered.write_text("quota")
        heal: Callable[[], object] = sweep.hindered.unlink
    else:
        disks.limit(sweep.disk, "16k")
        heal = partial(disks.limit, sweep.disk, "none")
    try:
        time.sleep(seconds)
    finally:
        heal()
    return f"over {'the disk' if sweep.has_quota else 'an invented'} quota for {seconds} s"


def _with_server(sweep: Sweep) -> None:
    """Have the sweep's disk seen through a process."""
    if not disks.has_file_server():
        return
    served = sweep.store.parent / "served"
    served.mkdir()
    sweep.server = disks.FileServer(served, sweep.mountable / "seen")
    sweep.mounts.callback(sweep.server.close)
    sweep.move_to(sweep.server.seen)


@act(*PLACES, prepare=_with_server)
def slow_files(sweep: Sweep, rng: Random) -> str:
    """As long as this command runs; where files are opened if no disk can be slow."""
    if sweep.server is not None:
        sweep.undo.callback(sweep.server.be_slow(rng))
        return "the file system answered now and then only"
    seconds = round(rng.uniform(0.02, 0.2), 2)
    sweep.hindered.write_text(f"slow {seconds}")
    sweep.undo.callback(sweep.hindered.unlink, missing_ok=True)
    return f"each opening of a file took {seconds} s longer"


@act(*PLACES, prepare=_with_server, is_possible=disks.has_file_server, waits=True)
def hang_files(sweep: Sweep, rng: Random) -> str:
    """Nothing that touches the disk goes on, as when a file server does not answer."""
    assert sweep.server is not None
    seconds = round(rng.uniform(2, 45), 1)
    sweep.server.hang(seconds)
    return f"the file system hung for {seconds} s"


# clocks


def _with_clocks(sweep: Sweep) -> None:
    """Give the sweep's processes clocks that can be set."""
    sweep.environment |= clocks.set_up(sweep.folder)


JUMPS = (3600, -3600)
DAYS = (86_400, -86_400)


@act(*PLACES, prepare=_with_clocks, is_possible=clocks.can_compile)
def jump_clocks(sweep: Sweep, rng: Random) -> str:
    """The clocks of all machines at once, in the middle and for good."""
    seconds = rng.choice(JUMPS)
    clocks.jump(sweep.folder, seconds)
    return f"all clocks {seconds:+} s"


@act(*ON_QUEUE, prepare=_with_clocks, is_possible=clocks.can_compile)
def jump_node_clock(sweep: Sweep, rng: Random) -> str:
    """That of one node at work."""
    sweep.wait_for(sweep.workers)
    node, seconds = node_at_work(rng), rng.choice(JUMPS + DAYS)
    if not node:
        return ""
    clocks.jump(sweep.folder, seconds, node)
    return f"clock of {node} {seconds:+} s"


@act(*ON_QUEUE, when=BEFORE, prepare=_with_clocks, is_possible=clocks.can_compile)
def wrong_clock(sweep: Sweep, rng: Random) -> str:
    """A node is off by a day from the beginning."""
    node, seconds = rng.choice(clocks.NODES), rng.choice(DAYS)
    clocks.jump(sweep.folder, seconds, node)
    return f"clock of {node} {seconds:+} s"
