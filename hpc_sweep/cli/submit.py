"""``hpc-sweep submit``: the driver as a job of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from hpc_sweep.cli.options import (
    as_json,
    dashboard_option,
    loaded_spec,
    mixed_versions_option,
    performance_report_option,
    performance_report_settings,
    retry_options,
    spec_options,
)

if TYPE_CHECKING:
    from hpc_sweep.submission import Scripts


@click.command()
@spec_options
@click.option(
    "--chain", is_flag=True, help="Queue successors until the sweep is complete, two at the most."
)
@click.option(
    "--one-job",
    is_flag=True,
    help="Driver and workers together in one job, in place of jobs for the workers.",
)
@click.option("--nodes", type=click.IntRange(min=1), help="Nodes of that job, or worker jobs.")
@retry_options
@dashboard_option
@performance_report_option
@mixed_versions_option
@click.option(
    "--drivers",
    type=click.IntRange(min=1),
    metavar="K",
    help="K jobs of one node instead, each with a driver, local workers, and a share of the work.",
)
@click.option("--dry-run", is_flag=True, help="Print both scripts; nothing is written.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def submit(
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    chain: bool,
    one_job: bool,
    nodes: int | None,
    retry: tuple[str, ...],
    memory: str | None,
    dashboard: bool,
    performance_report: bool | None,
    mixed_versions: bool,
    drivers: int | None,
    dry_run: bool,
    json_: bool,
) -> None:
    """Submit the sweep of SPEC: a small job for the driver, which submits the worker jobs.

    Nothing stays on the login node. Submit again to go on after a walltime or a kill, or let
    --chain do that.

    \b
    Examples:
      hpc-sweep submit sweep.yaml --cluster slurm --workers 48 --set cluster.queue=compute
      hpc-sweep submit sweep.yaml --chain --set cluster.walltime=02:00:00
      hpc-sweep submit sweep.yaml --one-job --nodes 4
      hpc-sweep submit sweep.yaml --dry-run
    """
    from hpc_sweep.submission import Way, make_scripts, warnings_of
    from hpc_sweep.submission import submit as submit_driver

    if one_job:
        settings += ("cluster.place=one_job",)
    if nodes is not None:
        settings += (f"cluster.nodes={nodes}", "cluster.workers=null")
    if dashboard:
        settings += ("cluster.dashboard=true",)
    settings += performance_report_settings(performance_report)
    loaded = loaded_spec(spec, settings, cluster, workers, store, memory)
    way = Way(chain, drivers or 0, mixed_versions, retry)
    if dry_run:
        show_scripts(make_scripts(loaded, spec, way), json_)
        return
    jobs = submit_driver(loaded, spec, way, partial(click.echo, err=json_))
    for text in warnings_of(loaded):
        click.echo(f"warning: {text}", err=True)
    place = loaded.output.store
    if json_:
        click.echo(as_json({"store": place, "jobs": jobs, "logs": f"{place}.run/logs"}))
        return
    click.echo("\n".join(submitted_text(jobs, place, drivers or 0, chain)))
    if loaded.cluster.dashboard:
        click.echo("the log says how to reach the dashboard once the driver runs")
    click.echo(f"watch:  hpc-sweep status {place} --watch")
    click.echo(f"cancel: hpc-sweep cancel {place}")


def show_scripts(scripts: Scripts, json_: bool) -> None:
    """Print the scripts of jobs."""
    if json_:
        click.echo(as_json({"driver": scripts.driver, "worker": scripts.worker}))
        return
    click.echo(f"# --- the driver's job ---\n{scripts.driver}", nl=bool(scripts.worker))
    each = "on each of its nodes" if scripts.together else "each worker job"
    if scripts.worker:
        click.echo(f"# --- {each} ---\n{scripts.worker}", nl=False)


def submitted_text(jobs: list[str], place: str, drivers: int, chain: bool) -> list[str]:
    """Return lines that say what was submitted."""
    if drivers:
        named = ", ".join(jobs)
        return [f"submitted {drivers} drivers as job {named}; logs come into {place}.run/logs/"]
    lines = [f"submitted the driver as job {jobs[0]}; its log comes into {place}.run/logs/"]
    if len(jobs) > 1:
        lines.append(f"job {jobs[1]} goes on after it, and queues the next")
    elif chain:
        lines.append("the queue took no second job now; the first one queues its successors")
    return lines
