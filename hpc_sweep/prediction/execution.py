"""One run of a prediction: look, take the lease, make the result, drive."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpc_sweep.budget import check_room
from hpc_sweep.choices import PORTIONS, Portion
from hpc_sweep.clusters import Ending, current_queue, has_ended
from hpc_sweep.drive import Progress
from hpc_sweep.errors import LeaseError, StoreError, listed
from hpc_sweep.prediction.asked import Asked
from hpc_sweep.prediction.boxes import Boxes
from hpc_sweep.prediction.destination import Destination, create_destination
from hpc_sweep.prediction.driving import account_for, drive
from hpc_sweep.prediction.prepared import Prediction, counts_of, prepare
from hpc_sweep.prediction.tasks import BoxTasks, Task
from hpc_sweep.prepare import group_of
from hpc_sweep.stops import Stops
from hpc_sweep.store import (
    MEANINGS,
    NOT_PREDICTED,
    RunFolder,
    give_all,
    group_access,
    hold,
    run_folder,
    write_asked,
)
from hpc_sweep.sweep import UNIT_SECONDS, DaskReport, look_where_this_runs
from hpc_sweep.versions import installed, versions
from hpc_sweep.work import Context


@dataclass(frozen=True)
class PredictionOutcome:
    """What a prediction came to.

    Attributes
    ----------
    path : Path
        Where it is.
    counts : dict
        The data's partitions, by `MEANINGS` of those that occur.
    reasons : dict
        Why partitions could not be predicted, with how many.
    progress : Progress or None
        Of this run; None when nothing was left to do.
    """

    path: Path
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    progress: Progress | None

    @property
    def n_failed(self) -> int:
        """Partitions that have a model which could not predict."""
        return self.counts.get(MEANINGS[NOT_PREDICTED], 0)


def execute_prediction(
    asked: Asked,
    *,
    on_start: Callable[[Prediction, int], None] = lambda prediction, left: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
    later: Callable[[Callable[[], None]], object] = lambda act: act(),
) -> PredictionOutcome:
    """Predict a data set with the best models of a store, or what is left of it.

    Parameters
    ----------
    asked : Asked
        What.
    on_start, on_progress, say : callable
        Told what is going to be done, how far it is, and what else happens.
    later : callable
        Given what can wait until the outcome is told, and must be called then: Dask's report.

    Raises
    ------
    SweepError
        Its kinds say what went wrong; see `hpc_sweep.errors`.
    """
    prediction = prepare(asked, say)
    opened, spec = prediction.store, prediction.spec
    run, outcome = run_folder(asked.out), None
    found = prediction.destination
    if found is not None and not found.open_boxes(prediction.cutting):
        outcome, status = _outcome(prediction, found, run, None)
        untidy = found.leftovers(run.parts) or run.lease.exists()
        if found.has_status(status) and not untidy:
            return outcome
    else:
        check_room(spec, opened.run)
    submits = "hpc-sweep predict with --submit"
    look_where_this_runs(spec, f"the spec of {opened.path}", say, submits)
    group = group_of(spec)
    stops = Stops(Ending(current_queue()))
    wanted = spec.cluster.performance_report
    report = DaskReport(wanted, run, stops, say, for_group=group is not None)
    with contextlib.ExitStack() as stack:
        stack.callback(later, report.keep)  # when the lease is free again
        with group_access(group is not None):
            place = run.make(group).lease
            held = hold(
                place, take_over=asked.take_over, rivals=run.rivals, has_ended=has_ended, say=say
            )
            try:
                lease = stack.enter_context(held)
            except LeaseError:
                if outcome is None:
                    raise
                return outcome  # its driver is about to tidy up
            stack.enter_context(stops.signals())
            if asked.spec is None:  # else who submitted it has left the command
                again = replace(asked.absolute(), take_over=False)
                write_asked(run, again.words(), group is not None)
            destination = _begin(prediction, group)
        destination.remove_leftovers(run.parts)
        boxes = Boxes(
            prediction.cutting,
            set(destination.open_boxes(prediction.cutting)),
        )
        on_start(prediction, len(boxes.open))
        required = ("hpc-sweep",) if asked.mixed_versions else ("hpc-sweep", "scikit-learn")
        context = Context(
            str(opened.path),
            spec.model_dump_json(),
            lease.holder.nonce,
            stops.unit_seconds(UNIT_SECONDS),
            {name: installed(name) for name in required},
            str(lease.path),
            group is not None,
            revision=opened.header.revision,
        )
        task = Task(
            prediction.data.model_dump_json(),
            str(destination.path),
            run.parts,
            asked.split,
            prediction.cutting,
            prediction.outputs,
            prediction.trust,
        )
        progress = None
        if boxes.open:
            with group_access(group is not None):
                account = account_for(prediction, destination, run)
            progress = drive(
                prediction,
                run,
                account,
                lease,
                stops,
                boxes,
                BoxTasks(context, task),
                report,
                on_progress,
                say,
            )
        lease.check()
        with group_access(group is not None):
            outcome, status = _outcome(prediction, destination, run, progress)
            destination.write_status(status)
            destination.remove_leftovers(run.parts)
    return outcome


def _begin(prediction: Prediction, group: int | None) -> Destination:
    """Return where predictions go, made now if nobody did; who does it holds the lease."""
    out = prediction.asked.out
    found = Destination.there(out)
    if found is not None:
        found.check(prediction.job)
        if found.header.steps != prediction.cutting.steps:
            raise StoreError(f"{found.path} was begun meanwhile; run the same command again")
        return found
    made = create_destination(
        out,
        prediction.job,
        prediction.cutting,
        prediction.outputs,
        prediction.coordinates(),
        prediction.status,
        versions=versions(),
        sweep=prediction.store,
        group=group,
    )
    if group is not None:
        give_all(made.path, group)
    return made


def _outcome(
    prediction: Prediction, destination: Destination, run: RunFolder, progress: Progress | None
) -> tuple[PredictionOutcome, NDArray[np.int8]]:
    """Return what it came to, and the status of all partitions."""
    status = prediction.status.copy()
    failures = destination.failures(run.parts)
    for place in failures:
        status.values[place] = NOT_PREDICTED
    reasons = dict(Counter(failures.values()).most_common())
    counts = counts_of(status, MEANINGS)
    return PredictionOutcome(destination.path, counts, reasons, progress), status.values


def predict(
    store: str | Path,
    data: str | Path,
    out: str | Path,
    settings: Iterable[str] = (),
    *,
    split: Portion = "all",
    proba: bool = False,
    trust: Sequence[str] = (),
    partial: bool = False,
    ignore_units: bool = False,
    take_over: bool = False,
    mixed_versions: bool = False,
) -> xr.Dataset:
    """Predict a data set with each partition's best model, and return the opened predictions.

    Partitions are found by their labels, whatever their order; those without a model, and samples
    that lack a feature, have the arrays' fill value. The same call goes on after a stop. What
    happens meanwhile goes to the logger ``hpc_sweep``.

    Parameters
    ----------
    store : path
        A finished store.
    data : path
        A data set with the sweep's features and labels: anything that ``data.store`` may be, or
        a loader ``module:function``. It needs no target.
    out : path
        A zarr store to make: one array for each target, with the data's own dimensions and
        coordinates.
    settings : iterable of str
        Overrides for this run, such as ``cluster.workers=4``.
    split : {"all", "train", "test"}
        Which samples: all, those that the sweep holds out, or the others.
    proba : bool
        Write ``predict_proba``, along ``class``, in place of ``predict``.
    trust : sequence of str
        Types that stored models may have besides scikit-learn's own; as for `load_model`.
    partial : bool
        Predict with what an unfinished store has.
    ignore_units : bool
        Take features although their ``units`` differ from those of the sweep's data.
    take_over : bool
        Take the lease from whoever has it.
    mixed_versions : bool
        Go on although scikit-learn has another minor version on the workers.

    Returns
    -------
    xarray.Dataset
        The predictions, lazily opened. ``status`` says of each partition whether it has a model.

    Raises
    ------
    SweepError
        Its kinds say what went wrong; see `hpc_sweep.errors`.
    """
    if split not in PORTIONS:
        raise ValueError(f"split is {split!r}; it is one of {listed(PORTIONS)}")
    asked = Asked(
        *(str(store), str(data), str(out), tuple(settings)),
        split=split,
        proba=proba,
        trust=(trust,) if isinstance(trust, str) else tuple(trust),
        partial=partial,
        ignore_units=ignore_units,
        take_over=take_over,
        mixed_versions=mixed_versions,
    )
    done = execute_prediction(asked, say=logging.getLogger("hpc_sweep").warning)
    opened: xr.Dataset = xr.open_zarr(done.path, chunks=None)
    return opened
