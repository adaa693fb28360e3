"""The tables of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpc_sweep.choices import DONE, STATUS_MEANINGS
from hpc_sweep.plan import format_bytes
from hpc_sweep.reporting.findings import Findings, quantiles
from hpc_sweep.reporting.page import Table
from hpc_sweep.reporting.sentences import best_text, place
from hpc_sweep.reporting.words import clean, duration, label_text, number, share

EXTREMES = 10
"""So many of the worst and best partitions are listed."""

MOST_LISTED = 40
"""Of at most so many partitions all are listed."""

MOST_GROUPS = 12
"""Labels of one dimension are compared if there are at most so many."""

MOST_FAILURES = 15
LONGEST_REASON = 300


def partitions(found: Findings) -> Table:
    """Return all partitions if they are few, else the best ones."""
    few = found.lying.size <= MOST_LISTED
    noun = found.lying.noun
    flats = found.ordered(MOST_LISTED if few else EXTREMES, best_first=True)
    if found.lying.size == 1:
        caption = "The best model"
    else:
        caption = f"All {noun.many}, best first" if few else f"The {len(flats)} best {noun.many}"
    return _rows(found, caption, flats)


def worst(found: Findings) -> Table:
    """Return the partitions with the worst scores, if there are so many that this tells."""
    flats = found.ordered(EXTREMES, best_first=False) if found.lying.size > MOST_LISTED else []
    scores = found.gathered.best_score
    flats = sorted(
        (int(i) for i in np.argsort(np.where(np.isnan(scores), np.inf, scores))[: len(flats)]),
        key=lambda i: float(scores[i]),
    )
    return _rows(found, f"The {len(flats)} worst {found.lying.noun.many}", flats)


def _rows(found: Findings, caption: str, flats: list[int]) -> Table:
    gathered, metric = found.gathered, found.metric
    held = [found.metrics[name] for name in gathered.held_out]
    places = [clean(axis.name) for axis in found.lying.axes]
    columns = [*places, "model", metric.axis, "± splits", "parameters"]
    columns += [*(f"{each.axis}, held out" for each in held), "samples"]
    rows = []
    for flat in flats:
        labels = [label_text(label) for label in found.labels(flat).values()]
        score = number(metric.sign * float(gathered.best_score[flat]))
        spread = number(float(gathered.spread[flat]), 2)
        name = clean(gathered.models[gathered.model[flat]])
        cells = [*labels, name, score, spread, best_text(found, flat)]
        cells += [number(m.sign * float(gathered.held_out[m.name][flat])) for m in held]
        rows.append([*cells, f"{gathered.n_samples[flat]:,}"])
    first = len(places) + 1
    numbers = frozenset({first, first + 1, *range(first + 3, len(columns))})
    return Table(caption, columns, rows, numbers)


def groups(found: Findings) -> Iterator[Table]:
    """Yield for each dimension of labels how models and scores differ between them."""
    gathered, metric = found.gathered, found.metric
    if len(found.lying.axes) < 2:
        return
    winners = [i for i in found.ranking if found.wins[i]]
    for number_of, axis in enumerate(found.lying.axes):
        on_map = found.lying.is_map and number_of in (found.lying.plane or ())
        if axis.size > MOST_GROUPS or on_map:
            continue
        rows = []
        for index in range(axis.size):
            where: list[Any] = [slice(None)] * len(found.lying.axes)
            where[number_of] = index
            models = gathered.model.reshape(found.lying.shape)[tuple(where)].ravel()
            scores = gathered.best_score.reshape(found.lying.shape)[tuple(where)].ravel()
            low, _, middle, _, high = sorted(metric.shown(quantiles(scores)))
            rows.append(
                [
                    axis.text(index),
                    f"{(models >= 0).sum():,}",
                    *(f"{(models == i).sum():,}" for i in winners),
                    number(middle),
                    f"{number(low)} to {number(high)}",
                ]
            )
        names = [f"{clean(gathered.models[i], 22)} best" for i in winners]
        columns = [clean(axis.name), found.lying.noun.many, *names]
        columns += [f"median {metric.axis}", "four fifths"]
        caption = f"By {clean(axis.name)}"
        yield Table(caption, columns, rows, frozenset(range(1, len(columns))))


def metrics(found: Findings) -> Table:
    """Return what the best candidates have by each metric, inside and held out."""
    gathered = found.gathered
    rows = []
    for name, metric in found.metrics.items():
        inside = gathered.best_score if name == found.metric.name else gathered.others[name]
        for where, scores in (
            ("cross-validation", inside),
            ("held out", gathered.held_out.get(name)),
        ):
            if scores is None or not np.isfinite(scores).any():
                continue
            low, _, middle, _, high = sorted(metric.shown(quantiles(scores)))
            rows.append([metric.axis, where, number(middle), number(low), number(high)])
    columns = ["metric", "samples", "median", "10 %", "90 %"]
    caption = f"Quantiles over the {found.lying.noun.many}, of the best candidate of each"
    return Table(caption, columns, rows if len(rows) > 1 else [], frozenset({2, 3, 4}))


def model_times(found: Findings) -> Table:
    """Return what the fits of each model took."""
    gathered = found.gathered
    rows = []
    for name in gathered.models:
        fits, seconds = gathered.fits.get(name, 0), gathered.seconds.get(name, 0.0)
        if fits:
            whole = seconds / gathered.timed_share
            each = seconds / fits
            rows.append(
                [clean(name), f"{fits / gathered.timed_share:,.0f}", duration(whole), _milli(each)]
            )
    about = "" if gathered.timed_share == 1 else ", estimated from a part of them"
    columns = ["model", "fits", "all together", "each"]
    caption = f"Time of fits and their scores, on one core{about}"
    return Table(caption, columns, rows, frozenset({1, 2, 3}))


def _milli(seconds: float) -> str:
    return f"{number(1000 * seconds, 2)} ms" if seconds < 1 else f"{number(seconds, 3)} s"


def runs(found: Findings) -> Table:
    """Return what was predicted of each run, and what came."""
    rows = []
    for run in found.gathered.store.header.runs[-10:]:
        cells = [
            clean(run.get("began", "")),
            f"{run.get('workers', 0):,}",
            f"{run.get('cells', 0):,}",
        ]
        for key in ("predicted", "came"):
            facts = run.get(key) or {}
            seconds, memory = facts.get("seconds"), facts.get("memory_bytes")
            cells.append("unknown" if seconds is None else duration(float(seconds)))
            cells.append("unknown" if not memory else format_bytes(int(memory)))
        cells.append(clean((run.get("came") or {}).get("result", "not ended")))
        rows.append(cells)
    columns = [
        "began (UTC)",
        "workers",
        "candidates × partitions",
        "time predicted",
        "memory predicted",
    ]
    columns += ["time taken", "memory used", "ended"]
    caption = "Runs: what their first units predicted, and what came; memory is of one worker"
    return Table(caption, columns, rows, frozenset(range(1, 7)))


def failures(found: Findings, warned: bool) -> Table:
    """Return the reasons of failures, or what candidates that are done warned of."""
    gathered = found.gathered
    picked = [
        (reason, count)
        for reason, count in gathered.reasons.most_common()
        if (reason.status == DONE) == warned and reason.status != STATUS_MEANINGS.index("empty")
    ]
    whole = gathered.n_partitions * int(gathered.store.strategy.in_spec.sum())
    rows = [
        [
            clean(reason.message, LONGEST_REASON) or "no reason was given",
            STATUS_MEANINGS[reason.status].replace("_", " "),
            share(count, whole),
            place(found, gathered.examples[reason]),
        ]
        for reason, count in picked[:MOST_FAILURES]
    ]
    what = "warning" if warned else "reason"
    more = f"; the {len(rows)} most frequent of {len(picked):,}" if len(picked) > len(rows) else ""
    caption = f"By {what}: how many candidates of how many{more}"
    return Table(caption, [what, "state", "candidates", "for example at"], rows, frozenset())


def reasons_of_empty(found: Findings) -> Table:
    """Return why partitions are empty."""
    gathered = found.gathered
    empty = STATUS_MEANINGS.index("empty")
    rows = [
        [
            clean(reason.message, LONGEST_REASON) or "no samples",
            place(found, gathered.examples[reason]),
        ]
        for reason, _ in gathered.reasons.most_common()
        if reason.status == empty
    ]
    return Table("Why partitions are empty", ["reason", "for example at"], rows[:5])
