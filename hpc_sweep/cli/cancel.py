"""``hpc-sweep cancel``: end a run's jobs."""

from __future__ import annotations

import click

from hpc_sweep.cli.options import as_json


@click.command()
@click.argument("store", metavar="STORE")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def cancel(store: str, json_: bool) -> None:
    """Cancel the jobs of STORE's runs, driver and workers, and only these.

    STORE is that of a sweep, or of a prediction. What is done is kept: run or submit the same spec,
    or the same prediction, to go on.

    \b
    Examples:
      hpc-sweep cancel results.zarr
      hpc-sweep cancel predicted.zarr
      hpc-sweep cancel results.zarr --json
    """
    from hpc_sweep.cancellation import cancel as cancel_jobs
    from hpc_sweep.cancellation import left_driver

    cancelled = cancel_jobs(store)
    if json_:
        click.echo(as_json({"store": store, "cancelled": cancelled}))
        return
    click.echo(f"cancelled {', '.join(cancelled)}" if cancelled else "no job was alive")
    driver = left_driver(store)
    if driver:
        click.echo(f"{driver} is at work on it, and is no job: end it where it was started")
