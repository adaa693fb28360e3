"""``hpc-sweep results``: the best model of each partition as a table."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import Any

import click

from hpc_sweep.choices import TABLE_FORMATS
from hpc_sweep.cli.options import as_json

TABLE_ROWS = 20


@click.command()
@click.argument("store", metavar="STORE")
@click.option(
    "--format", "format_", type=click.Choice(TABLE_FORMATS), default="table", show_default=True
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help=f"Only the N partitions with the best scores (a table shows {TABLE_ROWS} without it).",
)
def results(store: str, format_: str, top: int | None) -> None:
    """Show the best model of each partition in STORE, best score first."""
    from hpc_sweep.results import best_rows, open_results, wins

    opened = open_results(store)
    if format_ == "table" and top is None:
        top = TABLE_ROWS
    rows = list(itertools.islice(best_rows(opened), top))
    if format_ == "json":
        click.echo(as_json(rows))
    elif format_ == "csv":
        click.echo(_csv(rows), nl=False)
    else:
        _print_table(rows, int(opened["best_score"].size), wins(opened))


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "params": json.dumps(row["params"])} for row in rows)
    return text.getvalue()


def _print_table(rows: list[dict[str, Any]], size: int, best: dict[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    names = [name for name in rows[0] if name != "status" or _has_others(rows)]
    for name in names:
        numeric = name == "n_samples" or _is_score(name)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    console = Console()
    console.print(table)
    console.print(f"{len(rows):,} of {size:,} partitions", highlight=False, markup=False)
    counts = ", ".join(f"{name} in {count:,}" for name, count in best.items())
    console.print(f"best model: {counts}", highlight=False, markup=False)


def _cell(name: str, value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("-")
    if _is_score(name):
        return Text(f"{value:.4f}")
    if name == "params":
        return Text("\n".join(f"{key}={item}" for key, item in value.items()))
    return Text(str(value))


def _is_score(name: str) -> bool:
    return name == "score" or name.startswith("holdout_")


def _has_others(rows: list[dict[str, Any]]) -> bool:
    """Return whether any partition shown is not done."""
    return any(row["status"] != "done" for row in rows)
