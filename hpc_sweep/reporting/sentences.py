"""What a report says in words, with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpc_sweep.choices import STATUS_MEANINGS
from hpc_sweep.reporting.findings import Findings, n_done
from hpc_sweep.reporting.gathering import states
from hpc_sweep.reporting.words import (
    Noun,
    clean,
    label_text,
    listing,
    number,
    share,
    value,
)

MOST_NAMED = 8
"""So many features are named; of more, the count."""


@dataclass(frozen=True)
class Answer:
    """The answer of a sweep.

    Attributes
    ----------
    headline : str
        In one sentence.
    notes : tuple of str
        How good, how sure, what is missing.
    """

    headline: str
    notes: tuple[str, ...]


def question(found: Findings) -> str:
    """Return what was asked, in one or two sentences."""
    spec, store = found.spec, found.gathered.store
    strategy, noun = store.strategy, found.lying.noun
    data = spec.data
    what = listing([clean(name) for name in spec.targets]) if spec.targets else "the data"
    named = [clean(name) for name in data.features]
    features = listing(named) if 0 < len(named) <= MOST_NAMED else f"{len(named)} features"
    verb = f"best predicts {what}" if spec.targets else f"suits {what} best"
    kind = "trials" if strategy.dim == "trial" else "candidates"
    rows = int(strategy.in_spec.sum())
    where = "the data set" if not found.lying.axes else f"each of {_grid(found)}"
    what_models = f"{rows:,} {kind} of {_count(len(strategy.model_names), 'model')}"
    text = f"For {where}: which of {what_models} ({clean(strategy.by_model(), 200)}) {verb}"
    text += f" from {features}?" if data.features else "?"
    splits = store.header.n_splits
    text += f" Compared by {found.metric.title}, averaged over {_count(splits, 'split')}"
    text += f" ({_cv(found)}), strategy {spec.search.strategy}, seed {spec.search.seed}."
    if data.held_out is not None:
        text += f" Held out from every search: {clean(data.held_out, 120)}."
    if noun.one == "tile":
        text += " A tile is a block of neighbouring pixels with one training set."
    return text


def _count(count: int, one: str) -> str:
    return f"{count:,} {one}" + ("" if count == 1 else "s")


def _grid(found: Findings) -> str:
    """Return how many partitions there are, and along what."""
    sides = " × ".join(f"{axis.size:,} {clean(axis.name)}" for axis in found.lying.axes)
    counted = found.lying.noun.counted(found.lying.size)
    return f"{counted} ({sides})" if len(found.lying.axes) > 1 else counted


def _cv(found: Findings) -> str:
    cv = found.spec.search.cv
    if isinstance(cv, int):
        return f"{cv} folds" if cv > 1 else "one train/test split"
    name = str(cv.get("class", "")).rpartition(".")[2]
    groups = found.spec.search.groups
    return clean(name or (f"one {groups} left out at a time" if groups else "own splits"), 80)


def answer(found: Findings) -> Answer:
    """Return who wins, how well, and how sure that is."""
    gathered = found.gathered
    if not found.n_best:
        counted = found.lying.noun.counted(gathered.n_partitions)
        return Answer(f"No model has a score yet: {counted}, {states_text(found)}.", ())
    return Answer(_headline(found), tuple(_notes(found)))


def _headline(found: Findings) -> str:
    gathered, metric, noun = found.gathered, found.metric, found.lying.noun
    first = found.ranking[0]
    name = clean(gathered.models[first])
    if gathered.n_partitions == 1:
        params = best_text(found, 0)
        score = metric.text(float(gathered.best_score[0]))
        return f"{name}{f' with {params}' if params else ''} is best: {metric.title} {score}."
    middle = metric.text(float(found.quantiles[2]))
    if len(gathered.models) == 1:
        whole = noun.counted(found.n_best)
        return f"{name} has a median {metric.title} of {middle} over {whole}."
    if found.wins[first] == found.n_best:
        where = f"all {found.n_best:,} {noun.many}" if found.n_best > 1 else f"the one {noun.one}"
        return f"{name} is best at {where}; median {metric.title} {middle}."
    where = share(int(found.wins[first]), found.n_best, noun.many)
    others = [
        f"{clean(gathered.models[i])} at {found.wins[i]:,}"
        for i in found.ranking[1:4]
        if found.wins[i]
    ]
    text = f"{name} is best at {where}, {listing(others)}"
    return f"{text}; median {metric.title} {middle}."


def _notes(found: Findings) -> Iterator[str]:
    gathered, metric, noun = found.gathered, found.metric, found.lying.noun
    if found.n_best > 1:
        low, lower, _, upper, high = (metric.text(float(q)) for q in _ascending(found))
        yield (
            f"Half of the {noun.many} have {a_title(metric.title)} between {lower} and {upper}, "
            f"four fifths between {low} and {high}."
        )
    yield from _certainty(found)
    yield from _held_out(found)
    missing = found.n_with_data - n_done(gathered)
    if missing > 0:
        yield f"{noun.counted(missing)} failed and have no result; reasons are below."
    empty = states(gathered.status).get("empty", 0)
    if empty:
        of = (
            "it has"
            if found.lying.size == 1
            else f"{share(empty, found.lying.size, noun.many)} have"
        )
        yield f"No model: {of} no samples, or too few."


def _certainty(found: Findings) -> Iterator[str]:
    gathered, metric = found.gathered, found.metric
    known = found.is_compared
    if not known.any():
        return
    lead = f"{number(_median(gathered.lead[known]))}{f' {metric.units}' if metric.units else ''}"
    if gathered.n_partitions == 1:
        sure = "do not agree" if found.is_close.any() else "agree"
        yield f"It is {lead} better than the next model, and the splits {sure} that it is better."
        return
    many = found.lying.noun.many
    close = int(found.is_close.sum())
    if not close:
        yield (
            f"How sure: at all {many} compared the winner's lead over the next model is larger "
            f"than its standard deviation over the splits. The median lead is {lead}."
        )
        return
    yield (
        f"How sure: at {share(close, int(known.sum()), many)} the winner's lead over the next "
        "model is smaller than its standard deviation over the splits: there either may be the "
        f"better one. The median lead is {lead}."
    )


def _ascending(found: Findings) -> list[float]:
    """Return the quantiles of the scores, so that what is shown ascends."""
    quantiles = found.quantiles.tolist()
    return list(quantiles[::-1] if found.metric.less_is_better else quantiles)


def a_title(title: str) -> str:
    """Return a title with its article."""
    return (
        f"{'an' if title[0].lower() in 'aeiou' or title.startswith(('R²', 'F1')) else 'a'} {title}"
    )


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _held_out(found: Findings) -> Iterator[str]:
    gathered, metric = found.gathered, found.metric
    held = gathered.held_out.get(metric.name)
    if held is None or not np.isfinite(held).any():
        return
    both = np.isfinite(held) & np.isfinite(gathered.best_score)
    change = held[both] - gathered.best_score[both]
    text = metric.text(_median(held))
    if both.sum() == 1:
        yield f"On the samples held out its {metric.title} is {text}."
        return
    worse = share(int((change < 0).sum()), int(both.sum()), found.lying.noun.many)
    yield (
        f"On the samples held out the median {metric.title} is {text}; it is worse there than in "
        f"cross-validation at {worse}."
    )


def best_text(found: Findings, flat: int) -> str:
    """Return the parameters of the best candidate of a partition."""
    texts = []
    for name, choice in found.gathered.params.items():
        of = choice.values[flat]
        if np.isnan(of):
            continue
        text = value(float(of)) if choice.texts is None else clean(choice.texts[int(of)])
        texts.append(f"{clean(name)}={text}")
    return ", ".join(texts)


def place(found: Findings, flat: int) -> str:
    """Return the labels of a partition."""
    labels = found.labels(flat)
    return ", ".join(f"{clean(dim)} {label_text(label)}" for dim, label in labels.items())


def unfinished(found: Findings) -> str:
    """Return how far an unfinished sweep is; ``""`` for a finished one."""
    settled, whole = found.n_settled, found.gathered.n_partitions
    status = states(found.gathered.status)
    if "pending" not in status:
        return ""
    return (
        f"This sweep is not finished: {share(settled, whole, found.lying.noun.many)} are settled "
        "in the store. What follows is of these alone."
    )


def states_text(found: Findings) -> str:
    """Return partitions by state."""
    counted = states(found.gathered.status)
    order = [state for state in STATUS_MEANINGS if state in counted]
    order.sort(key=lambda state: state != "done")
    return ", ".join(f"{counted[state]:,} {state.replace('_', ' ')}" for state in order)


def plural(noun: Noun, count: int) -> str:
    """Return the word for so many."""
    return noun.one if count == 1 else noun.many
