"""``hpc-sweep submit``: the driver as a job of its own."""

from __future__ import annotations

import click

from hpc_sweep.cli.options import loaded_spec, mixed_versions_option, spec_options


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
@mixed_versions_option
@click.option("--dry-run", is_flag=True, help="Print both scripts; nothing is written.")
def submit(
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    chain: bool,
    one_job: bool,
    nodes: int | None,
    mixed_versions: bool,
    dry_run: bool,
) -> None:
    """Submit the sweep of SPEC: a small job for the driver, which submits the worker jobs.

    Nothing stays on the login node. Submit again to go on after a walltime or a kill, or let
    --chain do that.
    """
    from hpc_sweep.submission import make_scripts
    from hpc_sweep.submission import submit as submit_driver

    if one_job:
        settings += ("cluster.place=one_job",)
    if nodes is not None:
        settings += (f"cluster.nodes={nodes}", "cluster.workers=null")
    loaded = loaded_spec(spec, settings, cluster, workers, store)
    if dry_run:
        scripts = make_scripts(loaded, spec, chain=chain, mixed_versions=mixed_versions)
        click.echo(f"# --- the driver's job ---\n{scripts.driver}")
        each = "on each of its nodes" if loaded.cluster.place == "one_job" else "each worker job"
        click.echo(f"# --- {each} ---\n{scripts.worker}", nl=False)
        return
    job, *successors = submit_driver(loaded, spec, chain=chain, mixed_versions=mixed_versions)
    place = loaded.output.store
    click.echo(f"submitted the driver as job {job}; its log comes into {place}.run/logs/")
    if successors:
        click.echo(f"job {successors[0]} goes on after it, and queues the next")
    click.echo(f"watch:  hpc-sweep status {place}")
    click.echo(f"cancel: hpc-sweep cancel {place}")
