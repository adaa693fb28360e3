"""The driving of one run of a prediction, and what it uses."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

from hpc_sweep.budget import Budget, account_of, drivers_cores
from hpc_sweep.drive import Progress
from hpc_sweep.errors import SweepError
from hpc_sweep.prediction.boxes import Boxes
from hpc_sweep.prediction.destination import Destination
from hpc_sweep.prediction.prepared import Prediction
from hpc_sweep.prediction.tasks import BoxTasks
from hpc_sweep.stops import Stops
from hpc_sweep.store import Journal, Lease, RunFolder
from hpc_sweep.sweep import DaskReport, loop_on_cluster, told_of_its_end


def account_for(prediction: Prediction, destination: Destination, run: RunFolder) -> Journal:
    """Return the log of what it uses: beside those of the sweep, else its own event log."""
    sweep = prediction.store.run
    if not os.access(sweep.path, os.W_OK):
        return Journal(run.events)
    account = account_of(sweep, destination.header.id)
    account.path.touch()
    return account


def drive(
    prediction: Prediction,
    run: RunFolder,
    account: Journal,
    lease: Lease,
    stops: Stops,
    boxes: Boxes,
    tasks: BoxTasks,
    report: DaskReport,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Progress:
    """Have all boxes predicted that are left."""
    journal, total = Journal(run.events), len(prediction.cutting)
    cutting, section, workers = prediction.cutting, prediction.spec.cluster, prediction.cluster
    progress = Progress(
        total,
        total - len(boxes.open),
        name=prediction.store.spec.name,
        fits_per_cell=math.prod(cutting.lengths) / total,
        counts="samples",
        workers_asked=workers.workers,
        chunks=total,
        chunks_folded=total - len(boxes.open),
        chunks_per_cell=1,
    )
    holder = lease.holder
    own_cores, apart = drivers_cores(section, workers.workers, holder.job)
    budget = Budget(account, section.max_core_hours, own_cores, apart)
    using = {"own_cores": own_cores, "workers_apart": apart, **workers.charge_facts()}
    journal.write(
        "run_started",
        host=holder.host,
        pid=holder.pid,
        job=holder.job,
        cluster=section.kind,
        workers=workers.workers,
        name=progress.name,
        counts=progress.counts,
        cells=total,
        cells_done=progress.cells_done,
        fits_per_cell=progress.fits_per_cell,
        chunks=total,
        chunks_per_cell=1,
        chunks_folded=progress.cells_done,
        **using,
    )
    is_apart = account.path != journal.path
    if is_apart:
        account.write("run_started", out=str(prediction.asked.out), **using)

    def enter(phase: str) -> None:
        progress.phase = phase
        journal.write("phase", phase=phase)
        on_progress(progress)

    def tick(progress: Progress) -> None:
        if budget.update(progress.workers) and is_apart:
            journal.write("workers", workers=progress.workers)
        on_progress(progress)

    def end(told: dict[str, str]) -> None:
        if is_apart:
            account.write("run_ended")
        journal.write(
            "run_ended",
            **told,
            units=progress.units,
            failed=progress.failed,
            seconds=round(progress.seconds, 3),
        )

    def draining() -> bool:
        return stops.draining() or budget.is_used_up()

    looping = loop_on_cluster(section, run, journal, stops, lease, say, enter, draining, report)
    with told_of_its_end(progress, budget, stops, end):
        with looping as loop:
            enter("predicting")
            loop(
                ledger=boxes,
                tasks=tasks,
                journal=journal,
                progress=progress,
                on_progress=tick,
            ).run(boxes.units(workers.workers))
        if not boxes.is_complete:
            raise SweepError(f"all units are done, but {len(boxes.open)} chunks are not there")
    return progress
