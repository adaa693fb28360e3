"""``hpc-sweep run``: do a sweep, or what is left of it."""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

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
from hpc_sweep.errors import EXIT_OK, EXIT_PARTITIONS
from hpc_sweep.printing import lasting

if TYPE_CHECKING:
    from hpc_sweep.prepare import Prepared
    from hpc_sweep.store import Ledger
    from hpc_sweep.sweep import Outcome


@click.command()
@spec_options
@click.option(
    "--take-over", is_flag=True, help="Take the store from another driver; be sure it is dead."
)
@retry_options
@dashboard_option
@performance_report_option
@mixed_versions_option
@click.option(
    "-q", "--quiet", is_flag=True, help="No plan and no progress; warnings and the summary only."
)
@click.option("--json", "json_", is_flag=True, help="Print the summary as JSON, and no plan.")
@click.option("--chain", is_flag=True, hidden=True, help="Be a link of submit --chain.")
@click.option("--share", hidden=True, help="Be one of submit --drivers: I/K, or array/K.")
@click.pass_context
def run(
    ctx: click.Context,
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    take_over: bool,
    retry: tuple[str, ...],
    memory: str | None,
    dashboard: bool,
    performance_report: bool | None,
    mixed_versions: bool,
    quiet: bool,
    json_: bool,
    chain: bool,
    share: str | None,
) -> None:
    """Run the sweep of SPEC. Run the same command again to go on after a stop.

    \b
    Examples:
      hpc-sweep run sweep.yaml
      hpc-sweep run sweep.yaml --workers 4 --set search.cv=5 --store cv5.zarr
      hpc-sweep run sweep.yaml --retry out_of_memory --memory 2x
    """
    from hpc_sweep.chain import chain_link as link
    from hpc_sweep.cli.plan import plan_facts, plan_text
    from hpc_sweep.cli.progress import show_progress
    from hpc_sweep.submission import parse_share
    from hpc_sweep.sweep import execute

    if not ctx.find_root().params["debug"]:
        # told at the very end of futures that Dask drops when its connections close by intent
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if dashboard:
        settings += ("cluster.dashboard=true",)
    settings += performance_report_settings(performance_report)
    loaded = loaded_spec(spec, settings, cluster, workers, store, memory)

    def announce(prepared: Prepared, ledger: Ledger) -> None:
        if quiet or json_:
            return
        with shown.aside():
            click.echo(plan_text(prepared, plan_facts(prepared, ledger)))
            if ledger.cells_done():
                click.echo(_left_text(ledger, prepared.n_splits))

    with lasting("stdout"), ExitStack() as last:
        with (
            show_progress(quiet=quiet) as shown,
            link(loaded, shown.say) if chain else nullcontext(),
        ):
            outcome = execute(
                loaded,
                origin=spec,
                take_over=take_over,
                mixed_versions=mixed_versions,
                share=parse_share(share or "1/1"),
                retry=retry,
                on_start=announce,
                on_progress=shown.update,
                say=shown.say,
                later=last.callback,
            )
        click.echo(as_json(_facts(outcome)) if json_ else _summary(outcome))
    ctx.exit(EXIT_PARTITIONS if outcome.n_failed else EXIT_OK)


def _left_text(ledger: Ledger, n_splits: int) -> str:
    """Return what there is left to do."""
    fits = ledger.n_partitions * ledger.store.strategy.n_fits(n_splits)
    left = fits - ledger.cells_done() * fits // ledger.n_cells
    return f"going on: {left:,} of {fits:,} fits left"


def _facts(outcome: Outcome) -> dict[str, Any]:
    """Return what ``hpc-sweep status`` tells, and what this run did."""
    from hpc_sweep.results import first_reasons, wins
    from hpc_sweep.watching import standing_of

    done, results = outcome.progress, outcome.store.dataset()
    return {
        **standing_of(outcome.store.path).facts(),
        "fits_of_this_run": 0 if done is None else done.fits,
        "seconds_of_this_run": 0.0 if done is None else round(done.seconds, 3),
        "partitions_ranked_anew": outcome.ranked,
        "best_model": wins(results),
        "failures": first_reasons(results),
    }


def _summary(outcome: Outcome) -> str:
    from hpc_sweep.cli.facts import counted, pace_text
    from hpc_sweep.results import first_reasons, wins
    from hpc_sweep.store import Ledger

    counts = outcome.counts
    if sum(counts.values()) < outcome.store.grid.size:  # one of several drivers
        whole = Ledger.read(outcome.store)
        if not whole.is_complete:
            left = whole.n_chunks - len(whole.folded)
            return (
                f"this share is complete, {sum(counts.values()):,} of "
                f"{outcome.store.grid.size:,} partitions; {left} of {whole.n_chunks} result "
                "chunks are left to other drivers"
            )
        counts = whole.summary()
    results = outcome.store.dataset()
    of_all = counted(outcome.store.grid.size, "partition")
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    if outcome.ranked and outcome.progress is None:
        head = (
            f"complete, nothing to fit: {states} of {of_all}; "
            f"candidates of {outcome.ranked:,} ranked anew"
        )
    elif outcome.progress is None:
        head = f"complete already, nothing to do: {states} of {of_all}"
    else:
        done = outcome.progress
        pace = pace_text(done.fits / done.seconds if done.seconds else 0.0, "fits")
        head = (
            f"complete: {states} of {of_all}; "
            f"{counted(done.fits, 'fit')} in {done.seconds:.1f} s ({pace})"
        )
    best = ", ".join(f"{name} in {count:,}" for name, count in wins(results).items())
    lines = [head, f"best model: {best}"]
    lines += [f"failed: {reason}" for reason in first_reasons(results)]
    if counts.get("empty") == outcome.store.grid.size:
        lines.append(
            "empty: no sample has all features and the target (data.dropna, data.where, labels)"
        )
    place = outcome.store.path
    lines.append(f"table: hpc-sweep results {place}")
    lines.append(f'open:  xarray.open_zarr("{place}")')
    return "\n".join(lines)
