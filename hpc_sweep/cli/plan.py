"""``hpc-sweep plan``: check everything, and show what would happen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from hpc_sweep.choices import OF_PICKLES
from hpc_sweep.cli.options import as_json, core_hours_text, loaded_spec, spec_options

if TYPE_CHECKING:
    from hpc_sweep.plan import Plan
    from hpc_sweep.prepare import Prepared
    from hpc_sweep.source import Source
    from hpc_sweep.store import Ledger
    from hpc_sweep.strategies import Strategy

WORTH_TELLING_S = 5.0
"""A reading that takes less, and is left as it is, is not talked about."""


@click.command()
@spec_options
@click.option(
    "--calibrate", is_flag=True, help="Measure a sample of partitions here, for about 20 s."
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def plan(
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    calibrate: bool,
    json_: bool,
) -> None:
    """Check SPEC and its data, and show what a run would do. Nothing is written.

    How long it takes is known once a run has begun, or by --calibrate.

    \b
    Examples:
      hpc-sweep plan sweep.yaml
      hpc-sweep plan sweep.yaml --calibrate --workers 48
      hpc-sweep plan sweep.yaml --set search.cv=5 --json
    """
    from hpc_sweep.budget import check_budget
    from hpc_sweep.prepare import prepare

    prepared = prepare(loaded_spec(spec, settings, cluster, workers, store), spec)
    check_budget(prepared.spec, prepared.store, prepared.change)
    facts = plan_facts(prepared, calibrate=calibrate)
    click.echo(as_json(facts) if json_ else plan_text(prepared, facts))


def plan_facts(
    prepared: Prepared, begun: Ledger | None = None, *, calibrate: bool = False
) -> dict[str, Any]:
    """Return the plan as plain facts; of a sweep that is begun its candidates may have changed."""
    made, grid = prepared.plan, prepared.plan.grid
    hours = core_hours(prepared, begun) | (_calibrated(prepared) if calibrate else {})
    return {
        "name": prepared.spec.name,
        "partitions": grid.size,
        "partition_dims": dict(zip(grid.dims, grid.shape, strict=True)),
        "samples_per_partition": prepared.source.n_samples,
        "samples_per_block": made.workload.n_samples,
        "candidates": int(prepared.strategy.in_spec.sum()),
        "strategy": prepared.spec.search.strategy,
        "engine": prepared.spec.search.engine,
        "splits": made.workload.n_splits,
        "holdout": str(held) if (held := prepared.spec.data.held_out) else None,
        "sample_weight": prepared.spec.data.sample_weight,
        "fits": made.workload.n_fits,
        "units": made.n_units(),
        "partitions_per_unit": made.unit_partitions,
        "candidates_per_unit": made.workload.n_candidates
        * made.unit_columns
        // made.workload.n_columns,
        "cluster": prepared.spec.cluster.kind,
        "workers": prepared.cluster.workers,
        "projected_memory_bytes": prepared.memory_bytes,
        "worker_memory_bytes": prepared.cluster.worker_memory_bytes(),
        "files": made.n_files,
        "max_files": prepared.spec.output.max_files,
        "source_bytes": made.workload.source_bytes,
        "read_bytes": made.read_bytes,
        "read_factor": round(made.read_factor, 3),
        "kept_partitions": made.persisted,
        "rechunk": _rechunk_facts(prepared),
        "labels": label_facts(prepared.source),
        **hours,
        "finish_seconds": _finish_s(
            hours["core_hours_left"], prepared.cluster.workers, made.n_units()
        ),
        "models": prepared.spec.output.models,
        "store": prepared.spec.output.store,
        "store_exists": prepared.store is not None,
        "change": None if prepared.change is None else prepared.change.facts(),
    }


def label_facts(source: Source) -> dict[str, dict[str, Any]]:
    """Return how axes of labels that follow no rule are read, and how much has no label."""
    direct = source.direct
    blocks = direct.grid.read_chunks[: len(direct.axes)]
    return {
        axis.name: {
            "one_by_one": block == 1 < axis.size,
            "one_by_one_factor": round(direct.reads.alone(blocks, place), 3),
            "brought_together": direct is not source,
            "without_label": axis.n_missing,
            "of": axis.codes.size,
        }
        for place, (axis, block) in enumerate(zip(direct.axes, blocks, strict=True))
        if axis.width is None
    }


def _labels_text(facts: dict[str, dict[str, Any]]) -> str:
    """Return how labels are read and why, and how much has none."""
    texts = []
    for name, fact in facts.items():
        how = "read one by one" if fact["one_by_one"] else "read at once as far as a unit has them"
        if fact["brought_together"]:
            how = "brought together by the copy"
        factor = fact["one_by_one_factor"]
        text = f"{name} {how}"
        if f"{factor:.3g}" != "1":
            text += f" (one by one reads {factor:.3g} times as much as all at once)"
        if fact["without_label"]:
            text += f", {fact['without_label']:,} of {fact['of']:,} places have none"
        texts.append(text)
    return "; ".join(texts)


def _calibrated(prepared: Prepared) -> dict[str, Any]:
    """Return what a sample of the sweep says of all of it."""
    from hpc_sweep.calibration import calibrate
    from hpc_sweep.store import Ledger

    found = calibrate(prepared)
    done = 0 if prepared.store is None else Ledger.read(prepared.store).cells_done()
    return {
        "calibrated_partitions": found.n_partitions,
        "core_hours_left": found.core_s / 3600 * (1 - done / prepared.plan.workload.n_cells),
        "measured_memory_bytes": found.peak_bytes,
    }


def _finish_s(core_hours: float | None, workers: int, units: int) -> dict[int, float] | None:
    """Return the seconds of work that are left, by number of workers, where they are known."""
    if core_hours is None:
        return None
    counts = [workers * 4**step for step in range(4)]
    useful = [count for count in counts if count <= max(workers, units)]
    return {count: round(core_hours * 3600 / count, 3) for count in useful}


def core_hours(prepared: Prepared, begun: Ledger | None = None) -> dict[str, Any]:
    """Return what the sweep has used, is going to need, and may use at the most."""
    from hpc_sweep.budget import forecast

    store, change = prepared.store, prepared.change
    if begun is not None and change is not None:
        store, change = begun.store, None  # it is made: files are no longer as `prepared` knew them
    known, cluster = forecast(store, change), prepared.cluster
    most, how = cluster.most_core_hours() or (None, "")
    charge = cluster.charge_facts()
    return {
        "core_hours": known.spent.core_hours,
        "core_hours_left": known.remaining_core_hours,
        "charges": known.spent.charges,
        "core_hours_at_most": most,
        "core_hours_at_most_by": how,
        "max_core_hours": prepared.spec.cluster.max_core_hours,
        "charge_per_core_hour": charge.get("charge_rate"),
        "charge_unit": charge.get("charge_unit"),
    }


def _core_hours_text(facts: dict[str, Any]) -> str:
    """Return used and predicted core-hours, or the most that jobs may use before that is known."""
    rate, unit = facts["charge_per_core_hour"], facts["charge_unit"]

    def amount(hours: float) -> str:
        return f"{hours:,.3g}" + ("" if rate is None else f" ({hours * rate:,.3g} {unit})")

    left, most, limit = (
        facts[name] for name in ("core_hours_left", "core_hours_at_most", "max_core_hours")
    )
    texts = [core_hours_text({**facts, "core_hours_left": None})] if facts["core_hours"] else []
    if left is not None:
        texts += [f"about {amount(left)} left"] if left else []
    elif most is not None:
        texts.append(f"{amount(most)} at the most: {facts['core_hours_at_most_by']}")
    texts += [] if limit is None else [f"limit {limit:,g}"]
    return ", ".join(texts)


def _rechunk_facts(prepared: Prepared) -> dict[str, Any] | None:
    """Return in which way data that is chunked the wrong way is read, and why."""
    ways = prepared.ways
    if ways is None:
        return None
    peers = ways.peers
    return {
        "way": ways.way,
        "variables": list(ways.copy.tiling.names),
        "bytes": ways.nbytes,
        "folder": str(ways.copy.folder),
        "is_whole": ways.is_whole,
        "read_factor_directly": _finite(ways.read_factor_directly, 3),
        "seconds_directly": _finite(ways.seconds_directly, 1),
        "seconds_copy": round(ways.seconds_copied, 1),
        "missing_bytes": ways.missing_bytes,
        "seconds_p2p": None if peers is None else round(peers.seconds, 1),
        "memory_share_p2p": None if peers is None else _finite(peers.share, 4),
        "danger_p2p": None if peers is None else peers.danger,
    }


def _finite(number: float, digits: int) -> float | None:
    return round(number, digits) if math.isfinite(number) else None


def _rechunk_text(facts: dict[str, Any] | None) -> str:
    from hpc_sweep.cli.facts import duration
    from hpc_sweep.plan import format_bytes

    if facts is None:
        return ""
    what = f"{format_bytes(facts['bytes'])} of {len(facts['variables'])} variables"
    directly = "directly no worker could hold what lies between the samples of a partition"
    if facts["seconds_directly"] is not None:
        is_short = facts["seconds_directly"] < WORTH_TELLING_S and not facts["missing_bytes"]
        if facts["way"] == "never" and is_short:
            return ""
        times, took = facts["read_factor_directly"], duration(facts["seconds_directly"])
        directly = f"directly each chunk would be read {times:,.3g} times, in about {took}"
    copy = f"a copy would take about {duration(facts['seconds_copy'])}"
    if facts["missing_bytes"]:
        copy = f"a copy lacks {format_bytes(facts['missing_bytes'])} on the disk"
    peers = "" if facts["seconds_p2p"] is None else _peers_text(facts)
    texts = {
        "copy": [
            f"{what} are copied into the run folder first, by one worker in about "
            f"{duration(facts['seconds_copy'])}",
            directly,
            peers,
        ],
        "p2p": [
            f"{what} are rechunked by the workers among themselves first (Dask's p2p), by one in "
            f"about {duration(facts['seconds_p2p'] or 0)}, and kept in "
            f"{facts['memory_share_p2p'] or 0:.1%} of their memory",
            directly,
            copy,
        ],
        "never": [
            f"{what} lie across the partitions and are read as they are: "
            + directly.replace("would be", "is"),
            copy,
            peers,
        ],
    }
    return "; ".join(text for text in texts[facts["way"]] if text) + " (cluster.rechunk)"


def _peers_text(facts: dict[str, Any]) -> str:
    from hpc_sweep.cli.facts import duration

    if facts["danger_p2p"]:
        return f"p2p among the workers is not safe: {facts['danger_p2p']}"
    return f"p2p among the workers would take about {duration(facts['seconds_p2p'])}"


def _kept_text(made: Plan) -> str:
    """Return what becomes of a partition between the slices of its candidates."""
    if made.is_asked:
        return (
            "each partition stays on workers until its search ends; what this asks for is "
            "evaluated in slices by all workers"
        )
    if not (made.is_sliced and made.workload.may_persist):
        return ""
    if made.persisted:
        refit = " and the best one fitted again" if made.finishes else ""
        kept = "each partition stays on workers until the last slice of its candidates is done"
        return kept + refit
    return "nothing: a worker has no memory for it, so each slice of candidates reads anew"


def _time_text(facts: dict[str, Any]) -> str:
    from hpc_sweep.cli.facts import counted, duration

    if not facts["core_hours_left"]:
        return ""
    times = facts["finish_seconds"].items()
    texts = ", ".join(
        f"{duration(seconds)} with {counted(count, 'worker')}" for count, seconds in times
    )
    number = facts.get("calibrated_partitions")
    how = "at the pace so far" if number is None else f"by {number:,} partitions measured here"
    return f"about {texts}; {how}"


def _by(strategy: Strategy, engine: str) -> str:
    if strategy.on_blocks and not strategy.trains:
        return "each by all workers, by dask-ml"
    if strategy.trains:
        return "each on a block, by dask-ml"
    return "by dask-ml" if engine == "dask-ml" else "work shared where it can be"


def plan_text(prepared: Prepared, facts: dict[str, Any]) -> str:
    """Return the plan as lines for people."""
    from hpc_sweep.cli.facts import counted
    from hpc_sweep.plan import format_bytes

    shape = " × ".join(f"{size} {dim}" for dim, size in facts["partition_dims"].items())
    memory, limit = facts["projected_memory_bytes"], facts["worker_memory_bytes"]
    of = "unknown" if limit is None else format_bytes(limit)
    peak = facts.get("measured_memory_bytes")
    measured = "" if peak is None else f", {format_bytes(peak)} measured"
    way = "never" if facts["rechunk"] is None else facts["rechunk"]["way"]
    of_what = {"copy": " of the copy", "p2p": " of what workers keep", "never": ""}[way]
    read = format_bytes(facts["read_bytes"]) + of_what
    factor = facts["read_factor"]
    times = (
        "each chunk once" if round(factor, 2) == 1 else f"each chunk {factor:g} times on average"
    )
    candidates, strategy = facts["candidates"], prepared.strategy
    lines = {
        "sweep": f"{facts['name']} on {facts['cluster']}, {counted(facts['workers'], 'worker')}",
        "partitions": f"{facts['partitions']:,} ({shape or 'all data'}), "
        f"{facts['samples_per_partition']:,} "
        "samples each at the most"
        + (f", in blocks of {facts['samples_per_block']:,}" if strategy.on_blocks else ""),
        f"{strategy.dim}s": f"{candidates:,} ({strategy.by_model()})",
        "held out": facts["holdout"],
        "weights": facts["sample_weight"],
        "fits": f"{facts['fits']:,} ({counted(facts['splits'], 'split')}), "
        + _by(strategy, facts["engine"]),
        "units": f"{facts['units']:,} of up to "
        f"{counted(facts['partitions_per_unit'], 'partition')} × "
        f"{counted(facts['candidates_per_unit'], strategy.dim)}",
        "memory": f"{format_bytes(memory)} projected per worker{measured}, of {of}",
        "to read": f"{read}, {times}"
        if facts["read_bytes"]
        else f"{format_bytes(facts['source_bytes'])}, by the loader, once in each worker",
        "kept": _kept_text(prepared.plan),
        "rechunk": _rechunk_text(facts["rechunk"]),
        "labels": _labels_text(facts["labels"]),
        "files": f"{facts['files']:,} of at most {facts['max_files']:,}",
        "core-hours": _core_hours_text(facts),
        "time": _time_text(facts),
        "models": OF_PICKLES if facts["models"] == "joblib" else "",
        "store": facts["store"] + (" (exists, goes on)" if facts["store_exists"] else ""),
        "change": prepared.change.text(facts["partitions"]) if prepared.change else "",
    }
    return "\n".join(f"{name + ':':<12}{text}" for name, text in lines.items() if text)
