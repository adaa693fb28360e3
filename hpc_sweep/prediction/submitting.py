"""A prediction as a job of its own, as sweeps are submitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hpc_sweep.budget import check_room
from hpc_sweep.chain import Aim
from hpc_sweep.prediction.asked import Asked
from hpc_sweep.prediction.prepared import prepare
from hpc_sweep.prepare import group_of
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import Predictions, Store, run_folder, write_asked
from hpc_sweep.submission import (
    Scripts,
    Way,
    check_way,
    driver_scripts,
    leave_for_driver,
    submit_drivers_job,
)


def submit_prediction(
    asked: Asked,
    *,
    chain: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Scripts, list[str]]:
    """Submit the driver of a prediction as a job of its own; its run folder is ``OUT.run``.

    Parameters
    ----------
    asked : Asked
        What.
    chain : bool
        Queue successors until all is predicted.
    dry_run : bool
        Only make the scripts; nothing is written.
    say : callable
        Told what a person should know.

    Returns
    -------
    scripts : Scripts
        Of the jobs.
    jobs : list of str
        Their ids.

    Raises
    ------
    SpecError, PlanError, StoreError
        As `prepare` does, and where there is no queue to submit to.
    ClusterError
        With the queue's own words when it refuses.
    """
    asked, way = asked.absolute(), Way(chain)
    prediction = prepare(asked, say)
    check_room(prediction.spec, prediction.store.run)
    spec = _at(prediction.spec, asked.out)
    check_way(spec, f"the spec of {asked.store}", way)
    inside = replace(asked, settings=(), spec=str(run_folder(asked.out).spec))
    scripts = driver_scripts(spec, way, [*inside.words(), *(["--link"] if chain else [])])
    if dry_run:
        return scripts, []
    run = leave_for_driver(spec, way, scripts)
    again = [*asked.words(), "--submit", *(["--chain"] if chain else [])]
    write_asked(run, again, group_of(spec) is not None)
    return scripts, submit_drivers_job(spec, way)


def chain_of(asked: Asked) -> tuple[SweepSpec, Aim]:
    """Return what a link of a chain needs: whose run folder it is, and what is aimed at."""

    def done() -> tuple[int, ...]:
        found = Predictions.find(asked.out)
        count = 0 if found is None else len(found.boxes_there())
        return count, count, 0

    spec = asked.spec_for(Store.open(asked.store))
    return _at(spec, asked.out), Aim("prediction", done)


def _at(spec: SweepSpec, out: str) -> SweepSpec:
    """Return a spec whose run folder is that of the predictions."""
    output = spec.output.model_copy(update={"store": out})
    return spec.model_copy(update={"output": output})
