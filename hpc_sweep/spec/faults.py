"""What is wrong with a spec, in the words of users: dotted key, value, remedy."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, Tag

from hpc_sweep.choices import CLUSTER_KINDS
from hpc_sweep.errors import Fault, nearest
from hpc_sweep.spec.cluster import ClusterSpec
from hpc_sweep.spec.partitions import wanted_axes
from hpc_sweep.spec.search import OF_SAMPLES, ONE_GROUP_OUT
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.sections import NAME_OF_OURS, OWN_NAMES, DataSpec, ModelSpec, SweepSpec


def cross_faults(spec: SweepSpec) -> Iterable[Fault]:
    """Yield faults that no single key shows."""
    data, cluster, search = spec.data, spec.cluster, spec.search
    yield from _data_faults(data)
    for name in sorted(set(data.features) & set(spec.targets)):
        yield Fault("data.features", f"'{name}' is also the target; take it out of one of them")
    if data.outputs == "separate" and not spec.targets:
        yield Fault("data.outputs", "'separate' needs data.target")
    names = [(wanted.path, wanted.name) for wanted in wanted_axes(data.partition_by)]
    names += [("data.sample_dims", name) for name in data.sample_dims or ()]
    for path, name in names:
        if name in OWN_NAMES:
            yield Fault(path, f"'{name}' {NAME_OF_OURS}")
    yield from _split_faults(search.cv)
    if data.holdout is not None and search.refit is False:
        message = (
            "is false, but data.holdout scores the best model, refitted; leave one of them out"
        )
        yield Fault("search.refit", message)
    if isinstance(search.refit, str) and search.refit not in spec.metrics:
        known = ", ".join(spec.metrics)
        yield Fault("search.refit", f"'{search.refit}' is not among the metrics ({known})")
    if len(spec.metrics) > 1 and not isinstance(search.refit, str):
        known = ", ".join(spec.metrics)
        yield Fault("search.refit", f"name the metric that chooses the best: one of {known}")
    yield from model_faults(spec.models)
    yield from _space_faults(spec)
    yield from _cluster_faults(cluster)


def _data_faults(data: DataSpec) -> Iterable[Fault]:
    """Yield what is said twice of where the data is, or not at all."""
    if data.store is None and data.loader is None:
        yield Fault("data.store", "is missing")
    elif data.store is not None and data.loader is not None:
        yield Fault("data.loader", "stands in place of data.store; take one of them out")
    if data.loader is None and data.loader_args:
        yield Fault("data.loader_args", "are for data.loader, which is not there")
    if data.loader is not None:
        for key in ("group", "open_options"):
            if getattr(data, key):
                yield Fault(f"data.{key}", "is for data.store; a loader opens by itself")


def _split_faults(cv: int | dict[str, Any]) -> Iterable[Fault]:
    if isinstance(cv, int):
        return
    if ONE_GROUP_OUT in cv and len(cv) > 1:
        message = f"{ONE_GROUP_OUT} stands alone; write class and groups in its place for more"
        yield Fault("search.cv", message)
    elif ONE_GROUP_OUT not in cv and not isinstance(cv.get("class"), str):
        yield Fault("search.cv", "a mapping needs class: the splitter's import path")
    for key in (ONE_GROUP_OUT, *sorted(OF_SAMPLES)):
        if key in cv and not (isinstance(cv[key], str) and cv[key]):
            message = "names a coordinate, a variable, or a part of a date such as time.year"
            yield Fault(f"search.cv.{key}", message)


def model_faults(models: Sequence[ModelSpec]) -> Iterable[Fault]:
    """Yield faults of models and their grids."""
    for index, model in enumerate(models):
        if (model.estimator is None) == (model.pipeline is None):
            yield Fault(f"models.{index}", "give either estimator or pipeline")
        for space in ("param_grid", "param_distributions"):
            given = getattr(model, space)
            path = f"models.{index}.{space}"
            if isinstance(given, list) and not given:
                yield Fault(path, "is empty; leave it out for the defaults")
            for grid in given if isinstance(given, list) else [given]:
                for key, values in grid.items():
                    if not values:
                        yield Fault(f"{path}.{key}", "is an empty list; give at least one value")


def _space_faults(spec: SweepSpec) -> Iterable[Fault]:
    """Yield what the strategy does not look at."""
    strategy, wanted = spec.search.strategy, spec.search.space
    (other,) = {"param_grid", "param_distributions"} - {wanted}
    for index, model in enumerate(spec.models):
        if getattr(model, other):
            message = f"search.strategy {strategy} looks at {wanted}; write that in its place"
            yield Fault(f"models.{index}.{other}", message)


def machine_faults(cluster: ClusterSpec, root: str) -> Iterable[Fault]:
    """Yield faults that a cluster section and a machine profile may have alike."""
    if cluster.kind not in CLUSTER_KINDS and ":" not in cluster.kind:
        allowed, hint = ", ".join(CLUSTER_KINDS), nearest(cluster.kind, CLUSTER_KINDS)
        message = f"'{cluster.kind}' is none of {allowed}, or package.module:Class{hint}"
        yield Fault(f"{root}kind", message)
    charge = cluster.charge
    if charge and (charge.per_core_hour is None) == (charge.per_node_hour is None):
        yield Fault(f"{root}charge", "give either per_core_hour or per_node_hour")
    if cluster.workers is not None and cluster.nodes is not None:
        yield Fault(f"{root}nodes", "give workers, or nodes with workers_per_node, not both")
    if cluster.memory is not None and cluster.node_memory is not None:
        yield Fault(f"{root}node_memory", "give memory or node_memory, not both")


def _cluster_faults(cluster: ClusterSpec) -> Iterable[Fault]:
    yield from machine_faults(cluster, "cluster.")
    if cluster.tls is not None and cluster.kind != "external":
        message = f"is for kind external; a {cluster.kind} cluster makes its own certificates"
        yield Fault("cluster.tls", message)
    if cluster.tls is not None and cluster.security == "none":
        yield Fault("cluster.security", "is none, but cluster.tls has certificates; drop one")
    if cluster.kind == "external" and bool(cluster.address) == bool(cluster.scheduler_file):
        yield Fault("cluster.address", "external needs one of address and scheduler_file")


def faults_of(error: pydantic.ValidationError, root: type[Section]) -> list[Fault]:
    """Translate pydantic's errors.

    The members of a union complain each: the deepest complaint is about what was meant,
    and those about one place are put together.
    """
    found: dict[tuple[int | str, ...], list[Any]] = {}
    for item in error.errors():
        keys, _ = _place(item["loc"], root)
        if item["type"] == "union_tag_invalid":
            keys = (*keys, item["ctx"]["discriminator"].removesuffix("()"))
        found.setdefault(keys, []).append(item)
    return [
        Fault(".".join(map(str, keys)), _fault_text(items, root))
        for keys, items in found.items()
        if not any(other[: len(keys)] == keys != other for other in found)
    ]


def _place(
    location: tuple[int | str, ...], root: type[Section]
) -> tuple[tuple[int | str, ...], Any]:
    """Return the keys of a location, and the annotation of what holds the last one.

    What pydantic puts after a union is dropped: the name of the member.
    """
    keys: list[int | str] = []
    holder: Any = None
    annotation: Any = root
    in_member = False
    for key in location:
        if len(_members(annotation)) > 1 and not in_member:
            annotation = _tagged(annotation, key)
            in_member = len(_members(annotation)) > 1
            continue
        in_member = False
        if key != "[key]":
            keys.append(key)
            holder, annotation = annotation, _below(annotation, key)
    return tuple(keys), holder


def _owners(location: tuple[int | str, ...], root: type[Section]) -> list[str]:
    """Return the tags of other members of a union that know the last key of a location."""
    union: Any = root
    for key in location[:-2]:
        union = _below(union, key)
    return [
        meta.tag
        for part in get_args(union)
        if get_origin(part) is Annotated and _below(part, location[-1]) is not None
        for meta in get_args(part)[1:]
        if isinstance(meta, Tag)
    ]


def _tagged(annotation: Any, tag: int | str) -> Any:
    """Return the member of a union that has a tag, or the union where none has."""
    for part in get_args(annotation):
        if get_origin(part) is Annotated and Tag(str(tag)) in get_args(part)[1:]:
            return part
    return annotation


def _members(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation but None, unwrapped from Annotated and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        return [member for part in parts for member in _members(part)]
    return [annotation]


def _below(annotation: Any, key: int | str) -> Any:
    """Return the annotation at `key` of `annotation`, or None."""
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if key in member.model_fields:
                return member.model_fields[str(key)].annotation
        elif get_origin(member) is list and isinstance(key, int):
            return get_args(member)[0]
        elif get_origin(member) is dict and isinstance(key, str):
            return get_args(member)[1]
    return None


def _fault_text(items: Sequence[Any], root: type[Section]) -> str:
    fitting = [item for item in items if not item["type"].endswith(("_type", "_parsing"))]
    item = (fitting or items)[0]
    value, kind = item["input"], item["type"]
    if kind == "missing" or _message(item) == "is missing":
        return "is missing"
    if kind == "extra_forbidden":
        keys, holder = _place(item["loc"], root)
        fields = [f for member in _members(holder) for f in getattr(member, "model_fields", ())]
        tags = _owners(item["loc"], root)
        owner = f" here (it is for {' and '.join(tags)})" if tags else ""
        return (
            f"unknown key{owner}; known here: {', '.join(fields)}{nearest(str(keys[-1]), fields)}"
        )
    if kind == "union_tag_invalid":
        tags = item["ctx"]["expected_tags"].replace("'", "")
        hint = nearest(item["ctx"]["tag"], tags.split(", "))
        return f"'{item['ctx']['tag']}': input should be one of {tags}{hint}"
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        allowed = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        hint = nearest(value, allowed.split(", "))
    message = ", or ".join(_message(item) for item in fitting or items)
    shown = repr(value)
    return f"{shown if len(shown) < 60 else shown[:57] + '...'}: {message}{hint}"


def _message(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
