"""``hpc-sweep status``: how far sweeps and predictions are, from their files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hpc_sweep.cli.options import as_json, core_hours_text

if TYPE_CHECKING:
    from hpc_sweep.watching import Seen, Work


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

    STORE may be a prediction too, the OUT of hpc-sweep predict.

    Of a driver that was submitted and has not begun, the queue's words are shown where it answers.

    --watch shows what a run shows on its own terminal: lines that are drawn over, where the
    standard output is none a line at each look, with --json an object a line. It exits with 0 when
    all is complete, with 130 when it has stopped or nobody watches any more.

    \b
    Examples:
      hpc-sweep status results.zarr
      hpc-sweep status results.zarr --watch
      hpc-sweep status predicted.zarr --watch
      hpc-sweep status *.zarr --json
    """
    if watch_:
        if len(stores) > 1:
            raise click.UsageError("--watch follows one STORE")
        from hpc_sweep.cli.watching import follow

        ctx.exit(follow(stores[0], every, as_json_lines=json_))
    if every is not None:
        raise click.UsageError("--every is for --watch")
    from hpc_sweep.watching import look_once

    found = [look_once(store) for store in stores]
    click.echo(as_json(list(map(_facts, found))) if json_ else "\n\n".join(map(seen_text, found)))


def _facts(seen: Seen) -> dict[str, Any]:
    facts = {} if seen.status is None else seen.status.facts()
    return {
        **facts,
        "state": seen.state,
        "progress": seen.facts() if seen.state == "running" else None,
    }


def seen_text(seen: Seen) -> str:
    """Return how far it is, in lines."""
    from hpc_sweep.cli.facts import line

    if seen.status is None:
        return ""
    work, status = seen.status.work, seen.status
    is_there = work.total is not None or seen.state == "running"
    state = seen.state if is_there else "not begun"
    lines = {work.what: f"{work.name}: {state}", "store": str(status.place)}
    if "models" in work.more:
        lines["models"] = work.more["models"]
    if work.total is None:
        lines["store"] += " (is made by the first driver)"
    else:
        lines |= _progress(work)
    waiting = "\n".join(map(str, status.not_begun))
    nobody = "none" if work.complete or not is_there else f"none; {work.goes_on}"
    lines["driver"] = status.driver or waiting or nobody
    if seen.state == "running":
        lines["now"] = line(seen.progress)
    lines["core-hours"] = core_hours_text(status.facts())
    if work.more.get("runs"):
        lines["last run"] = _last_run(work.more["runs"][-1])
    if status.last_event:
        event = dict(status.last_event)
        when, what = event.pop("time"), event.pop("event")
        reason = event.pop("reason", "") if what == "run_ended" else ""
        more = ", ".join(f"{key} {value}" for key, value in event.items())
        lines["last event"] = f"{what} at {when} ({more})"
        lines |= {"reason": reason} if reason else {}
    return "\n".join(f"{name + ':':<12}{text}" for name, text in lines.items())


def _last_run(run: dict[str, Any]) -> str:
    """Return what was predicted of a run by its first units, and what came."""
    from hpc_sweep.cli.facts import counted, duration
    from hpc_sweep.plan import format_bytes

    texts = [
        f"{word} {duration(facts['seconds'])} with {counted(run['workers'], 'worker')}, "
        f"{format_bytes(facts['memory_bytes'])} each"
        for word, facts in (("predicted", run["predicted"]), ("took", run["came"]))
        if facts
    ]
    return "; ".join(texts)


def _progress(work: Work) -> dict[str, str]:
    from hpc_sweep.cli.facts import counted

    total = work.total or 0
    share = work.done / total if total else 1.0
    states = (f"{count:,} {state}" for state, count in work.partitions.items() if count)
    parts = f", {counted(work.more['parts'], 'part')} beside it" if "parts" in work.more else ""
    return {
        "partitions": ", ".join(states),
        work.counts: f"{work.done:,} of {total:,} ({share:.1%})",
        "chunks": f"{work.chunks_done:,} of {work.chunks or 0:,} in the store{parts}",
    }
