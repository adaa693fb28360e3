"""``hpc-sweep predict``: each partition's best model over a whole data set."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from hpc_sweep.choices import CLUSTER_KINDS, PORTIONS
from hpc_sweep.cli.options import (
    dashboard_option,
    mixed_versions_option,
    performance_report_option,
    performance_report_settings,
)
from hpc_sweep.errors import EXIT_OK, EXIT_PARTITIONS
from hpc_sweep.printing import lasting

if TYPE_CHECKING:
    from hpc_sweep.prediction import Asked, Prediction, PredictionOutcome

EPILOG = """\b
Examples:
  hpc-sweep predict results.zarr next_year.zarr predicted.zarr
  hpc-sweep predict results.zarr data.zarr held_out.zarr --split test
  hpc-sweep predict results.zarr data.zarr odds.zarr --proba --set cluster.workers=64
  hpc-sweep predict results.zarr data.zarr out.zarr --submit --chain
"""


@click.command(epilog=EPILOG)
@click.argument("store", metavar="STORE")
@click.argument("data", metavar="DATA")
@click.argument("out", metavar="OUT")
@click.option(
    "--split",
    type=click.Choice(PORTIONS),
    default="all",
    help="Which samples: all, those that the sweep holds out (test), or the others (train).",
)
@click.option("--proba", is_flag=True, help="Write probabilities of classes, along 'class'.")
@click.option(
    "--trust",
    multiple=True,
    metavar="TYPE",
    help="A type that stored models may have besides scikit-learn's own. May be repeated.",
)
@click.option("--partial", is_flag=True, help="Predict with what an unfinished store has.")
@click.option(
    "--ignore-units",
    is_flag=True,
    help="Take features although their units differ from those of the sweep's data.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.")
@click.option(
    "--cluster", metavar="KIND", help=f"{', '.join(CLUSTER_KINDS)}, or package.module:Class."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the stored spec's cluster section, such as cluster.memory=4GB. May be "
    "repeated.",
)
@click.option("--take-over", is_flag=True, help="Take OUT from another driver; be sure it is dead.")
@dashboard_option
@performance_report_option
@mixed_versions_option
@click.option(
    "--submit", is_flag=True, help="As jobs of the queue: the driver gets a job of its own."
)
@click.option(
    "--chain", is_flag=True, help="With --submit: queue successors until all is predicted."
)
@click.option(
    "--one-job",
    is_flag=True,
    help="With --submit: driver and workers together in one job, in place of jobs for the workers.",
)
@click.option("--nodes", type=click.IntRange(min=1), help="Nodes of that job, or worker jobs.")
@click.option("--dry-run", is_flag=True, help="Print the scripts of --submit; nothing is written.")
@click.option("--spec", hidden=True, help="What --submit leaves for its job.")
@click.option("--link", is_flag=True, hidden=True, help="Be a link of --chain.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@click.pass_context
def predict(
    ctx: click.Context,
    /,
    workers: int | None,
    cluster: str | None,
    settings: tuple[str, ...],
    dashboard: bool,
    performance_report: bool | None,
    submit: bool,
    chain: bool,
    one_job: bool,
    nodes: int | None,
    dry_run: bool,
    link: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict DATA with the best model of each partition of STORE, into OUT.

    DATA is a data set with the features and labels of the sweep, the same one or another; it needs
    no target. OUT is a zarr store with DATA's dimensions and coordinates. Run the same command
    again to go on after a stop.
    """
    from hpc_sweep.chain import chain_link
    from hpc_sweep.cli.progress import show_progress
    from hpc_sweep.keeping import explained
    from hpc_sweep.prediction import Asked, chain_of, execute_prediction

    if not ctx.find_root().params["debug"]:
        # told at the very end of futures that Dask drops when its connections close by intent
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    settings += ("cluster.dashboard=true",) * dashboard
    settings += performance_report_settings(performance_report)
    settings += ("cluster.place=one_job",) * one_job
    if cluster is not None:
        settings += (f"cluster.kind={json.dumps(cluster)}",)
    if workers is not None:
        settings += (f"cluster.workers={workers}", "cluster.nodes=null")
    if nodes is not None:
        settings += (f"cluster.nodes={nodes}", "cluster.workers=null")
    asked = Asked(settings=settings, **options)
    if submit or dry_run:
        _submit(asked, chain, dry_run, as_json)
        return
    if chain or one_job:
        raise click.UsageError("--chain and --one-job go with --submit")

    def announce(prediction: Prediction, left: int) -> None:
        if not as_json:
            with shown.aside():
                click.echo(_plan(prediction, left))

    with lasting("stdout"), ExitStack() as last:
        with explained(asked.store), show_progress() as shown, ExitStack() as stack:
            if link:
                spec, aim = chain_of(asked)
                stack.enter_context(chain_link(spec, shown.say, aim=aim))
            outcome = execute_prediction(
                asked,
                on_start=announce,
                on_progress=shown.update,
                say=shown.say,
                later=last.callback,
            )
        click.echo(json.dumps(_facts(outcome), indent=2) if as_json else _summary(outcome))
    ctx.exit(EXIT_PARTITIONS if outcome.n_failed else EXIT_OK)


def _submit(asked: Asked, chain: bool, dry_run: bool, as_json: bool) -> None:
    from hpc_sweep.cli.submit import show_scripts, submitted_text
    from hpc_sweep.prediction import submit_prediction

    def say(text: str) -> None:
        click.echo(text, err=True)

    scripts, jobs = submit_prediction(asked, chain=chain, dry_run=dry_run, say=say)
    if dry_run:
        show_scripts(scripts, as_json)
    elif as_json:
        logs = f"{asked.out}.run/logs"
        click.echo(json.dumps({"out": asked.out, "jobs": jobs, "logs": logs}, indent=2))
    else:
        click.echo("\n".join(submitted_text(jobs, asked.out, 0, chain)))
        click.echo(f"watch:  hpc-sweep status {asked.out} --watch")
        click.echo(f"cancel: hpc-sweep cancel {asked.out}")


def _plan(prediction: Prediction, left: int) -> str:
    cutting = prediction.cutting
    lengths = ", ".join(
        f"{dim}: {n:,}" for dim, n in zip(cutting.dims, cutting.lengths, strict=True)
    )
    steps = ", ".join(f"{step:,}" for step in cutting.steps)
    arrays = ", ".join(array.name for array in prediction.outputs.arrays)
    done = len(cutting) - left
    return "\n".join(
        [
            f"predicts  {arrays} ({lengths})",
            f"chunks    {len(cutting):,} of ({steps})" + (f", {done:,} there" if done else ""),
            f"workers   {prediction.cluster.workers} ({prediction.spec.cluster.kind})",
        ]
    )


def _facts(outcome: PredictionOutcome) -> dict[str, object]:
    return {
        "out": str(outcome.path),
        "partitions": dict(outcome.counts),
        "reasons": dict(outcome.reasons),
        "seconds": None if outcome.progress is None else round(outcome.progress.seconds, 3),
    }


def _summary(outcome: PredictionOutcome) -> str:
    from hpc_sweep.cli.facts import counted

    total = sum(outcome.counts.values())
    done = outcome.counts.get("done", 0)
    head = f"{done:,} of {counted(total, 'partition')} predicted"
    if outcome.progress is None:
        head = f"complete already, nothing to do: {head}"
    others = {name: count for name, count in outcome.counts.items() if name != "done"}
    lines = [head]
    if others:
        texts = ", ".join(f"{count:,} {name}" for name, count in others.items())
        lines.append(f"fill value: {texts} (status in {outcome.path})")
    lines += [f"failed: {count:,} × {reason}" for reason, count in outcome.reasons.items()][:3]
    lines.append(f'open:  xarray.open_zarr("{outcome.path}")')
    return "\n".join(lines)
