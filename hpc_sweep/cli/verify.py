"""``hpc-sweep verify``: whether stores are sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpc_sweep.cli.options import as_json
from hpc_sweep.errors import EXIT_OK, EXIT_USER

if TYPE_CHECKING:
    from hpc_sweep.keeping import Verification

MOST_SHOWN = 20


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a store.")
@click.pass_context
def verify(ctx: click.Context, stores: tuple[str, ...], json_: bool) -> None:
    """Check every file of STORE..., and whether its results agree with each other.

    All checksums; metadata; files that are missing, left over or unknown; and whether means,
    ranks and the best follow from the scores. Each fault is told with its file and what mends it.
    Nothing is written. Exit code 2 where there is a fault. A STORE may be of predictions, too.

    \b
    Examples:
      hpc-sweep verify results.zarr
      hpc-sweep verify results.zarr other.zarr --json
    """
    from dataclasses import asdict

    from hpc_sweep.keeping import verify as verify_store

    found = [verify_store(store) for store in stores]
    if json_:
        click.echo(as_json([{**asdict(each), "complete": each.is_complete} for each in found]))
    else:
        click.echo("\n\n".join(map(_text, found)))
    ctx.exit(EXIT_USER if any(each.findings for each in found) else EXIT_OK)


def _text(found: Verification) -> str:
    from hpc_sweep.plan import format_bytes

    lines = []
    for each in found.findings[:MOST_SHOWN]:
        lines += [f"fault: {each.file} {each.fault}", f"       {each.remedy}"]
    more = len(found.findings) - MOST_SHOWN
    if more > 0:
        lines.append(f"… and {more:,} more faults (--json tells all)")
    if found.driver:
        lines.append(
            f"a driver is at work on it, {found.driver}: what it writes just now was looked at "
            "twice, and unfinished files are no faults"
        )
    state = "complete" if found.is_complete else "half finished"
    verdict = f"{len(found.findings):,} faults" if found.findings else "sound"
    chunks = "result chunks" if found.kind == "sweep" else "chunks"
    if len(found.findings) == 1:
        verdict = "1 fault"
    lines.append(
        f"{found.store}: {verdict}; {state}, {found.result_chunks_done:,} of "
        f"{found.result_chunks:,} {chunks}; {found.files:,} files, {format_bytes(found.bytes)}"
    )
    return "\n".join(lines)
