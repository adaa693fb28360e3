"""``hpc-sweep cancel``: end a run's jobs."""

from __future__ import annotations

import click


@click.command()
@click.argument("store", metavar="STORE")
def cancel(store: str) -> None:
    """Cancel the jobs of STORE's runs, driver and workers, and only these.

    What is done is kept: run or submit the same spec to go on.
    """
    from hpc_sweep.cancellation import cancel as cancel_jobs

    cancelled = cancel_jobs(store)
    click.echo(f"cancelled {', '.join(cancelled)}" if cancelled else "no job was alive")
