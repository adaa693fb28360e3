"""Disks of the drill: one with a quota, and one behind a server that may be slow or hang."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

SMALL_KILOBYTES = 24_000

IMAGE_BYTES = 160 * 2**20
"""Of a btrfs, which takes at least 114 MB."""


def fill(disk: Path) -> Path:
    """Write a file until the disk takes no more; return it."""
    file = disk / "filling"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while opened.write(bytes(size)) == size:
                    pass
    return file


@contextlib.contextmanager
def small(folder: Path, run: Path) -> Iterator[Path]:
    """Mount a small disk while the context lasts, but not for the logs of a run folder on it.

    Parameters
    ----------
    folder : Path
        What it is made in.
    run : Path
        Where the run folder is going to be on the disk, relative: a queue keeps the logs of its
        jobs open, and as long as a file is open no disk can be made read-only.
    """
    disk, aside = folder / "disk", folder / "logs"
    disk.mkdir()
    aside.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_KILOBYTES}k", "tmpfs", disk)
    logs = disk / run / "logs"
    try:
        logs.mkdir(parents=True)
        _run("mount", "--bind", aside, logs)
        yield disk
        _unmount(logs)
    finally:
        _unmount(disk)


@contextlib.contextmanager
def with_quota(folder: Path) -> Iterator[Path]:
    """Mount a disk while the context lasts; of its folder ``store`` a quota can be asked."""
    image, disk = folder / "quota.img", folder / "quota"
    disk.mkdir()
    image.touch()
    os.truncate(image, IMAGE_BYTES)
    _run("mkfs.btrfs", "-q", image)
    _run("mount", "-o", "loop", image, disk)
    try:
        _run("btrfs", "quota", "enable", disk)
        _run("btrfs", "subvolume", "create", disk / "store")
        yield disk
    finally:
        _unmount(disk)
        image.unlink()


def limit(disk: Path, most: str) -> None:
    """Set the quota of a disk's ``store``: bytes, as btrfs takes them, or ``none``."""
    # by its number, the first one: named by its path it is itself refused when it is full
    _run("btrfs", "qgroup", "limit", most, "0/256", disk)


class FileServer:
    """A folder seen through a process (FUSE), as on a network file system.

    Parameters
    ----------
    folder : Path
        What there is.
    seen : Path
        Where it is seen; made.
    """

    def __init__(self, folder: Path, seen: Path) -> None:
        self.seen = seen
        seen.mkdir()
        self._process = subprocess.Popen(
            ["bindfs", "-f", str(folder), str(seen)], stderr=subprocess.PIPE, process_group=0
        )
        end = time.monotonic() + 20
        while not seen.is_mount():
            if self._process.poll() is not None or time.monotonic() > end:
                raise OSError(f"bindfs does not come up: {self._process.communicate()[1]!r}")
            time.sleep(0.01)

    def hang(self, seconds: float) -> None:
        """Answer nothing for so long."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def be_slow(self, rng: Random) -> Callable[[], None]:
        """Answer now and then only, until what is returned is called."""
        stopped = threading.Event()

        def pulse() -> None:
            while not stopped.wait(rng.uniform(0.01, 0.1)):
                self.hang(rng.uniform(0.05, 0.5))

        thread = threading.Thread(target=pulse, daemon=True)
        thread.start()

        def end() -> None:
            stopped.set()
            thread.join()

        return end

    def close(self) -> None:
        """Unmount it, which ends the process."""
        self._process.send_signal(signal.SIGCONT)
        _unmount(self.seen)
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


@functools.cache
def has_quota() -> bool:
    """Return whether this machine can mount a disk with a quota, and keeps it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with with_quota(Path(folder)) as disk:
                limit(disk, "16k")
                try:
                    (disk / "store" / "file").write_bytes(bytes(2**20))
                except OSError:
                    return True
                return False
        except (OSError, subprocess.CalledProcessError):
            return False


@functools.cache
def has_file_server() -> bool:
    """Return whether this machine can show a folder through a process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "there").mkdir()
        try:
            FileServer(Path(folder) / "there", Path(folder) / "seen").close()
        except (OSError, subprocess.CalledProcessError):
            return False
        return True


def _unmount(disk: Path) -> None:
    """Unmount a disk, at once or as soon as nobody uses it."""
    if subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode:
        _run("umount", "--lazy", disk)


def _run(*words: object) -> None:
    subprocess.run(list(map(str, words)), capture_output=True, check=True)
