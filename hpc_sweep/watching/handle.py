"""A sweep that goes on without whoever asked for it: for notebooks and programs."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from hpc_sweep.cancellation import cancel
from hpc_sweep.choices import RETRIED
from hpc_sweep.clusters import QUEUES
from hpc_sweep.detached import start_driver
from hpc_sweep.errors import StoreError, listed
from hpc_sweep.prepare import load, with_memory
from hpc_sweep.results import open_results
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import real_place, run_folder
from hpc_sweep.submission import Way
from hpc_sweep.submission import submit as submit_jobs
from hpc_sweep.watching.following import Seen, Watching

EVERY_S = 2.0


def submit(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
    chain: bool = False,
    drivers: int = 0,
    mixed_versions: bool = False,
    retry: Collection[str] = (),
    memory: str | None = None,
) -> Handle:
    """Start a sweep that goes on when this process ends, and return its handle.

    With a queue it is what ``hpc-sweep submit`` does: the driver is a job. Else the driver is a
    process of its own on this machine, which neither a kernel's restart nor a logout ends; where
    the system ends all processes of a session or a container, it ends with them.

    Parameters
    ----------
    spec : path, mapping or SweepSpec
        The spec, or the file that holds it.
    settings : iterable of str
        Overrides such as ``search.cv=3``.
    store : path, optional
        Override of ``output.store``.
    chain : bool
        Queue successors until the sweep is complete.
    drivers : int
        So many jobs of one node, each with a driver and a share of the work; 0: one driver.
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store, or the workers.
    retry : collection of str
        Kinds of failure (``failed``, ``timed_out``, ``out_of_memory``) that are done again.
    memory : str, optional
        Of each worker in this run: ``8GB``, or ``2x`` as much as the spec gives it.

    Returns
    -------
    Handle
        What is done already is not done again.

    Raises
    ------
    SpecError, PlanError, StoreError
        Where spec, data and store do not fit together; nothing was started.
    ClusterError
        With the queue's own words when it refuses.
    LeaseError
        When another driver works on the store; `attach` gives its handle.
    """
    unknown = [kind for kind in retry if kind not in RETRIED]
    if unknown:
        raise ValueError(f"retry has {listed(unknown)}; there are {listed(RETRIED)}")
    loaded = load(spec, settings, store=store)
    loaded = loaded if memory is None else with_memory(loaded, memory)
    if loaded.cluster.kind in QUEUES:
        way = Way(chain, drivers, mixed_versions, tuple(retry))
        submit_jobs(loaded, way=way, say=logging.getLogger("hpc_sweep").warning)
    elif chain or drivers:
        raise ValueError(f"chain and drivers need a queue; cluster.kind is {loaded.cluster.kind}")
    else:
        start_driver(loaded, mixed_versions=mixed_versions, retry=retry)
    return Handle(loaded.output.store)


def attach(store: str | Path) -> Handle:
    """Return the handle of a sweep that was begun anywhere, by this or another process.

    Raises
    ------
    StoreError
        When there is neither a store nor a run folder.
    """
    place = real_place(store)
    if not place.exists() and not run_folder(place).path.exists():
        raise StoreError(f"{place} does not exist, nor a run folder of it; hpc_sweep.submit begins")
    return Handle(place)


class Handle:
    """A sweep that goes on elsewhere.

    It is made by `submit` and `attach`, holds nothing but the store's path, and may be pickled.

    Parameters
    ----------
    store : path
        The store; it may not be there yet.
    """

    def __init__(self, store: str | Path) -> None:
        self.store = real_place(store)
        self._watching = Watching(self.store)

    def __getstate__(self) -> str:
        return str(self.store)

    def __setstate__(self, store: str) -> None:
        self.__init__(store)  # type: ignore[misc]

    def status(self) -> dict[str, Any]:
        """Return how far it is now, as ``hpc-sweep status --watch --json`` does.

        Returns
        -------
        dict
            ``state`` (``absent``, ``queued``, ``running``, ``complete``, ``stopped``),
            ``share_done``, ``fits``, ``fits_done``, ``fits_per_second``, ``left_s``, ``workers``,
            ``reasons`` of failures and more.
        """
        return self._watching.look().facts()

    def results(self) -> xr.Dataset:
        """Open what there is: what is pending reads as NaN, −1 or ``""``."""
        return open_results(self.store)

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the sweep is complete or has stopped, and return which.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        TimeoutError
            When it is neither by then; the sweep goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not (seen := self._watching.look()).has_ended:
            left = EVERY_S if end is None else end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"after {timeout:g} s: {_sentence(self.store, seen)}")
            time.sleep(min(EVERY_S, left))
        return seen.state

    def cancel(self) -> list[str]:
        """End its jobs, or its driver; what is done is kept, and `submit` goes on from there.

        Returns
        -------
        list of str
            Those that were alive.
        """
        return cancel(self.store)

    def log(self, lines: int = 50) -> str:
        """Return the end of the driver's newest log, ``""`` while there is none."""
        logs = [path for path in run_folder(self.store).logs.glob("driver-*") if path.is_file()]
        if not logs:
            return ""
        newest = max(logs, key=lambda path: path.stat().st_mtime)
        return "\n".join(newest.read_text(errors="replace").splitlines()[-lines:])

    def __repr__(self) -> str:
        return f"<sweep {self._described()}>"

    def _repr_html_(self) -> str:
        """Return it for a notebook."""
        try:
            rows = _rows(self.store, self._watching.look())
        except (OSError, RuntimeError, ValueError) as error:
            rows = {"store": str(self.store), "state": f"cannot be read: {error}"}
        cells = (
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<table>{''.join(cells)}</table>"

    def _described(self) -> str:
        try:
            return _sentence(self.store, self._watching.look())
        except (OSError, RuntimeError, ValueError) as error:  # showing a handle never raises
            return f"{self.store}: cannot be read: {error}"


def _sentence(store: Path, seen: Seen) -> str:
    rows = _rows(store, seen)
    return ", ".join([f"{rows.pop('store')}: {rows.pop('state')}", *rows.values()])


def _rows(store: Path, seen: Seen) -> dict[str, str]:
    """Return what there is to say, by what it is about."""
    of = seen.progress
    rows = {"store": str(store), "state": seen.state}
    if of.phase and of.phase != seen.state:
        rows["phase"] = of.phase
    if of.cells:
        rows["fits"] = f"{of.all_fits_done:,} of {of.all_fits:,} {of.counts}"
        rows["done"] = f"{of.share_done:.1%} done"
    if seen.state == "running" and of.cells:
        rows["workers"] = f"{of.workers:,} of {of.workers_asked:,} workers"
        if of.left_s is not None:
            rows["time left"] = f"about {max(1, round(of.left_s / 60))} min left"
    if of.failed:
        what = "candidates" if of.counts == "fits" else "predictions"
        ((reason, _),) = of.reasons.most_common(1) or [("", 0)]
        rows["failed"] = f"{of.failed:,} {what} failed" + (f": {reason}" if reason else "")
    return rows
