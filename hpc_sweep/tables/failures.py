"""What failed, by reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpc_sweep.choices import DONE, EMPTY, STATUS_MEANINGS
from hpc_sweep.partitions import describe
from hpc_sweep.tables.opened import Results

MOST_REASONS = 10_000
"""So many reasons are told apart; others are counted together."""
EXAMPLES = 3

_WHERE = re.compile(r"^(?:iteration \d+: )?(?:split [^:]+: )?")


@dataclass
class _Group:
    cells: int = 0
    partitions: int = 0
    states: Counter[int] = field(default_factory=Counter)
    examples: list[int] = field(default_factory=list)


def failures_table(results: Results, *, with_empty: bool = True) -> pd.DataFrame:
    """Return why candidates have no results, most frequent first.

    Columns are ``reason`` (without the split and iteration that it came up in), ``status``,
    ``candidates`` (how many in all partitions), ``partitions``, and ``examples``, labels of some
    of these. Partitions without samples are those of status ``empty``. Candidates that the spec
    does not ask for any more are left out.

    Parameters
    ----------
    results : Results
        Of what.
    with_empty : bool
        Whether partitions without samples are counted.
    """
    groups: dict[str, _Group] = {}
    for block in results.blocks():
        status = block.read("status")
        failed = (status > DONE) & results.strategy.in_spec & (with_empty | (status != EMPTY))
        if not failed.any():
            continue
        rows, _ = np.nonzero(failed)
        states = status[failed]
        texts = _reasons(block.read("message")[failed], states)
        codes, reasons = pd.factorize(texts)
        for code, reason in enumerate(reasons):
            name = reason if reason in groups or len(groups) < MOST_REASONS else "other reasons"
            group, here = groups.setdefault(name, _Group()), codes == code
            where = np.unique(rows[here])
            group.cells += int(here.sum())
            group.partitions += len(where)
            group.states.update(states[here].tolist())
            lacking = EXAMPLES - len(group.examples)
            group.examples += block.flat[where[:lacking]].tolist()
    ordered = sorted(groups.items(), key=lambda item: (-item[1].cells, item[0]))
    return pd.DataFrame(
        {
            "reason": [reason for reason, _ in ordered],
            "status": [_states(group) for _, group in ordered],
            "candidates": [group.cells for _, group in ordered],
            "partitions": [group.partitions for _, group in ordered],
            "examples": [_examples(results, group) for _, group in ordered],
        }
    )


def _reasons(messages: NDArray[Any], states: NDArray[np.int8]) -> NDArray[Any]:
    """Return messages without where they came up, so that the same reason is counted as one."""
    codes, texts = pd.factorize(messages.astype(object))
    plain = np.array([_WHERE.sub("", text, count=1) for text in texts.tolist()], dtype=object)
    found = plain[codes]
    found[(found == "") & (states == EMPTY)] = "no sample has all features and the target"
    found[found == ""] = "no reason was noted"
    return found


def _states(group: _Group) -> str:
    return ", ".join(STATUS_MEANINGS[state] for state in sorted(group.states))


def _examples(results: Results, group: _Group) -> str:
    return "; ".join(describe(results.label(flat)) for flat in group.examples)
