"""Figures of which model and parameters are best where, with what they show in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.reporting import charts
from hpc_sweep.reporting.drawing import (
    Picture,
    colours,
    file_name,
    parameter_scale,
    score_scale,
)
from hpc_sweep.reporting.findings import Findings, quantiles
from hpc_sweep.reporting.gathering import Choice
from hpc_sweep.reporting.lying import side_of
from hpc_sweep.reporting.maps import Layer, draw_map
from hpc_sweep.reporting.sentences import place
from hpc_sweep.reporting.words import Metric, clean, number, share, value

MOST_BARS = 40
"""A row of more partitions is drawn as points along a line."""

MOST_KINDS = 8
"""Texts that a map tells apart; the rarer ones are put together."""


def answer_figures(found: Findings) -> Iterator[Picture]:
    """Yield the figures of which model is best where, and how good it is."""
    if found.n_best == 0 or found.lying.size < 2:
        return
    if found.lying.plane is None:
        yield _row(found)
        return
    if (found.wins > 0).sum() > 1:
        yield Picture(
            "best-model",
            "Which model is best",
            _panels(found, "The model with the best mean score."),
            _models_alt(found),
            partial(draw_map, found.lying, _model_layer(found)),
        )
    yield _score_map(found, found.metric, found.gathered.best_score, "best-score")


def other_metric_figures(found: Findings) -> Iterator[Picture]:
    """Yield maps of what the best candidates have by other metrics."""
    if found.lying.plane is None or not found.n_best:
        return
    for name, scores in found.gathered.others.items():
        yield _score_map(found, found.metrics[name], scores, f"metric-{file_name(name)}")


def _score_map(found: Findings, metric: Metric, scores: NDArray[np.float64], key: str) -> Picture:
    shown = metric.shown(scores)
    low, _, middle, _, high = quantiles(shown)
    flat = found.ordered(1, best_first=True)
    where = f" The best is at {place(found, flat[0])}." if flat and key == "best-score" else ""
    return Picture(
        key,
        f"How good the best model is: {metric.title}",
        _panels(found, f"Of the best candidate, averaged over the splits. {good_is(metric)}"),
        f"Map of {metric.title}: median {number(middle)}, four fifths between {number(low)} and "
        f"{number(high)}{f' {metric.units}' if metric.units else ''}.{where}",
        partial(draw_map, found.lying, Layer(shown, metric.axis, score_scale(shown, metric))),
    )


def _panels(found: Findings, text: str) -> str:
    """Add to a caption what of the partitions is not drawn."""
    lying = found.lying
    most = sum(1 for _ in lying.panels())
    if most < lying.n_panels:
        text += f" The first {most} of {lying.n_panels:,} maps are shown."
    every = max(side_of(lying.axes[i], not lying.is_map).every for i in lying.plane or ())
    if every > 1:
        text += f" One in {every} rows or columns is drawn; numbers are of all."
    if not found.has_best.all():
        text += " White: no result."
    return text


def _model_layer(found: Findings) -> Layer:
    names = [
        f"{clean(name, 22)} {100 * wins / found.n_best:.0f} %"
        for name, wins in zip(found.gathered.models, found.wins, strict=True)
    ]
    winners = [i for i in range(len(names)) if found.wins[i]]
    hues = colours(len(names))
    table = np.full(len(names) + 1, np.nan)
    table[winners] = np.arange(len(winners))
    return Layer(
        table[found.gathered.model],
        "",
        None,
        [names[i] for i in winners],
        [hues[i] for i in winners],
        [clean(found.gathered.models[i]) for i in winners],
    )


def _models_alt(found: Findings) -> str:
    parts = [
        f"{clean(found.gathered.models[i])} is best at {share(int(found.wins[i]), found.n_best)}"
        for i in found.ranking
        if found.wins[i]
    ]
    return f"Map of the best model: {'; '.join(parts)}."


def _row(found: Findings) -> Picture:
    """Return the figure of partitions along one dimension."""
    gathered, axis, metric = found.gathered, found.lying.axes[0], found.metric
    hues = np.array([*colours(len(gathered.models)), "#ffffff"], dtype=object)
    shown = metric.shown(gathered.best_score)
    order = np.array(found.ordered(gathered.n_partitions, best_first=True), dtype=np.intp)
    best, worst = place(found, int(order[0])), place(found, int(order[-1]))
    alt = (
        f"{metric.title} of each {found.lying.noun.one}: best "
        f"{metric.text(gathered.best_score[order[0]])} ({best}), worst "
        f"{metric.text(gathered.best_score[order[-1]])} ({worst})."
    )
    caption = f"{metric.title} of the best candidate, averaged over the splits."
    winners = {clean(gathered.models[i], 22): hues[i] for i in found.ranking[:8] if found.wins[i]}
    title = f"How good the best model of each {found.lying.noun.one} is"
    if len(order) <= MOST_BARS:
        names = [axis.text(int(i)) for i in order]
        draw: Any = partial(
            charts.draw_row,
            names,
            shown[order],
            np.nan_to_num(gathered.spread[order]),
            list(hues[gathered.model[order]]),
            winners,
            metric.axis,
        )
        caption += " Lines: standard deviation over the splits. Best first."
    else:
        label = axis.title if axis.is_numeric else "rank"
        picked = order if not axis.is_numeric else np.flatnonzero(found.has_best)
        label, picked = "rank", order
        positions = np.arange(1.0, len(order) + 1)
        if axis.is_numeric:
            label, picked = axis.title, np.flatnonzero(found.has_best)
            positions = axis.labels.astype(float)[picked]
        draw = partial(
            charts.draw_ranks,
            positions,
            shown[picked],
            list(hues[gathered.model[picked]]),
            winners,
            (label, metric.axis),
        )
    return Picture("best-score", title, caption, alt, draw)


def parameter_figures(found: Findings) -> Iterator[Picture]:
    """Yield maps of each best parameter that differs from place to place."""
    if found.lying.plane is None or not found.n_best:
        return
    for name, choice in found.gathered.params.items():
        if np.unique(choice.values[np.isfinite(choice.values)]).size < 2:
            continue
        yield Picture(
            f"best-param-{file_name(name)}",
            f"Best {clean(name)}",
            _panels(found, f"Value of {clean(name)} in the best candidate."),
            _parameter_alt(found, name, choice),
            partial(draw_map, found.lying, _parameter_layer(found, name, choice)),
        )


def _parameter_layer(found: Findings, name: str, choice: Choice) -> Layer:
    absent = found.has_best & np.isnan(choice.values)
    other = "another model"
    if choice.texts is None:
        scale = parameter_scale(choice.values, found.tested[name].values)
        return Layer(choice.values, clean(name), scale, (), (), (), absent, other)
    codes, counts = np.unique(choice.values[np.isfinite(choice.values)], return_counts=True)
    kept = codes[np.argsort(-counts, kind="stable")][:MOST_KINDS].astype(int)
    kept = np.sort(kept)
    names = [clean(choice.texts[code], 22) for code in kept]
    if len(codes) > MOST_KINDS:
        names.append("others")
    table = np.full(len(choice.texts) + 1, float(len(kept)))
    table[kept] = np.arange(len(kept))
    table[-1] = np.nan
    places = np.where(np.isnan(choice.values), -1, choice.values).astype(int)
    hues = colours(len(names) + 2)[2:]  # not those of the first models
    return Layer(table[places], clean(name), None, names, hues, names, absent, other)


def _parameter_alt(found: Findings, name: str, choice: Choice) -> str:
    known = choice.values[np.isfinite(choice.values)]
    codes, counts = np.unique(known, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    texts = [
        f"{value(codes[i]) if choice.texts is None else clean(choice.texts[int(codes[i])])} at "
        f"{share(int(counts[i]), len(known))}"
        for i in order
    ]
    return f"Map of the best {clean(name)}: most often {', '.join(texts)}."


def held_out_map(found: Findings, metric: Metric, held: NDArray[np.float64]) -> Picture:
    """Return the map of scores on samples held out."""
    shown = metric.shown(held)
    low, _, middle, _, high = quantiles(shown)
    scale = score_scale(shown, metric)
    return Picture(
        "holdout-map",
        f"{metric.title} on samples held out",
        _panels(found, f"Of the best candidate, refitted on all other samples. {good_is(metric)}"),
        f"Map of {metric.title} on samples held out: median {number(middle)}, four fifths between "
        f"{number(low)} and {number(high)}.",
        partial(draw_map, found.lying, Layer(shown, metric.axis, scale)),
    )


def good_is(metric: Metric) -> str:
    """Return which end of the colours is good."""
    return "Less is better; brighter is less." if metric.less_is_better else "Brighter is better."
