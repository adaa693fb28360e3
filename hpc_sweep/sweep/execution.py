"""One run of a sweep: look, take the lease, make or change the store, drive."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hpc_sweep.budget import check_budget
from hpc_sweep.choices import RETRIED
from hpc_sweep.clusters import QUEUES, Ending, current_queue, has_ended
from hpc_sweep.drive import Progress
from hpc_sweep.errors import Fault, LeaseError, SpecError, StoreError, listed
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.prepare import (
    Prepared,
    begin,
    changes_output,
    check_versions,
    group_of,
    load,
    moves_data,
    prepare,
    rank_anew,
    with_memory,
)
from hpc_sweep.spec import SweepSpec
from hpc_sweep.stops import Stops
from hpc_sweep.store import (
    Ledger,
    Store,
    give_all,
    group_access,
    hold,
    lacks_signature,
    remove_answers,
    run_folder,
)
from hpc_sweep.sweep.driving import Driving
from hpc_sweep.sweep.performance import DaskReport
from hpc_sweep.versions import installed
from hpc_sweep.work import Context

UNIT_SECONDS = 60.0
"""A unit that takes longer leaves a part of what it has; the rest is handed out again."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    store : Store
        The finished store.
    counts : dict
        Partitions by state.
    progress : Progress or None
        Of this run; None when there was nothing to fit.
    ranked : int
        Partitions whose candidates were ranked anew without a fit.
    """

    store: Store
    counts: Mapping[str, int]
    progress: Progress | None
    ranked: int = 0

    @property
    def n_failed(self) -> int:
        """Partitions without a result although they have data."""
        return sum(self.counts[state] for state in ("failed", "timed_out", "out_of_memory"))


def _check_share(prepared: Prepared, share: Share, *, changes: bool) -> None:
    """Refuse a share of a sweep whose store has to be made or changed first.

    Raises
    ------
    StoreError
        With what does it.
    """
    if share == WHOLE or not changes:
        return
    place, way = prepared.spec.output.store, f"hpc-sweep submit --drivers {share.count}"
    if prepared.store is None:
        raise StoreError(f"{place} does not exist; {way} makes it")
    what = "another output.models" if prepared.change is None else "other candidates"
    raise StoreError(f"{place} has {what} than the spec; {way} changes it")


def execute(
    spec: SweepSpec,
    *,
    origin: str = "the spec",
    take_over: bool = False,
    mixed_versions: bool = False,
    share: Share = WHOLE,
    retry: Collection[str] = (),
    on_start: Callable[[Prepared, Ledger], None] = lambda prepared, ledger: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
    later: Callable[[Callable[[], None]], object] = lambda act: act(),
) -> Outcome:
    """Run a sweep, or what is left of it.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    origin : str
        What messages call it.
    take_over : bool
        Take the store's lease from whoever has it.
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store, or the workers.
    share : Share
        What this driver does, where several work on one store.
    retry : collection of str
        Kinds of failure (``failed``, ``timed_out``, ``out_of_memory``) that are done again.
    on_start, on_progress, say : callable
        Told what is going to be done, how far it is, and what else happens.
    later : callable
        Given what can wait until the outcome is told, and must be called then: Dask's report.

    Raises
    ------
    SweepError
        Its kinds say what went wrong; see `hpc_sweep.errors`.
    """
    prepared = prepare(spec, origin, drivers=share.count)
    outcome = None
    if prepared.store is not None:
        ledger = Ledger.read(prepared.store, share)
        other = prepared.change is not None or changes_output(prepared)
        done = ledger.is_complete and not (other or moves_data(prepared) or retry)
        unsigned = lacks_signature(prepared.store, spec.output)
        if done:
            outcome = Outcome(prepared.store, ledger.summary(), None)
            if share != WHOLE or (ledger.is_tidy() and not unsigned):
                return outcome
        _check_share(prepared, share, changes=other)
        if outcome is None:
            check_versions(prepared.store, mixed=mixed_versions)
            check_budget(spec, prepared.store, prepared.change)
    else:
        _check_share(prepared, share, changes=True)
    look_where_this_runs(spec, origin, say)
    run = run_folder(spec.output.store, share)
    group = group_of(spec)
    for_group = bool(group is not None or (prepared.store and prepared.store.spec.output.group))
    stops = Stops(Ending(current_queue()))
    wanted = spec.cluster.performance_report
    report = DaskReport(wanted, run, stops, say, for_group=for_group)
    with contextlib.ExitStack() as stack:
        stack.callback(later, report.keep)  # when the store is free again
        # only while files are made: jobs and workers keep what the user's umask says
        with group_access(for_group):
            place = run.make(group).lease
            held = hold(place, take_over=take_over, rivals=run.rivals, has_ended=has_ended, say=say)
            try:
                lease = stack.enter_context(held)
            except LeaseError:
                if outcome is None:
                    raise
                return outcome  # its driver is about to tidy up
            stack.enter_context(stops.signals())
            store = begin(prepared, share, retry, say)
            if group is not None:
                give_all(store.path, group)
            ledger = Ledger.read(store, share)
            ledger.remove_superfluous_parts()
            ranked = rank_anew(ledger, lease.check)
        if ledger.is_complete:
            return Outcome(store, ledger.summary(), None, ranked)
        on_start(prepared, ledger)
        required = ("hpc-sweep",) if mixed_versions else ("hpc-sweep", "scikit-learn")
        context = Context(
            str(store.path),
            spec.model_dump_json(),
            lease.holder.nonce,
            stops.unit_seconds(UNIT_SECONDS),
            {name: installed(name) for name in required},
            str(lease.path),
            for_group,
            spec.search.timeout,
            store.header.revision,
        )
        driving = Driving(prepared, run, ledger, lease, stops, context, report, on_progress, say)
        progress = driving.drive()
        ledger.remove_superfluous_parts()
        if share == WHOLE:
            store.remove_leftovers()
            remove_answers(run)
    return Outcome(store, ledger.summary(), progress, ranked)


def run(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
    take_over: bool = False,
    mixed_versions: bool = False,
    retry: Collection[str] = (),
    memory: str | None = None,
) -> xr.Dataset:
    """Run a sweep from Python or a notebook, and return the opened results.

    What the command would print of what happens meanwhile goes to the logger ``hpc_sweep``.

    Parameters
    ----------
    spec : path, mapping or SweepSpec
        The spec, or the file that holds it.
    settings : iterable of str
        Overrides such as ``search.cv=3``.
    store : path, optional
        Override of ``output.store``.
    take_over : bool
        Take the store's lease from whoever has it.
    mixed_versions : bool
        Go on although scikit-learn has another minor version than the store, or the workers.
    retry : collection of str
        Kinds of failure (``failed``, ``timed_out``, ``out_of_memory``) that are done again.
    memory : str, optional
        Of each worker in this run: ``8GB``, or ``2x`` as much as the spec gives it.

    Returns
    -------
    xarray.Dataset
        The results, lazily opened. What is done already is not done again.
    """
    unknown = [kind for kind in retry if kind not in RETRIED]
    if unknown:
        raise ValueError(f"retry has {listed(unknown)}; there are {listed(RETRIED)}")
    loaded = load(spec, settings, store=store)
    done = execute(
        loaded if memory is None else with_memory(loaded, memory),
        take_over=take_over,
        mixed_versions=mixed_versions,
        retry=retry,
        say=logging.getLogger("hpc_sweep").warning,
    )
    return done.store.dataset()


def look_where_this_runs(
    spec: SweepSpec, origin: str, say: Callable[[str], None], command: str = "hpc-sweep submit"
) -> None:
    """Warn of a driver outside a job of the queue that it uses, or refuse it.

    `command` gives it a job.
    """
    if spec.cluster.kind not in QUEUES or current_queue() is not None:
        return
    if spec.cluster.place == "one_job":
        message = f"one_job runs inside a job, and this is none; use {command}"
        raise SpecError([Fault("cluster.place", message)], origin)
    what = f"login nodes usually end or forbid long processes; {command} gives it a job"
    if spec.cluster.outside_jobs == "refuse":
        message = f"refuses a driver outside a job here: {what}"
        raise SpecError([Fault("cluster.outside_jobs", message)], origin)
    say(f"the driver runs outside a job: {what}")
