"""Kill a step of work on a store at each of its writes, and look whether the next try mends it.

``python killed.py FOLDER STEP``: FOLDER has a store, ``results.zarr`` with its run folder; STEP is
the name of a function here. Each try is a process forked from this one, so that a try takes no
imports; this one itself never touches zarr, whose thread no fork would have.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array  # noqa: F401, else each try that reads a store imports it
import test_change
import xarray as xr

from hpc_sweep.store import Ledger, Store, fold, set_pending, tidy

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
TREES = ("results.zarr", "results.zarr.run")
KILLED = -signal.SIGKILL


def change(store: Store) -> None:
    """Add a model, drop a value, and let a parameter become text."""
    tidy(store)
    planned = test_change.planned(store, test_change.KILLED_AFTER)
    if planned is not None:
        test_change.change_store(store, planned)


def rank(store: Store) -> None:
    """Rank anew what a change has left so; or fold what was added, where parts are."""
    ledger = Ledger.read(store)
    for chunk in list(ledger.complete()):
        fold(store, chunk, ledger.parts.get(chunk, []))
    ledger.remove_superfluous_parts()


def retry(store: Store) -> None:
    """Set what failed back to pending."""
    set_pending(store, [2])


def forked(work: Callable[[], None]) -> int:
    """Return the exit code of a fork that does something."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_at(number: int, folder: Path) -> None:
    """Have this process killed right before its write of that number, in or beside a store.

    What is written into a folder that is no store yet counts as its making.
    """
    left = [number]
    inside = tuple(f"{folder / name}/" for name in TREES)

    def hook(event: str, arguments: Any) -> None:
        target = arguments[1] if event == "os.rename" else arguments[0] if arguments else ""
        begins = event == "os.mkdir" and Path(target).parent == folder
        if event in WRITES and (begins or str(target).startswith(inside)):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files of a store, and those in its folder of parts."""
    files = [path for name in TREES for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def keep(folder: Path, pickled: Path) -> None:
    """Keep what a reader sees of a store."""
    pickled.write_bytes(pickle.dumps(xr.open_zarr(folder / TREES[0], chunks=None).load()))


def main(base: Path, step: Callable[[Store], None]) -> int:
    """Return how often the step was killed."""
    work, whole = base.with_name("work"), base.with_name("whole")

    def begin() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)

    def one_try() -> None:
        store = Store.open(work / TREES[0])
        store.remove_leftovers()
        step(store)

    def killed() -> None:
        kill_at(number, work)
        one_try()

    def look() -> None:
        before, after = (pickle.loads(path.read_bytes()) for path in pickles)
        if step is not retry:  # what is in parts is seen in between, as it is
            test_change.look(xr.open_zarr(work / TREES[0], chunks=None).load(), before, after)
        one_try()
        found, expected = tree(work), tree(whole)
        assert set(found) == set(expected), set(found) ^ set(expected)
        differ = [name for name in found if found[name] != expected[name]]
        assert not differ, differ
        assert [path.name for path in work.iterdir()] == [path.name for path in whole.iterdir()]

    begin()
    assert forked(one_try) == 0
    work.rename(whole)
    pickles = [base.with_name(f"{path.name}.pickle") for path in (base, whole)]
    for path, pickled in zip((base, whole), pickles, strict=True):
        assert forked(lambda path=path, pickled=pickled: keep(path, pickled)) == 0
    number = 0
    while True:
        begin()
        code = forked(killed)
        if code == 0:
            return number
        assert code == KILLED, code
        assert forked(look) == 0, f"killed before write {number}"
        number += 1


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # nothing here is about power cuts
    sys.stdout.write(str(main(Path(sys.argv[1]), globals()[sys.argv[2]])))
