"""The driver's loop on a cluster that is there as long as the loop is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from hpc_sweep.budget import Budget
from hpc_sweep.clusters import current_queue, dashboard_lines, make_cluster, settings
from hpc_sweep.drive import Drive, Progress, Roster
from hpc_sweep.errors import BudgetError, Interrupted
from hpc_sweep.spec import ClusterSpec
from hpc_sweep.stops import Stops
from hpc_sweep.store import Journal, Lease, Outage, RunFolder, probe
from hpc_sweep.sweep.performance import DaskReport

NO_TIME = (
    "no unit was done before the end of the driver's job: give it more time "
    "(cluster.driver.walltime, cluster.walltime)"
)

MOST_LETTERS = 2000
"""Of an error's message in the event log."""


@contextlib.contextmanager
def told_of_its_end(
    progress: Progress, budget: Budget, stops: Stops, end: Callable[[dict[str, str]], None]
) -> Iterator[None]:
    """Context of a run whose end is written down: ``complete``, or the kind of error.

    Parameters
    ----------
    progress : Progress
        Of the run; one that ends with its job before it did anything says so.
    budget : Budget
        What it may use; a run that drained because of it says so.
    stops : Stops
        Why else it may have drained.
    end : callable
        Writes it down: ``result`` and, of errors, ``reason``.
    """
    told = {"result": "failed"}
    try:
        yield
        told = {"result": "complete"}
    except Interrupted as error:
        told = {"result": type(error).__name__}
        if stops.out_of_time() and not progress.units:
            told["reason"] = NO_TIME
            raise Interrupted(f"{error}; {NO_TIME}") from error
        if budget.is_used_up() and not stops.draining():
            told = {"result": BudgetError.__name__}
            raise budget.error() from None
        raise
    except BaseException as error:
        told = {"result": type(error).__name__, "reason": str(error)[:MOST_LETTERS]}
        raise
    finally:
        end(told)


@contextlib.contextmanager
def loop_on_cluster(
    section: ClusterSpec,
    run: RunFolder,
    journal: Journal,
    stops: Stops,
    lease: Lease,
    say: Callable[[str], None],
    enter: Callable[[str], None],
    draining: Callable[[], bool],
    report: DaskReport,
) -> Iterator[Callable[..., Drive]]:
    """Context with the cluster, which gives the driver's loop on it.

    Parameters
    ----------
    section : ClusterSpec
        Which cluster.
    run : RunFolder
        Of the driver; parts are written there.
    journal : Journal
        Told of jobs.
    stops : Stops
        Tells when to stop at once.
    lease : Lease
        Checked before each fold.
    say : callable
        Told what a person should know.
    enter : callable
        Told of phases.
    draining : callable
        Whether to hand out nothing more.
    report : DaskReport
        Begun and recorded.
    """
    cluster = make_cluster(section, run.path, journal.write)
    for text in cluster.warnings():
        say(f"warning: {text}")
    with settings(section.dashboard), contextlib.closing(cluster):
        enter("starting")
        client = cluster.start()
        port = cluster.dashboard_port()
        for text in dashboard_lines(port, current_queue()) if port is not None else ():
            say(text)
        if cluster.is_ours:
            report.begin(client)
        try:
            yield functools.partial(
                Drive,
                client=client,
                cluster=cluster,
                outage=Outage(lambda: probe(run.parts), section.disk_patience),
                start_timeout_s=section.start_timeout,
                stopped=stops.stopped,
                draining=draining,
                check_lease=lease.check,
                roster=Roster(client, cluster, journal),
            )
        finally:
            enter("closing")
            report.record(client)
