"""Durable files: whole or not at all, and the disk's refusals as one kind of error."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from builders import fill, make_read_only, small_disk

from hpc_sweep.errors import DISK_ERRORS, EXIT_CLUSTER, DiskError, disk_errors
from hpc_sweep.store.durable import write_durably


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for content in (b"first, and longer", b"second", b""):
        write_durably(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
        assert names(tmp_path) == ["a"]


def test_order_of_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content reaches the disk before the name does, and the name before the return."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("folder" if place == tmp_path else "content")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_durably(tmp_path / "a", b"content")
    assert steps == ["content", "rename", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interruption_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_durably(tmp_path / "a", b"old")

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os if step == "fsync" else Path, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_durably(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_two_writers_of_one_file_leave_one_of_both(tmp_path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    threads = [
        threading.Thread(target=write_durably, args=(tmp_path / "a", content))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        write_durably(disk / "a", b"old")
        fill(disk)
        with pytest.raises(
            DiskError, match=r"No space left on device: cannot write .*/a;"
        ) as raised:
            write_durably(disk / "a", bytes(10_000))
        assert raised.value.errno == errno.ENOSPC
        assert raised.value.exit_code == EXIT_CLUSTER
        assert (disk / "a").read_bytes() == b"old"
        assert names(disk) == ["a", "filling"]


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        fill(disk, but=20_000)
        with pytest.raises(DiskError):
            write_durably(disk / "a", bytes(40_000))
        assert names(disk) == ["filling"]
        write_durably(disk / "a", bytes(9_000))


def test_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        make_read_only(disk)
        with pytest.raises(DiskError, match="Read-only file system") as raised:
            write_durably(disk / "a", b"content")
        assert raised.value.errno == errno.EROFS
        assert names(disk) == []


def test_a_folder_that_is_gone_is_not_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "none" / "a", b"content")


@pytest.mark.parametrize("number", sorted(DISK_ERRORS))
def test_refusals_of_the_disk_are_told_apart(number: int) -> None:
    with pytest.raises(DiskError) as raised, disk_errors(Path("a")):
        raise OSError(number, os.strerror(number))
    assert raised.value.errno == number
    assert os.strerror(number) in str(raised.value)
    assert "the same command again" in str(raised.value)


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "x"), OSError("x"), ValueError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_errors(Path("a")):
        raise error
    assert raised.value is error


def test_nested_contexts_say_it_once() -> None:
    with pytest.raises(DiskError) as raised, disk_errors(Path("outer")), disk_errors(Path("inner")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(raised.value).count("cannot write") == 1
    assert "inner" in str(raised.value)


def test_the_error_travels_from_a_worker() -> None:
    error = DiskError(errno.ENOSPC, "No space left on device: cannot write a; make room")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is DiskError
    assert (back.errno, str(back)) == (error.errno, str(error))
