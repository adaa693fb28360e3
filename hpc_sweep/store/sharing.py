"""A store that a group shares: what one account begins, another one goes on with.

Folders belong to the group and hand that on (setgid), files can be written by it (umask). Keys
are no part of it.
"""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.errors import disk_errors, listed, nearest

FOLDER_MODE = 0o2070
FILE_MODE = 0o060


def group_id(name: str) -> int:
    """Return the number of a group."""
    return grp.getgrnam(name).gr_gid


def group_fault(name: str) -> str:
    """Return why this account cannot give files to a group, or ``""``."""
    mine = {os.getegid(), *os.getgroups()}
    names = sorted(group.gr_name for group in grp.getgrall() if group.gr_gid in mine)
    try:
        number = group_id(name)
    except KeyError:
        return f"there is no group '{name}'{nearest(name, names)}; yours are {listed(names)}"
    if number in mine or os.geteuid() == 0:
        return ""
    return (
        f"you are not a member of '{name}'; your groups are {listed(names)} (a membership that is "
        "new needs a new login)"
    )


@contextlib.contextmanager
def group_access(wanted: bool) -> Iterator[None]:
    """Context in which new files and folders get the group's permissions, if that is wanted."""
    if not wanted:
        yield
        return
    before = os.umask(0o077)
    os.umask(before & ~0o070)
    try:
        yield
    finally:
        os.umask(before)


def make_folder(path: Path, group: int | None) -> None:
    """Make a folder, and those above it that are not there; give what is made to a group."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        if group is not None:
            give(folder, group)
    if group is not None:
        give(path, group)


def give(folder: Path, group: int) -> None:
    """Give a folder and the files in it to a group, unless that is done already.

    Raises
    ------
    DiskError
        When they belong to another account, which has not done it.
    """
    with disk_errors(folder):
        state = folder.stat()
        if state.st_gid == group and state.st_mode & FOLDER_MODE == FOLDER_MODE:
            return
        for file in folder.iterdir():
            if file.is_file() and not file.is_symlink():
                _change(file, group, FILE_MODE)
        _change(folder, group, FOLDER_MODE)  # last, so that a kill before it is made up for


def give_all(top: Path, group: int) -> None:
    """Give a folder and all folders and files below it to a group."""
    for folder, _, _ in os.walk(top, topdown=False):
        give(Path(folder), group)


def _change(path: Path, group: int, mode: int) -> None:
    os.chown(path, -1, group)
    path.chmod(path.stat().st_mode & 0o7777 | mode)
