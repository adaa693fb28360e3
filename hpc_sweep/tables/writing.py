"""Tables as files: CSV, parquet, JSON and LaTeX, piece by piece."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hpc_sweep.errors import listed
from hpc_sweep.partitions import plain_label

JSON_TEXTS = ("params",)
"""Columns that hold JSON."""


def write_csv(frames: Iterable[pd.DataFrame], file: IO[bytes]) -> None:
    """Write a table as CSV with a header; numbers with all their digits, no value as nothing."""
    from pyarrow.csv import CSVWriter, WriteOptions

    writer = None
    for frame in frames:
        table = _plain(frame)
        if writer is None:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(frame.columns)
            file.write(header.getvalue().encode())
            writer = CSVWriter(file, table.schema, write_options=WriteOptions(include_header=False))
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_parquet(frames: Iterable[pd.DataFrame], file: IO[bytes]) -> None:
    """Write a table as parquet; dates stay dates, repeated text is kept once."""
    from pyarrow.parquet import ParquetWriter

    writer = None
    for frame in frames:
        table = _plain(frame)
        if writer is None:
            writer = ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_json(frames: Iterable[pd.DataFrame], file: IO[bytes]) -> None:
    """Write a table as a JSON list of objects, one a line; no value as null."""
    start = b"["
    for frame in frames:
        for row in records(frame):
            file.write(start + b"\n" + json.dumps(row, ensure_ascii=False).encode())
            start = b","
    file.write(b"\n]\n" if start == b"," else b"[]\n")


def records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as JSON has them."""
    columns = {str(name): _values(str(name), frame[name]) for name in frame.columns}
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _values(name: str, column: pd.Series[Any]) -> list[Any]:
    if name in JSON_TEXTS:
        return [json.loads(text) if text else {} for text in column]
    if column.dtype.kind == "f":
        # JSON has no NaN and no infinity
        return [value if math.isfinite(value) else None for value in column.tolist()]
    if column.dtype.kind in "iub":
        return column.tolist()
    if column.dtype.kind == "M":
        return [plain_label(value) for value in column.to_numpy()]
    return [None if value == "" and name == "model" else value for value in column.tolist()]


def _plain(frame: pd.DataFrame) -> pa.Table:
    """Return a piece as Arrow's table whose types don't depend on what is in it."""
    fields = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufbM":
            fields[str(name)] = pa.array(column, from_pandas=True)
        else:
            fields[str(name)] = pa.array(column.astype(object), pa.string())
    return pa.table(fields)


def write_latex(
    table: pd.DataFrame,
    file: IO[bytes],
    *,
    caption: str,
    label: str,
    exact: Collection[str] = (),
) -> None:
    r"""Write a table for a paper, with the rules of the package ``booktabs``.

    Text is escaped, numbers are set in math mode with four decimals, or four digits where they
    are small or large; what has no value is a dash.

    Parameters
    ----------
    table : DataFrame
        The table.
    file : binary file
        Where to.
    caption, label : str
        Of the table, plain text; ``tab:`` is put before the label.
    exact : collection of str
        Columns whose numbers are names, so that they keep all digits.
    """
    columns = "".join("r" if table[name].dtype.kind in "iuf" else "l" for name in table.columns)
    head = " & ".join(escape_latex(str(name).replace("_", " ")) for name in table.columns)
    cells = [_latex_cells(str(name), table[name], str(name) in exact) for name in table.columns]
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape_latex(caption)}}}",
        f"  \\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', label).strip('-')}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        "    \\toprule",
        f"    {head} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(row)} \\\\" for row in zip(*cells, strict=True)),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    file.write("\n".join([*_latex_needs("".join(lines)), *lines]).encode() + b"\n")


def _latex_needs(text: str) -> list[str]:
    """Return comments: what a document needs for a table."""
    needs = ["% needs \\usepackage{booktabs}, and of pdfLaTeX \\usepackage[T1]{fontenc}"]
    foreign = sorted({*_BEYOND_LATIN.findall(text)})
    if foreign:
        letters = listed(foreign)
        needs.append(f"% needs LuaLaTeX or XeLaTeX with a font that has these letters: {letters}")
    return needs


def _latex_cells(name: str, column: pd.Series[Any], is_exact: bool) -> list[str]:
    if is_exact and column.dtype.kind in "iuf":
        return [f"${value}$" for value in column.tolist()]
    if column.dtype.kind == "f":
        size = column.abs()
        is_plain = bool((size.isna() | (size == 0) | ((size >= 1e-3) & (size < 1e3))).all())
        return [_latex_number(value, ".4f" if is_plain else ".4g") for value in column.tolist()]
    if column.dtype.kind in "iu":
        return [f"${value:,}$".replace(",", "{,}") for value in column.tolist()]
    if name in JSON_TEXTS:
        return [escape_latex(settings_text(text, ", ")) or "--" for text in column]
    return [escape_latex(str(value)) or "--" for value in _values(name, column)]


def _latex_number(value: float, how: str) -> str:
    if np.isnan(value):
        return "--"
    mantissa, _, exponent = f"{value:{how}}".partition("e")
    power = rf" \times 10^{{{int(exponent)}}}" if exponent else ""
    return f"${mantissa.replace('inf', chr(92) + 'infty')}{power}$"


_GREEK = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi o pi rho varsigma "
    "sigma tau upsilon varphi chi psi omega"
)
_MATH = {
    **{chr(ord("α") + place): "\\" + name for place, name in enumerate(_GREEK.split())},
    **{"ο": "o", "Δ": r"\Delta", "Σ": r"\Sigma", "Ω": r"\Omega", "Φ": r"\Phi", "−": "-"},
    **{"≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "≠": r"\neq", "∞": r"\infty"},
    **{"√": r"\surd", "→": r"\rightarrow", "∂": r"\partial", "∑": r"\sum"},
}
"""What pdfLaTeX has in math mode only, of what names of variables, units and places may have."""

_BEYOND_LATIN = re.compile("[^\0-ſ‐-‰€™]|[ĦħĸĿŀŉŦŧſ]")
"""What pdfLaTeX does not have."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "[": "{[}",  # an option of the row before
    "*": "{*}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    **{letter: f"${command}$" for letter, command in _MATH.items()},
}


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as it is, on one line."""
    whole = unicodedata.normalize("NFC", text)
    line = " ".join("".join(c if c.isprintable() else " " for c in whole).split())
    return "".join(_LATEX.get(letter, letter) for letter in line).replace("--", "-{}-")


def settings_text(params: str, between: str) -> str:
    """Return JSON parameters as ``alpha=0.1, …`` for people."""
    given = json.loads(params) if params else {}
    return between.join(f"{name}={value}" for name, value in given.items())
