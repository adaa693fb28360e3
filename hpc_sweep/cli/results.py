"""``hpc-sweep results``: what a store says, as tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_sweep.choices import TABLE_CONTENTS, TABLE_FORMATS

if TYPE_CHECKING:
    import pandas as pd

    from hpc_sweep.tables import Results

TABLE_ROWS = 20
LONG = ("best", "worst")
"""Tables with a row for each partition, of which people see the first ones only."""
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".tex": "latex"}


@click.command()
@click.argument("store", metavar="STORE")
@click.option(
    "--what",
    type=click.Choice(TABLE_CONTENTS),
    default="best",
    show_default=True,
    help="The best model of each partition, how models or candidates compare over all of them, "
    "the partitions with the lowest scores, or what failed, by reason.",
)
@click.option("--metric", metavar="NAME", help="Which score, where there are several.")
@click.option("--by", metavar="DIM", help="With --what models: for each label of a dimension.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Only the first N rows (partitions are the first {TABLE_ROWS} in a table for people "
    "or LaTeX).",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(TABLE_FORMATS),
    help="How; table, or what FILE's name says.",
)
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there: .csv, .parquet, .json or .tex.",
)
def results(
    store: str,
    what: str,
    metric: str | None,
    by: str | None,
    top: int | None,
    format_: str | None,
    json_: bool,
    output: Path | None,
) -> None:
    """Show what STORE says: the best model of each partition, best score first, and more.

    A half-finished store is shown as far as it is.

    \b
    Examples:
      hpc-sweep results results.zarr --top 5
      hpc-sweep results results.zarr --what models --by season
      hpc-sweep results results.zarr --what candidates --metric r2
      hpc-sweep results results.zarr --what failures --json
      hpc-sweep results results.zarr -o best.parquet
      hpc-sweep results results.zarr --what models -o models.tex
    """
    format_ = _format(format_, json_, output)
    if by is not None and what != "models":
        raise click.UsageError("--by goes with --what models")
    if metric is not None and what == "failures":
        raise click.UsageError("--metric says nothing about failures")

    from hpc_sweep.keeping import explained

    with explained(store):
        _show(store, what, metric, by, top, format_, output)
    if output is not None:
        click.echo(f"wrote {output}", err=True)


def _show(
    store: str,
    what: str,
    metric: str | None,
    by: str | None,
    top: int | None,
    format_: str,
    output: Path | None,
) -> None:
    """Print or write what was asked for."""
    from hpc_sweep.results import open_results
    from hpc_sweep.tables import Results

    opened = Results(open_results(store))
    for_people = format_ in ("table", "latex")
    if for_people and top is None and what in LONG:
        top = TABLE_ROWS
    frames = _frames(opened, what, metric, by, top, plain=format_ != "parquet")
    if format_ == "table":
        from hpc_sweep.cli.tables import print_table

        print_table(opened, what, metric, _joined(frames))
    else:
        if opened.n_pending:
            click.echo(
                f"half finished: {opened.n_pending:,} of {opened.size:,} partitions are pending",
                err=True,
            )
        _write(opened, what, metric, frames, format_, output)


def _format(given: str | None, json_: bool, output: Path | None) -> str:
    """Return the format that was asked for, by whatever option."""
    if json_:
        if given not in (None, "json"):
            raise click.UsageError(f"--json and --format {given} exclude each other")
        return "json"
    if given is None and output is not None:
        if output.suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise click.UsageError(f"{output}: its name says no format ({known}); give --format")
        return SUFFIXES[output.suffix]
    if given == "parquet" and output is None:
        raise click.UsageError("parquet is nothing for a terminal: give -o FILE.parquet")
    if given == "table" and output is not None:
        raise click.UsageError("a table for a terminal goes into no file; give another --format")
    return given or "table"


def _frames(
    opened: Results, what: str, metric: str | None, by: str | None, top: int | None, *, plain: bool
) -> Iterable[pd.DataFrame]:
    from hpc_sweep.tables import best_table, candidates_table, failures_table, models_table

    if what in LONG:
        return best_table(opened, metric=metric, top=top, worst=what == "worst", plain=plain)
    if what == "models":
        table = models_table(opened, metric=metric, by=by, plain=plain)
    elif what == "candidates":
        table = candidates_table(opened, metric=metric)
    else:
        table = failures_table(opened)
    return [table if top is None else table.head(top)]


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(list(frames), ignore_index=True)


def _write(
    opened: Results,
    what: str,
    metric: str | None,
    frames: Iterable[pd.DataFrame],
    format_: str,
    output: Path | None,
) -> None:
    from hpc_sweep.store import durably
    from hpc_sweep.tables import write_csv, write_json, write_parquet

    with contextlib.ExitStack() as stack:
        file: Any = sys.stdout.buffer
        if output is not None:
            file = stack.enter_context(durably(output))
        if format_ == "latex":
            _latex(opened, what, metric, _joined(frames), file)
        elif format_ == "csv":
            write_csv(frames, file)
        elif format_ == "json":
            write_json(_without_parameters(frames), file)
        else:
            write_parquet(frames, file)


def _without_parameters(frames: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
    """Leave out a column for each parameter: JSON has them as one object."""
    for frame in frames:
        yield frame[[name for name in frame.columns if not str(name).startswith("param_")]]


def _latex(opened: Results, what: str, metric: str | None, table: pd.DataFrame, file: Any) -> None:
    from hpc_sweep.cli.tables import caption, shown
    from hpc_sweep.tables import write_latex

    text = f"{opened.spec.name}: {caption(opened, what, metric, len(table))}"
    label = f"{opened.spec.name}-{what}"
    write_latex(shown(what, table), file, caption=text, label=label, exact=opened.dims)
