"""``hpc-sweep status``: how far sweeps are, from their files alone."""

from __future__ import annotations

from typing import Any

import click

from hpc_sweep.cli.options import as_json, core_hours_text


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a store.")
def status(stores: tuple[str, ...], json_: bool) -> None:
    """Show how far the sweeps of STORE... are. Reads files only; works from any machine."""
    from hpc_sweep.results import sweep_status

    found = [sweep_status(store) for store in stores]
    click.echo(as_json(found) if json_ else "\n\n".join(map(_text, found)))


def _text(facts: dict[str, Any]) -> str:
    share = facts["fits_done"] / facts["fits"]
    states = ", ".join(
        f"{count:,} {state}" for state, count in facts["partitions"].items() if count
    )
    state = "complete" if facts["complete"] else "running" if facts["driver"] else "stopped"
    lines = {
        "sweep": f"{facts['name']}: {state}",
        "store": facts["store"],
        "partitions": states,
        "fits": f"{facts['fits_done']:,} of {facts['fits']:,} ({share:.1%})",
        "chunks": f"{facts['result_chunks_folded']:,} of {facts['result_chunks']:,} in the store, "
        f"{facts['parts']:,} parts beside it",
        "driver": facts["driver"] or "none",
        "core-hours": core_hours_text(facts),
    }
    if facts["last_event"]:
        event = dict(facts["last_event"])
        when, what = event.pop("time"), event.pop("event")
        more = ", ".join(f"{key} {value}" for key, value in event.items())
        lines["last event"] = f"{what} at {when} ({more})"
    return "\n".join(f"{name + ':':<12}{text}" for name, text in lines.items())
