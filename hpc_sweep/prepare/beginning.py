"""The beginning of a run: the store is made, or changed as the spec asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

import xarray as xr
from pydantic import ByteSize, TypeAdapter, ValidationError

from hpc_sweep.choices import OF_PICKLES, STATUS_MEANINGS
from hpc_sweep.clusters import make_cluster
from hpc_sweep.errors import Fault, SpecError, StoreError
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.prepare.prepared import Prepared
from hpc_sweep.source import Source
from hpc_sweep.spec import SweepSpec
from hpc_sweep.store import (
    Journal,
    Ledger,
    Store,
    change_store,
    create_store,
    fold,
    group_id,
    remove_answers,
    remove_other_models,
    run_folder,
    set_pending,
    sign_types,
    tidy,
)
from hpc_sweep.versions import differences, versions

RANKED_BY_DRIVER = 30_000_000
"""So many means the driver ranks itself, in about ten seconds; of more each chunk is a task."""


def check_versions(store: Store, *, mixed: bool) -> None:
    """Refuse to go on with a store under another minor version of scikit-learn.

    Raises
    ------
    StoreError
        Unless `mixed` allows it.
    """
    made = {k: v for k, v in store.header.versions.items() if k == "scikit-learn"}
    different = differences(made)
    if different and not mixed:
        raise StoreError(
            f"{store.path} was begun under another version: here is {different[0]}, and scores may "
            "differ; use that version, or go on with --mixed-versions, which the store records"
        )


def create(prepared: Prepared) -> Store:
    """Create the store of a sweep that is known to be good."""
    spec, source, plan = prepared.spec, prepared.source, prepared.plan
    return create_store(
        Path(spec.output.store),
        prepared.strategy,
        plan.grid,
        plan.chunks,
        prepared.n_splits,
        _coordinates(spec, source),
        source_identity=source.identity(),
        versions=versions(),
        features=source.direct.described_features(),
        group=group_of(spec),
    )


def _coordinates(spec: SweepSpec, source: Source) -> xr.Dataset:
    """Return the coordinates of the results; splits are named after the groups they leave out."""
    kept = source.kept_coordinates
    if not spec.search.names_splits:
        return kept
    about = {"long_name": f"{spec.search.groups} of the test samples"}
    return kept.assign_coords(split=("split", source.group_labels, about))


def begin(
    prepared: Prepared,
    share: Share = WHOLE,
    retry: Collection[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Store:
    """Make the store of a sweep, or change it as the spec asks; who does it holds the lease.

    Parameters
    ----------
    prepared : Prepared
        The sweep.
    share : Share
        One of several drivers leaves that to who submitted them.
    retry : collection of str
        Kinds of failure that are done again.
    say : callable
        Told what is changed.

    Raises
    ------
    StoreError
        When another driver has changed the store since the sweep was prepared.
    """
    store, change = prepared.store, prepared.change
    is_new = store is None or changes_output(prepared)
    if is_new and prepared.spec.output.models == "joblib":
        say(OF_PICKLES)
    if store is None:
        made = create(prepared)
        made.remove_leftovers()
        remove_other_models(made)
        sign_types(made, prepared.spec.output, say)
        return made
    if share != WHOLE:
        return store
    now = Store.open(store.path)
    if (now.header.id, now.header.revision) != (store.header.id, store.header.revision):
        raise StoreError(f"{store.path} was changed by another driver; run the same command again")
    now.remove_leftovers()
    tidy(now)
    journal = Journal(now.run.events)
    output = prepared.spec.output
    if changes_output(prepared):
        journal.write("output_changed", models=output.models, trust=output.trust)
    now.record_spec(prepared.spec)
    now.record_features(prepared.source.direct.described_features())
    sign_types(now, output, say)
    now = Store.open(now.path)
    remove_other_models(now)
    if change is not None:
        now = change_store(now, change, group_of(prepared.spec))
        journal.write("candidates_changed", revision=now.header.revision, **change.facts())
        say(change.text(now.grid.size))
    if retry:
        remove_answers(now.run)
        counts = set_pending(now, [STATUS_MEANINGS.index(state) for state in retry])
        found = {STATUS_MEANINGS[state]: count for state, count in sorted(counts.items())}
        journal.write("retry", **found)
        texts = [f"{count:,} {state}" for state, count in found.items()]
        say(f"to be done again: {', '.join(texts) or 'nothing'} (partition × candidate)")
    return now


def changes_output(prepared: Prepared) -> bool:
    """Return whether a spec wants models kept in another way than its store has them."""
    output = prepared.spec.output
    if prepared.store is None:
        return False
    known = prepared.store.spec.output
    return (known.models, known.trust) != (output.models, output.trust)


def moves_data(prepared: Prepared) -> bool:
    """Return whether a spec finds the data elsewhere than its store says."""
    store = prepared.store
    return store is not None and store.spec.data.places != prepared.spec.data.places


def rank_anew(ledger: Ledger, check_lease: Callable[[], None]) -> int:
    """Rank candidates where nothing else is left to do, unless it is so much that workers should.

    Returns
    -------
    int
        How many partitions that was.
    """
    store = ledger.store
    chunks = [chunk for chunk in ledger.complete() if chunk not in ledger.parts]
    partitions, ranked = sum(map(store.n_partitions, chunks)), 0
    if partitions * store.strategy.n_rows * len(store.spec.metrics) > RANKED_BY_DRIVER:
        return 0
    for chunk in chunks:
        check_lease()
        folded = fold(store, chunk, [])
        if not folded.unscored:  # else workers score another best on the samples held out
            ledger.fold(chunk, folded)
            ranked += store.n_partitions(chunk)
    return ranked


def with_memory(spec: SweepSpec, memory: str, origin: str = "the spec") -> SweepSpec:
    """Return a spec whose workers have other memory: ``8GB``, or ``2x`` as much as they had.

    Raises
    ------
    SpecError
        When it is neither.
    """
    cluster, times = spec.cluster, re.fullmatch(r"(\d+(?:\.\d+)?)x", memory)
    try:
        if times is None:
            wanted = int(TypeAdapter(ByteSize).validate_python(memory))
        else:
            made = make_cluster(cluster, run_folder(spec.output.store).path, lambda *_, **__: None)
            wanted = int(float(times[1]) * (made.worker_memory_bytes() or 0))
    except ValidationError:
        wanted = 0
    if wanted <= 0:
        message = f"'{memory}' is no memory of a worker, such as 8GB, or 2x where cluster.memory is"
        raise SpecError([Fault("--memory", message)], origin)
    changed = cluster.model_copy(update={"memory": ByteSize(wanted), "node_memory": None})
    return spec.model_copy(update={"cluster": changed})


def group_of(spec: SweepSpec) -> int | None:
    """Return the number of the group that shares the sweep, or None."""
    return group_id(spec.output.group) if spec.output.group else None
