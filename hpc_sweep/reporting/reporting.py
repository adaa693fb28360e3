"""A report of a store: one page, or its figures as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hpc_sweep import __version__
from hpc_sweep.budget import total_spent
from hpc_sweep.choices import FIGURE_FORMATS, STATUS_MEANINGS
from hpc_sweep.errors import StoreError, disk_errors, listed
from hpc_sweep.redaction import redacted, without_secrets
from hpc_sweep.reporting import compared, figures, mapped, tables
from hpc_sweep.reporting.drawing import PAPER_INCHES, rendered
from hpc_sweep.reporting.findings import Findings, find
from hpc_sweep.reporting.gathering import gather, states
from hpc_sweep.reporting.page import Block, Page, Section, Table, html
from hpc_sweep.reporting.sentences import answer, question, states_text, unfinished
from hpc_sweep.reporting.units import target_units
from hpc_sweep.reporting.words import clean, duration, number, share, value
from hpc_sweep.reporting.working import Working, working
from hpc_sweep.spec.yaml import yaml_text
from hpc_sweep.store import Store, check_files
from hpc_sweep.store.durable import write_durably


def report(store: str | Path, output: str | Path | None = None) -> Path:
    """Write a report of a store: one HTML page that needs no other file and no network.

    Parameters
    ----------
    store : path
        A store; it may be unfinished, the page says how far it is.
    output : path, optional
        The page; default: the store's name with ``.html`` in place of its suffix, in the current
        folder. What is there is replaced, in one step.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        When there is no store, it is damaged, or the page cannot be where it shall be.
    DiskError
        When the page cannot be written.
    """
    opened = _opened(store)
    place = Path(output) if output is not None else Path(f"{opened.path.stem}.html")
    if place.is_dir():
        raise StoreError(f"{place} is a folder; name a file for the page, such as report.html")
    if place.absolute().is_relative_to(opened.path):
        raise StoreError(f"{place} is inside the store, which holds zarr nodes only; name another")
    content = html(_page(*_found(opened))).encode("utf-8", "replace")
    _folder(place.parent)
    write_durably(place, content)
    return place


def write_figures(
    store: str | Path, folder: str | Path, formats: Sequence[str] = ("pdf",)
) -> list[Path]:
    """Write the figures of a report as files for a paper, sized for its columns.

    Parameters
    ----------
    store : path
        A store.
    folder : path
        Where; made if it is not there.
    formats : sequence of str
        Of ``pdf``, ``png`` and ``svg``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    StoreError
        When there is no store, it is damaged, or the folder cannot be one.
    """
    unknown = [kind for kind in formats if kind not in FIGURE_FORMATS]
    if unknown:
        raise StoreError(f"figures cannot be {listed(unknown)}; there are {listed(FIGURE_FORMATS)}")
    opened = _opened(store)
    found, worked = _found(opened)
    place = Path(folder)
    if place.absolute().is_relative_to(opened.path):
        raise StoreError(f"{place} is inside the store, which holds zarr nodes only; name another")
    _folder(place)
    files = []
    for picture in figures.all_figures(found, worked):
        for kind in dict.fromkeys(formats):
            files.append(place / f"{picture.key}.{kind}")
            write_durably(files[-1], rendered(picture, kind, PAPER_INCHES))
    return files


def _folder(place: Path) -> None:
    try:
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{place} is no folder; name another place") from None


def _opened(store: str | Path) -> Store:
    """Return a store after checking that nothing is missing."""
    opened = Store.open(store)
    check_files(opened)
    return opened


def _found(store: Store) -> tuple[Findings, Working | None]:
    return find(gather(store), target_units(store.spec)), working(store.run.path)


def _page(found: Findings, worked: Working | None) -> Page:
    store = found.gathered.store
    version = store.header.versions.get("hpc-sweep", __version__)
    footer = f"Made by hpc-sweep {__version__} of the store {store.path}"
    if worked is not None and worked.last:
        footer += f", whose last event was at {clean(worked.last)}"
    return Page(
        clean(found.spec.name, 120),
        answer(found),
        question(found),
        unfinished(found),
        list(_facts(found, worked)),
        [section for section in _sections(found, worked) if not section.is_empty],
        f"{footer}.",
        clean(version),
    )


def _facts(found: Findings, worked: Working | None) -> Iterator[tuple[str, str]]:
    gathered, store = found.gathered, found.gathered.store
    yield found.lying.noun.many, states_text(found)
    rows = int(store.strategy.in_spec.sum())
    yield ("trials" if store.strategy.dim == "trial" else "candidates"), f"{rows:,}"
    yield "fits", f"{store.grid.size * store.strategy.n_fits(store.header.n_splits):,}"
    samples = gathered.n_samples[found.has_best]
    if samples.size:
        low, high = int(samples.min()), int(samples.max())
        yield "samples each", f"{low:,}" if low == high else f"{low:,} to {high:,}"
    used = total_spent(store.run.path)
    if worked is not None:
        yield "running time", duration(worked.seconds)
    if used.core_hours:
        charges = ", ".join(f"{amount:,.3g} {clean(unit)}" for unit, amount in used.charges.items())
        yield "core-hours", f"{number(used.core_hours, 2)}{f' ({charges})' if charges else ''}"


def _sections(found: Findings, worked: Working | None) -> Iterator[Section]:
    noun, metric = found.lying.noun, found.metric
    yield Section(
        "answer",
        "Which model is best where",
        pictures=list(mapped.answer_figures(found)),
        tables=[*tables.groups(found), tables.partitions(found)],
    )
    yield Section(
        "parameters",
        "Best parameters",
        list(_constant(found)),
        pictures=list(mapped.parameter_figures(found)),
    )
    yield Section(
        "responses",
        f"How {metric.title} goes with the parameters",
        pictures=list(compared.response_figures(found)),
    )
    yield Section("models", "Models compared", pictures=list(compared.model_figures(found)))
    texts = []
    samples = found.gathered.n_samples[found.has_best]
    if samples.size > 1 and np.ptp(samples) == 0:
        texts = [f"All {noun.many} have {int(samples[0]):,} samples, so that explains nothing."]
    bad = tables.worst(found)
    weak = list(compared.weakness_figures(found))
    if bad.rows or weak:
        yield Section("weak", "Where it scores badly", texts, weak, [bad])
    yield Section(
        "holdout",
        "On samples held out",
        pictures=list(compared.held_out_figures(found)),
    )
    yield Section(
        "metrics",
        "By each metric",
        pictures=list(mapped.other_metric_figures(found)),
        tables=[tables.metrics(found)],
    )
    yield _failures(found)
    yield Section(
        "cost",
        "What it took",
        list(_working_texts(worked)),
        list(compared.worker_figures(worked)),
        [tables.runs(found), tables.model_times(found)],
    )
    yield _reproduction(found)


def _constant(found: Findings) -> Iterator[str]:
    """Yield what needs no map: parameters whose best value is the same wherever they apply."""
    for name, choice in found.gathered.params.items():
        values = np.unique(choice.values[np.isfinite(choice.values)])
        if values.size != 1 or found.tested[name].values.size < 2 or found.lying.plane is None:
            continue
        of = float(values[0])
        text = value(of) if choice.texts is None else clean(choice.texts[int(of)])
        yield f"{clean(name)} is best at {text} wherever a model that has it is best."


def _failures(found: Findings) -> Section:
    gathered = found.gathered
    failed, warned = tables.failures(found, warned=False), tables.failures(found, warned=True)
    empty = tables.reasons_of_empty(found)
    texts = []
    said = {
        state: n for state, n in states(gathered.status).items() if state in STATUS_MEANINGS[2:]
    }
    if said:
        parts = [
            f"{share(count, gathered.n_partitions, found.lying.noun.many)} "
            f"{'are' if state == 'empty' else 'ended as'} {state.replace('_', ' ')}"
            for state, count in said.items()
        ]
        texts.append(f"{'; '.join(parts)}.")
    elif not failed.rows and not found.gathered.reasons:
        texts.append("Nothing failed.")
    elif not failed.rows:
        texts.append("Nothing failed; some fits warned.")
    if failed.rows:
        logs = gathered.store.run.logs
        texts.append(
            f"Messages are in the array message of the store; logs of jobs are in {logs}, events "
            f"in {gathered.store.run.events}. To try again: hpc-sweep run SPEC --retry failed."
        )
    return Section("failures", "Failures", texts, tables=[failed, empty, warned])


def _working_texts(worked: Working | None) -> Iterator[str]:
    if worked is None:
        yield "No event log is beside the store, so nothing is known of its workers."
        return
    if not worked.units:
        return
    times = "once" if worked.runs == 1 else f"{worked.runs:,} times"
    text = (
        f"The sweep ran {times}, {duration(worked.seconds)} in all, and finished "
        f"{worked.units:,} units of work"
    )
    if np.isfinite(worked.share):
        text += (
            f"; workers were at work {100 * worked.share:.0f}\u00a0% of the time they were there"
        )
    yield f"{text}."
    if worked.lost:
        yield f"{worked.lost:,} times a worker was lost with a unit, which was done again."


def _reproduction(found: Findings) -> Section:
    store = found.gathered.store
    header = store.header
    versions: list[Sequence[str]] = [[clean(k), clean(v, 80)] for k, v in header.versions.items()]
    mixed = listed(header.mixed_versions)
    if mixed:
        versions.append(["scikit-learn, of some results too", clean(mixed, 120)])
    texts = [
        "Save the spec below as sweep.yaml, set its paths and a cluster, and run: hpc-sweep run "
        "sweep.yaml. With the same data, versions and seed the scores are the same.",
    ]
    identity: list[Sequence[str]] = [
        ["store", str(store.path)],
        ["data", clean(without_secrets(found.spec.data.origin), 300)],
        ["identity of the data", clean(header.source, 80)],
        ["digest of the spec", clean(header.digest, 80)],
        ["seed", str(found.spec.search.seed)],
    ]
    return Section(
        "reproduce",
        "How to reproduce it",
        texts,
        tables=[
            Table("What the results are of", ["what", "is"], identity),
            Table("Versions that the store was begun with", ["library", "version"], versions),
        ],
        blocks=[Block("The spec", _spec_text(found))],
    )


def _spec_text(found: Findings) -> str:
    """Return the spec without the cluster's section, defaults and passwords."""
    raw = found.spec.model_dump(mode="json", exclude_defaults=True)
    raw.pop("cluster", None)
    return yaml_text(redacted(raw))
