"""Fits per second of hpc_sweep beside those of others, on the same data and two cores.

    python benchmarks/peers.py [--pixels N] [--repeats R] [--store ZARR] [--json FILE] [--plot PNG]

See the README beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# numpy reads these when it is loaded, and workers import this file: so the libraries are
# imported inside functions, and all processes have one thread
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

if TYPE_CHECKING:
    from methods import Case, Run
    from workloads import Data, Workload

MOST_OTHERS = 0.05
"""When others have more of the cores than this, the table says that it is rough."""


@dataclass(frozen=True)
class Measured:
    """One run of a method, and the run of ours beside it.

    Attributes
    ----------
    method : str
        Which.
    n_fits : int
        Fits that were done.
    share : float
        Part of the pixels that were done.
    work_s, whole_s : float
        Seconds of work, and with starting and ending workers.
    rate, whole_rate : float
        Fits per second of both.
    ours_rate, ours_whole_rate : float
        Those of ours beside it.
    cpu_ms : float
        Milliseconds of a core per fit, with starting workers.
    others : float
        Share of the cores' time that went to anything else meanwhile.
    difference : float
        Largest absolute difference of its scores from ours.
    """

    method: str
    n_fits: int
    share: float
    work_s: float
    whole_s: float
    rate: float
    whole_rate: float
    ours_rate: float
    ours_whole_rate: float
    cpu_ms: float
    others: float
    difference: float


@dataclass(frozen=True)
class Row:
    """A line of the table: medians over all runs of a method."""

    method: str
    share: float
    rate: float
    ratio: float
    ratio_low: float
    ratio_high: float
    whole_rate: float
    whole_ratio: float
    cpu_ms: float
    others: float
    difference: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write what is asked for."""
    options = _options(arguments)
    _two_cores()
    begin = time.perf_counter()
    tables: dict[str, list[Row]] = {}
    raw: dict[str, list[Measured]] = {}
    from workloads import WORKLOADS, cut_out, generate

    known: dict[int, Data] = {}
    chosen = [each for each in WORKLOADS if not options.only or options.only in each.name]
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        print(f"{options.repeats} repeats; {_machine()}")
        for workload in chosen:
            side = options.pixels or workload.side
            place = Path(folder) / f"data-{side}.zarr"
            if side not in known:
                cut = options.store
                known[side] = cut_out(cut, place, side) if cut else generate(place, side)
            data = known[side]
            case = _case(data, workload, Path(folder))
            raw[workload.name] = list(_measure(case, options.repeats))
            tables[workload.name] = _rows(raw[workload.name])
            title = f"{workload.name} ({workload.n_fits} fits a pixel; {data.name})"
            _print_table(title, tables[workload.name])
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(_record(raw, tables), indent=1) + "\n")
    if options.plot:
        _plot(tables, options.plot)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--pixels", type=_positive, metavar="N", help="N × N pixels (default: by workload)")
    add("--only", metavar="TEXT", help="workloads with this in their name")
    add("--repeats", type=_positive, default=2, metavar="R", help="rounds (default: 2)")
    add("--store", type=Path, metavar="ZARR", help="the ERA5 store, in place of generated data")
    add("--json", type=Path, metavar="FILE", help="write all times")
    add("--plot", type=Path, metavar="PNG", help="draw the table (needs matplotlib)")
    options = parser.parse_args(arguments)
    for path in (options.json, options.plot):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"there is no folder {path.parent}")
    if options.store and not options.store.is_dir():
        parser.error(f"there is no store {options.store}")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _two_cores() -> None:
    """Keep this process and all that it starts on the same two cores."""
    from methods import WORKERS, our_cores

    cores = our_cores()
    if len(cores) < WORKERS:
        print(f"fewer than {WORKERS} cores are here: ratios say little", file=sys.stderr)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:WORKERS])


def _machine() -> str:
    from hpc_sweep.versions import versions

    found = versions()
    wanted = ("hpc-sweep", "scikit-learn", "numpy", "dask")
    named = ", ".join(f"{name} {found[name]}" for name in wanted)
    load = os.getloadavg()[0]
    return f"{found['cpu']}; Python {found['python']}, {named}; load {load:.1f} before"


def _case(data: Data, workload: Workload, folder: Path) -> Case:
    from methods import Case
    from searches import bare_loop, search_pixel
    from workloads import load_pixels

    case = Case(data, workload, folder)
    pixels = load_pixels(data, case.target)[:1]
    search_pixel(*pixels[0], workload.search)  # the first use imports more; no method pays for it
    bare_loop(pixels, workload.search)
    return case


def _measure(case: Case, repeats: int) -> Iterator[Measured]:
    """Yield runs in rounds; each peer runs beside one of ours, every other round reversed."""
    from methods import OURS, ROUND, TASKS, measure

    for repeat in range(repeats):
        for group in ROUND:
            runs = {}
            for name in group if repeat % 2 == 0 else group[::-1]:
                _say(f"{case.workload.name}, round {repeat + 1} of {repeats}: {name}")
                runs[name] = measure(name, case)
            _say("")
            runs[TASKS] = replace(runs[OURS], work_s=runs[OURS].task_s)
            for name, run in runs.items():
                yield _beside(name, run, runs[OURS], case.workload)


def _beside(method: str, run: Run, ours: Run, workload: Workload) -> Measured:
    n_fits = workload.n_fits
    n_pixels = len(run.scores)
    difference = float(abs(run.scores - ours.scores[:: run.step]).max())
    if not difference <= workload.tolerance:
        raise SystemExit(f"{method}: scores differ from ours by {difference:.1e}; no time is told")
    share = n_pixels / len(ours.scores)
    all_fits = len(ours.scores) * n_fits
    return Measured(
        method,
        n_pixels * n_fits,
        share,
        run.work_s,
        run.whole_s,
        n_pixels * n_fits / run.work_s,
        all_fits / (run.whole_s - run.work_s + run.work_s / share),
        all_fits / ours.work_s,
        all_fits / ours.whole_s,
        1000 * run.cpu_s / (n_pixels * n_fits),
        run.others,
        difference,
    )


def _rows(measured: Sequence[Measured]) -> list[Row]:
    from methods import METHODS, OURS, TASKS

    order = [OURS, TASKS, *(name for name in METHODS if name != OURS)]
    return [_row([m for m in measured if m.method == name]) for name in order]


def _row(runs: Sequence[Measured]) -> Row:
    from methods import BARE, WORKERS

    cores = WORKERS if runs[0].method == BARE else 1
    name = f"{BARE} × {WORKERS} cores" if cores > 1 else runs[0].method
    ratios = [m.ours_rate / m.rate / cores for m in runs]
    return Row(
        name,
        runs[0].share,
        statistics.median(m.rate for m in runs) * cores,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(m.whole_rate for m in runs) * cores,
        statistics.median(m.ours_whole_rate / m.whole_rate / cores for m in runs),
        statistics.median(m.cpu_ms for m in runs),
        statistics.median(m.others for m in runs),
        max(m.difference for m in runs),
    )


def _print_table(title: str, rows: Sequence[Row]) -> None:
    head = ("method", "fits/s, work", "ours ÷ it", "lowest–highest", "fits/s, whole", "ours ÷ it")
    lines = [[*head, "core-ms/fit", "others"], *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n{title}\n")
    for line in (lines[0], rule, *lines[1:]):
        padded = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        print(f"| {' | '.join([line[0].ljust(widths[0]), *padded])} |")
    print(f"\nlargest difference of a score from ours: {max(row.difference for row in rows):.1e}")
    most = max(row.others for row in rows if not math.isnan(row.others))
    if most > MOST_OTHERS:
        print(f"others had up to {most:.0%} of the cores meanwhile: these ratios are rough")


def _cells(row: Row) -> list[str]:
    from methods import DASK_ML

    part = "" if row.share == 1 else f" ({row.share:.0%} of pixels)"
    return [
        f"{row.method}{part}",
        f"{row.rate:,.0f}",
        f"{row.ratio:.2f}",
        f"{row.ratio_low:.2f}–{row.ratio_high:.2f}",
        f"{row.whole_rate:,.0f}",
        f"{row.whole_ratio:.2f}",
        "–" if row.method == DASK_ML or math.isnan(row.cpu_ms) else f"{row.cpu_ms:.2f}",
        "–" if math.isnan(row.others) else f"{row.others:.0%}",
    ]


def _record(
    raw: Mapping[str, Sequence[Measured]], tables: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    from hpc_sweep.versions import versions

    return {
        "versions": versions(),
        "tables": {name: [asdict(row) for row in rows] for name, rows in tables.items()},
        "runs": {name: [asdict(run) for run in runs] for name, runs in raw.items()},
    }


def _plot(tables: Mapping[str, Sequence[Row]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        len(tables), 1, figsize=(8, 3.2 * len(tables)), squeeze=False, layout="constrained"
    )
    for panel, (name, rows) in zip(panels[:, 0], tables.items(), strict=True):
        _draw(panel, name, rows)
    panels[-1, 0].set_xlabel("fits per second of work, two cores (log scale)")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw(panel: Any, name: str, rows: Sequence[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.rate)
    colours = [_colour(row.method) for row in ordered]
    bars = panel.barh([row.method for row in ordered], [r.rate for r in ordered], color=colours)
    labels = [f"{row.rate:,.0f}  (ours ÷ it: {row.ratio:.2f})" for row in ordered]
    panel.bar_label(bars, labels, padding=4, fontsize=8)
    panel.set_xscale("log")
    rates = [row.rate for row in ordered]
    panel.set_xlim(min(rates) / 3, max(rates) * 6)
    panel.set_title(name, loc="left", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)


def _colour(method: str) -> str:
    if method.startswith("hpc_sweep"):
        return "tab:blue"
    return "tab:gray" if method.startswith("bare") else "tab:orange"


def _say(text: str) -> None:
    """Show on a terminal what is being done, in one line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
