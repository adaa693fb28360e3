"""``hpc-sweep submit``: the driver as a job of its own."""

from __future__ import annotations

import click

from hpc_sweep.cli.options import loaded_spec, spec_options


@click.command()
@spec_options
@click.option(
    "--chain", is_flag=True, help="Queue successors until the sweep is complete, two at the most."
)
@click.option("--dry-run", is_flag=True, help="Print both scripts; nothing is written.")
def submit(
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    chain: bool,
    dry_run: bool,
) -> None:
    """Submit the sweep of SPEC: a small job for the driver, which submits the worker jobs.

    Nothing stays on the login node. Submit again to go on after a walltime or a kill, or let
    --chain do that.
    """
    from hpc_sweep.submission import make_scripts
    from hpc_sweep.submission import submit as submit_driver

    loaded = loaded_spec(spec, settings, cluster, workers, store)
    if dry_run:
        scripts = make_scripts(loaded, spec, chain=chain)
        click.echo(f"# --- the driver's job ---\n{scripts.driver}")
        click.echo(f"# --- each worker job ---\n{scripts.worker}", nl=False)
        return
    job, *successors = submit_driver(loaded, spec, chain=chain)
    place = loaded.output.store
    click.echo(f"submitted the driver as job {job}; its log comes into {place}.run/logs/")
    if successors:
        click.echo(f"job {successors[0]} goes on after it, and queues the next")
    click.echo(f"watch:  hpc-sweep status {place}")
    click.echo(f"cancel: hpc-sweep cancel {place}")
