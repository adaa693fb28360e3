"""Tables for people: which columns, how numbers look, and what stands below."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from hpc_sweep.tables import Results

COLUMNS = {
    "models": ("model", "wins", "share", "median", "q25", "q75", "mean_rank", "margin"),
    "candidates": ("model", "params", "wins", "mean_rank", "mean", "std", "failed", "fit_time"),
    "failures": ("candidates", "partitions", "status", "reason", "examples"),
}
"""What fits into a terminal of 80 columns; files have all."""
TITLES = {"mean_rank": "rank", "fit_time": "fit (s)"}


def shown(what: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that people see."""
    if what in COLUMNS:
        label = [name for name in table.columns[:1] if name not in COLUMNS[what]]
        first = label if what == "models" and table.columns[0] != "model" else []
        names = [*first, *COLUMNS[what]]
        if what == "candidates" and not table["failed"].any():
            names.remove("failed")
        return table[names].rename(columns=TITLES)
    left_out = {str(name) for name in table.columns if str(name).startswith("param_")}
    if (table["status"] == "done").all():
        left_out.add("status")
    return table[[name for name in table.columns if name not in left_out]]


def caption(opened: Results, what: str, metric: str | None, n_rows: int) -> str:
    """Return what a table shows, in a line."""
    from hpc_sweep.cli.facts import counted

    score = _called(opened, opened.metric(metric))
    chosen_by = _called(opened, opened.spec.refit_metric)
    by = f"score: mean {score} over the splits"
    if score != chosen_by:
        by += f"; the best by {chosen_by}" if what in ("best", "worst") else ""
    of_all = counted(opened.size, "partition")
    rows = {
        "best": f"{n_rows:,} of {of_all}, best first",
        "worst": f"{n_rows:,} of {of_all}, worst first",
        "models": f"models over {of_all}",
        "candidates": f"candidates over {of_all}",
        "failures": f"what failed in {of_all}",
    }
    return rows[what] if what == "failures" else f"{rows[what]}; {by}"


def _called(opened: Results, metric: str) -> str:
    title = opened.metrics[metric]
    return metric if title == f"{metric} ({metric})" else title


def print_table(opened: Results, what: str, metric: str | None, table: pd.DataFrame) -> None:
    """Print a table as wide as the terminal allows."""
    from rich.console import Console

    console, lines = Console(), []
    if len(table):
        visible = shown(what, table)
        drawn = _drawn(visible, opened.dims, is_narrow=False)
        wide = console.options.update(max_width=10 * console.width)
        if console.measure(drawn, options=wide).maximum > console.width:
            drawn = _drawn(visible, opened.dims, is_narrow=True)
        console.print(drawn)
    if len(table) or what != "failures":
        lines.append(caption(opened, what, metric, len(table)))
    else:
        lines.append("nothing failed")
    if what == "best":
        lines.append(_wins(opened))
    if opened.n_pending:
        lines.append(f"half finished: {opened.n_pending:,} partitions are pending")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _drawn(visible: pd.DataFrame, labels: Collection[str], *, is_narrow: bool) -> Any:
    """Return what is printed; narrow: titles on several lines, and no frame around."""
    from rich.table import Table

    drawn = Table(show_edge=not is_narrow, pad_edge=not is_narrow)
    for name in map(str, visible.columns):
        numeric = visible[name].dtype.kind in "iuf" and name not in labels
        title = name if name in labels or not is_narrow else name.replace("_", "\n")
        drawn.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in visible.itertuples(index=False):
        cells = zip(visible.columns, row, strict=True)
        drawn.add_row(*(_cell(str(name), value, name in labels) for name, value in cells))
    return drawn


def _wins(opened: Results) -> str:
    from hpc_sweep.results import wins

    counts = ", ".join(f"{name} in {count:,}" for name, count in wins(opened.dataset).items())
    return f"best model: {counts}"


def _cell(name: str, value: Any, is_label: bool) -> Any:
    from rich.text import Text

    from hpc_sweep.tables import settings_text

    if name == "params":
        return Text(_visible(settings_text(value, "\n")) or "-")
    if isinstance(value, float) and not is_label:
        return Text("-" if value != value else _number(name, value))
    if isinstance(value, int) and not is_label:
        return Text(f"{value:,}")
    return Text(_visible(str(value)) or "-")


def _number(name: str, value: float) -> str:
    if name == "share":
        return f"{value:.1%}"
    if name == "rank":
        return f"{value:.2f}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def _visible(text: str) -> str:
    """Return text without what a terminal obeys: labels come from other people's data."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
