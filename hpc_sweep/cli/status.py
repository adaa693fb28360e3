"""``hpc-sweep status``: how far sweeps are, from their files alone."""

from __future__ import annotations

from typing import Any

import click

from hpc_sweep.cli.options import as_json, core_hours_text


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a store.")
def status(stores: tuple[str, ...], json_: bool) -> None:
    """Show how far the sweeps of STORE... are. Reads files; works from any machine.

    Of a driver that was submitted and has not begun, the queue's words are shown where it answers.
    """
    from dataclasses import asdict

    from hpc_sweep.results import sweep_status

    found = [sweep_status(store) for store in stores]
    if not json_:
        click.echo("\n\n".join(map(_text, found)))
        return
    for facts in found:
        facts["not_begun"] = [asdict(job) for job in facts["not_begun"]]
    click.echo(as_json(found))


def _text(facts: dict[str, Any]) -> str:
    lines = {"sweep": f"{facts['name']}: {_state(facts)}", "store": facts["store"]}
    if facts["fits"] is None:
        lines["store"] += " (is made by the first driver)"
    else:
        lines |= _progress(facts)
    waiting = "\n".join(map(str, facts["not_begun"]))
    lines["driver"] = facts["driver"] or waiting or "none"
    lines["core-hours"] = core_hours_text(facts)
    if facts["runs"]:
        lines["last run"] = _last_run(facts["runs"][-1])
    if facts["last_event"]:
        event = dict(facts["last_event"])
        when, what = event.pop("time"), event.pop("event")
        more = ", ".join(f"{key} {value}" for key, value in event.items())
        lines["last event"] = f"{what} at {when} ({more})"
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
    share = facts["fits_done"] / facts["fits"]
    states = (f"{count:,} {state}" for state, count in facts["partitions"].items() if count)
    return {
        "partitions": ", ".join(states),
        "fits": f"{facts['fits_done']:,} of {facts['fits']:,} ({share:.1%})",
        "chunks": f"{facts['result_chunks_folded']:,} of {facts['result_chunks']:,} in the store, "
        f"{facts['parts']:,} parts beside it",
    }
