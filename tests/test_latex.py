"""Tables for a paper: what pdfLaTeX took when it was asked by hand, and what it did not."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from hpc_sweep.tables import write_latex
from hpc_sweep.tables.writing import escape_latex


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"a_b %c &d #e {f} $1$", r"a\_b \%c \&d \#e \{f\} \$1\$"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("<x> |y|", r"\textless{}x\textgreater{} \textbar{}y\textbar{}"),
        ('"q"', r"\symbol{34}q\symbol{34}"),  # \textquotedbl is none of the default fonts
        ("[1cm] *", r"{[}1cm] {*}"),  # options of the row's end before, or of \midrule
        ("a--b---c `d", r"a-{}-b-{}--c \textasciigrave{}d"),
        ("é ° µ × – ß ł", "é ° µ × – ß ł"),
        ("e\u0301\u00a0\u2009\u200bx", "é x"),
        ("μ −5 ≤ Δ", r"$\mu$ $-$5 $\leq$ $\Delta$"),
        ("a\nb\tc\x1b[0m", "a b c {[}0m"),
    ],
)
def test_text_is_set_as_it_is(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def test_a_table_says_what_it_needs() -> None:
    def head(*names: str) -> list[str]:
        file = io.BytesIO()
        write_latex(pd.DataFrame({"place": names}), file, caption="a", label="b")
        return [line for line in file.getvalue().decode().splitlines() if line.startswith("%")]

    (usual,) = head("Réunion", "30 °C … €", "3 μm")
    assert r"\usepackage{booktabs}" in usual
    assert r"\usepackage[T1]{fontenc}" in usual
    _, more = head("東", "К", "Ħamrun")
    assert more.endswith("these letters: Ħ, К, 東")
