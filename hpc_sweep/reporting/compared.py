"""Figures that compare: models, values of parameters, samples; with what they show in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hpc_sweep.reporting import charts
from hpc_sweep.reporting.drawing import (
    Picture,
    colours,
    file_name,
)
from hpc_sweep.reporting.findings import Findings, Response, quantiles
from hpc_sweep.reporting.gathering import Choice
from hpc_sweep.reporting.mapped import held_out_map
from hpc_sweep.reporting.words import clean, duration, number, percent, share, value
from hpc_sweep.reporting.working import Working

FEWEST_POINTS = 8
"""Fewer points than these tell no more than a table."""


def response_figures(found: Findings) -> Iterator[Picture]:
    """Yield scores against each parameter."""
    hues = colours(len(found.gathered.models))
    metric = found.metric
    for name, choice in found.gathered.params.items():
        responses = list(found.responses(name))
        if not responses:
            continue
        lines = [
            charts.Line(
                clean(found.gathered.models[each.model], 22),
                hues[each.model],
                each.values,
                metric.shown(each.quantiles),
            )
            for each in responses
        ]
        yield Picture(
            f"score-{file_name(name)}",
            f"{metric.title} against {clean(name)}",
            _response_caption(found),
            " ".join(_response_alt(found, name, choice, each) for each in responses),
            partial(charts.draw_response, lines, clean(name), choice.texts, f"{metric.axis}"),
        )


def _response_caption(found: Findings) -> str:
    if found.gathered.n_partitions == 1:
        return "The best score with each value of the parameter."
    noun = found.lying.noun
    return (
        f"Of each {noun.one} the best candidate with that value. Line: median; bands: half and "
        f"four fifths of the {noun.many}."
    )


def _response_alt(found: Findings, name: str, choice: Choice, response: Response) -> str:
    median = response.median
    if not np.isfinite(median).any():
        return ""
    best, worst = int(np.nanargmax(median)), int(np.nanargmin(median))

    def text(index: int) -> str:
        of = response.values[index]
        return value(float(of)) if choice.texts is None else clean(choice.texts[int(of)])

    metric = found.metric
    return (
        f"{clean(found.gathered.models[response.model])}: the median {metric.title} is best with "
        f"{clean(name)} {text(best)} ({metric.text(float(median[best]))}) and worst with "
        f"{text(worst)} ({metric.text(float(median[worst]))})."
    )


def model_figures(found: Findings) -> Iterator[Picture]:
    """Yield the comparison of models."""
    gathered, metric, noun = found.gathered, found.metric, found.lying.noun
    if len(gathered.models) < 2 or not found.n_best:
        return
    order = found.ranking
    names = [gathered.models[i] for i in order]
    all_hues = colours(len(gathered.models))
    hues = [all_hues[i] for i in order]
    wins = [int(found.wins[i]) for i in order]
    close = [_closely(found, i) for i in order]
    if gathered.n_partitions > 1:
        yield Picture(
            "model-wins",
            f"At how many {noun.many} each model is best",
            "Paler: the splits do not agree that the winner is better than the next model (mean "
            "difference less than its standard deviation over the splits).",
            "; ".join(
                f"{clean(n)} wins {share(w, found.n_best)}, {c:,} of these closely"
                for n, w, c in zip(names, wins, close, strict=True)
            )
            + ".",
            partial(charts.draw_wins, names, wins, close, hues, noun.many),
        )
    ranges = np.stack([metric.shown(quantiles(gathered.of_model[i])) for i in order])
    yield Picture(
        "model-scores",
        f"{metric.title} of each model's best candidate",
        f"Over all {noun.many}: point: median; thick: half; thin: four fifths."
        if gathered.n_partitions > 1
        else "Of the best candidate of each model.",
        "; ".join(f"{clean(n)}: median {number(r[2])}" for n, r in zip(names, ranges, strict=True))
        + ".",
        partial(charts.draw_ranges, names, ranges, hues, metric.axis, False),
    )
    if gathered.n_partitions > 1:
        yield _paired(found, order, hues)


def _closely(found: Findings, model: int) -> int:
    """Return how many partitions a model wins closely, by the share of those looked at."""
    mine = (found.gathered.model == model) & found.is_compared
    if not mine.any():
        return 0
    return round(int(found.wins[model]) * float(found.is_close[mine].mean()))


def _paired(found: Findings, order: list[int], hues: list[Any]) -> Picture:
    metric, first = found.metric, clean(found.gathered.models[order[0]])
    others = order[1:]
    names = [clean(found.gathered.models[i]) for i in others]
    ranges = np.stack([metric.sign * quantiles(found.differences[i]) for i in others])
    better = [int((found.differences[i] > 0).sum()) for i in others]
    known = [int(np.isfinite(found.differences[i]).sum()) for i in others]
    notes = [f"better at {percent(b, k)}" for b, k in zip(better, known, strict=True)]
    side = "Left of the line" if metric.less_is_better else "Right of the line"
    return Picture(
        "model-differences",
        f"Difference from {first}, {found.lying.noun.one} by {found.lying.noun.one}",
        f"{side}: better than {first}. Point: median; thick: half; thin: four fifths.",
        "; ".join(
            f"{n}: median difference {number(r[2])}, better than {first} at {share(b, k)}"
            for n, r, b, k in zip(names, ranges, better, known, strict=True)
        )
        + ".",
        partial(
            charts.draw_ranges,
            names,
            ranges,
            hues[1:],
            f"difference of {metric.axis}",
            True,
            notes=notes,
        ),
    )


def weakness_figures(found: Findings) -> Iterator[Picture]:
    """Yield scores against the number of samples, where that differs."""
    gathered, metric = found.gathered, found.metric
    counts = gathered.n_samples[found.has_best]
    if counts.size < FEWEST_POINTS or np.ptp(counts) == 0:
        return
    scores = gathered.best_score[found.has_best]
    half = np.median(counts)
    few, many = scores[counts < half], scores[counts >= half]
    alt = (
        f"{metric.title} against the number of samples, {counts.min():,} to {counts.max():,}: "
        f"median {metric.text(float(np.median(many)))} with {half:,.0f} samples or more"
    )
    alt += f", {metric.text(float(np.median(few)))} with fewer." if few.size else "."
    yield Picture(
        "score-samples",
        f"{metric.title} against the number of samples",
        f"A point is a {found.lying.noun.one}; where there are many, brighter is more of them.",
        alt,
        partial(
            charts.draw_pairs,
            counts.astype(float),
            metric.shown(scores),
            ("samples", metric.axis),
            diagonal=False,
        ),
    )


def held_out_figures(found: Findings) -> Iterator[Picture]:
    """Yield hold-out scores against those of cross-validation, by metric."""
    gathered = found.gathered
    for name, held in gathered.held_out.items():
        metric = found.metrics[name]
        inside = gathered.best_score if name == found.spec.refit_metric else gathered.others[name]
        both = np.isfinite(held) & np.isfinite(inside)
        if both.sum() < FEWEST_POINTS:
            continue
        worse = int((held[both] < inside[both]).sum())
        side = "Above" if metric.less_is_better else "Below"
        yield Picture(
            f"holdout-{file_name(name)}",
            f"{metric.title} on samples held out against cross-validation",
            f"{side} the line: worse on the samples held out than cross-validation "
            "promised. Of many points the hundredth parts at the ends are not shown.",
            f"Median {metric.title} on samples held out "
            f"{metric.text(float(np.median(held[both])))}, in cross-validation "
            f"{metric.text(float(np.median(inside[both])))}; worse on those held out at "
            f"{share(worse, int(both.sum()))}.",
            partial(
                charts.draw_pairs,
                metric.shown(inside),
                metric.shown(held),
                ("cross-validation", f"held out: {metric.axis}"),
            ),
        )

    metric = found.metric
    if found.lying.plane is not None and metric.name in gathered.held_out:
        yield held_out_map(found, metric, gathered.held_out[metric.name])


def worker_figures(worked: Working | None) -> Iterator[Picture]:
    """Yield how workers were used over time."""
    if worked is None or not worked.units:
        return
    for unit, seconds in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if worked.seconds >= 2 * seconds or unit == "s":
            break
    edges = worked.edges / seconds
    yield Picture(
        "workers",
        "Workers over time",
        "Workers that were there, and those at work; the time between runs is left out.",
        f"Up to {worked.there.max():,.0f} workers over {duration(worked.seconds)}, at work "
        f"{100 * worked.share:.0f}\u00a0% of the time.",
        partial(
            charts.draw_workers, edges, np.minimum(worked.busy, worked.there), worked.there, unit
        ),
    )
