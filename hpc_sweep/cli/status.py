"""``hpc-sweep status``: how far sweeps are, from their files alone."""

from __future__ import annotations

from typing import Any

import click

from hpc_sweep.cli.options import as_json, core_hours_text


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a store.")
@click.option(
    "--watch", "watch_", is_flag=True, help="Follow one STORE until it is complete or stopped."
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.5),
    metavar="SECONDS",
    help="Between looks of --watch: 2 on a terminal, else 30.",
)
@click.pass_context
def status(
    ctx: click.Context,
    stores: tuple[str, ...],
    json_: bool,
    watch_: bool,
    every: float | None,
) -> None:
    """Show how far the sweeps of STORE... are. Reads files; works from any machine.

    Of a driver that was submitted and has not begun, the queue's words are shown where it answers.

    --watch shows what a run shows on its own terminal: lines that are drawn over, where the
    standard output is none a line at each look, with --json an object a line. It exits with 0 when
    the sweep is complete, with 130 when it has stopped or nobody watches any more.

    \b
    Examples:
      hpc-sweep status results.zarr
      hpc-sweep status results.zarr --watch
      hpc-sweep status *.zarr --json
    """
    if watch_:
        if len(stores) > 1:
            raise click.UsageError("--watch follows one STORE")
        from hpc_sweep.cli.watching import follow

        ctx.exit(follow(stores[0], every, as_json_lines=json_))
    if every is not None:
        raise click.UsageError("--every is for --watch")
    from dataclasses import asdict

    from hpc_sweep.results import sweep_status

    found = [sweep_status(store) for store in stores]
    if not json_:
        click.echo("\n\n".join(map(status_text, found)))
        return
    for facts in found:
        facts["not_begun"] = [asdict(job) for job in facts["not_begun"]]
    click.echo(as_json(found))


def status_text(facts: dict[str, Any]) -> str:
    """Return how far a sweep is, in lines."""
    lines = {"sweep": f"{facts['name']}: {_state(facts)}", "store": facts["store"]}
    if facts["fits"] is None:
        lines["store"] += " (is made by the first driver)"
    else:
        lines |= _progress(facts)
    waiting = "\n".join(map(str, facts["not_begun"]))
    stopped = _state(facts) == "stopped"
    nobody = "none; run or submit the spec again to go on" if stopped else "none"
    lines["driver"] = facts["driver"] or waiting or nobody
    lines["core-hours"] = core_hours_text(facts)
    if facts["runs"]:
        lines["last run"] = _last_run(facts["runs"][-1])
    if facts["last_event"]:
        event = dict(facts["last_event"])
        when, what = event.pop("time"), event.pop("event")
        reason = event.pop("reason", "") if what == "run_ended" else ""
        more = ", ".join(f"{key} {value}" for key, value in event.items())
        lines["last event"] = f"{what} at {when} ({more})"
        lines |= {"reason": reason} if reason else {}
    return "\n".join(f"{name + ':':<12}{text}" for name, text in lines.items())


def _last_run(run: dict[str, Any]) -> str:
    """Return what was predicted of a run by its first units, and what came."""
    from hpc_sweep.cli.facts import duration
    from hpc_sweep.plan import format_bytes

    texts = [
        f"{word} {duration(facts['seconds'])} with {run['workers']} workers, "
        f"{format_bytes(facts['memory_bytes'])} each"
        for word, facts in (("predicted", run["predicted"]), ("took", run["came"]))
        if facts
    ]
    return "; ".join(texts)


def _state(facts: dict[str, Any]) -> str:
    if facts["complete"]:
        return "complete"
    if facts["driver"]:
        return "running"
    return "not begun" if facts["fits"] is None else "stopped"


def _progress(facts: dict[str, Any]) -> dict[str, str]:
    from hpc_sweep.cli.facts import counted

    share = facts["fits_done"] / facts["fits"]
    states = (f"{count:,} {state}" for state, count in facts["partitions"].items() if count)
    return {
        "partitions": ", ".join(states),
        "fits": f"{facts['fits_done']:,} of {facts['fits']:,} ({share:.1%})",
        "chunks": f"{facts['result_chunks_folded']:,} of {facts['result_chunks']:,} in the store, "
        f"{counted(facts['parts'], 'part')} beside it",
    }
