"""From a file or a mapping to a validated spec; a machine's profile lies under it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pydantic

from hpc_sweep import machines, placeholders
from hpc_sweep.errors import Fault, SpecError, listed, nearest
from hpc_sweep.spec.cluster import ClusterSpec, MachineProfile, TlsSpec
from hpc_sweep.spec.faults import cross_faults, faults_of, machine_faults, model_faults
from hpc_sweep.spec.search import Search
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.sections import DataSpec, ModelSpec, SweepSpec
from hpc_sweep.spec.words import WORD
from hpc_sweep.spec.yaml import expanded, override, plain, read_yaml


def load_spec(
    spec: str | Path | Mapping[str, Any] | SweepSpec,
    settings: Iterable[str] = (),
    *,
    store: str | Path | None = None,
) -> SweepSpec:
    """Read and validate a spec.

    Parameters
    ----------
    spec : path, mapping or SweepSpec
        A YAML file, or what it would hold. Paths in a file are relative to it, paths in a
        mapping to the working directory; all are made absolute.
    settings : iterable of str
        Overrides such as ``search.cv=3``; the value is YAML.
    store : path, optional
        Override of ``output.store``, relative to the working directory.

    Raises
    ------
    SpecError
        With every structural fault at once.
    """
    if isinstance(spec, SweepSpec):
        # what it leaves open, a machine named in the settings may still say
        raw, folder = spec.model_dump(mode="json", exclude_unset=True), Path.cwd()
        origin = "the spec"
    elif isinstance(spec, Mapping):
        raw, folder, origin = plain(dict(spec), "the spec"), Path.cwd(), "the spec"
    else:
        path = expanded(spec, "", str(spec)).absolute()
        wanted = "a mapping with data, models and output"
        raw, folder, origin = read_yaml(path, str(path), wanted), path.parent, str(spec)
        raw.setdefault("name", path.stem)
    faults: list[Fault] = []
    settings = tuple(settings)
    for setting in settings:
        try:
            override(raw, setting)
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults, "--set")
    if store is not None and isinstance(raw.get("output") or {}, dict):
        raw["output"] = raw.get("output") or {}
        raw["output"]["store"] = str(expanded(store, "output.store", origin).absolute())
    _let_local_give_way(raw, settings)
    unknown_machine = _lay_machine(raw)
    return _validated(raw, folder, origin, unknown_machine)


def load_machine(name: str) -> tuple[dict[str, Any], Traversable]:
    """Read and validate a machine profile.

    Parameters
    ----------
    name : str
        As in ``cluster.machine``.

    Returns
    -------
    tuple of dict and Traversable
        What the file holds, and the file.

    Raises
    ------
    SpecError
        When there is none of that name, or with everything that is wrong with it.
    """
    file = machines.find(name)
    if file is None:
        raise SpecError([_unknown_machine(name)], "the command line")
    return _read_machine(file), file


def _unknown_machine(name: str) -> Fault:
    known, own = machines.profiles(), machines.own_folder()
    hint = nearest(name, known).removesuffix("?")
    message = f"{name!r} is no machine{hint}; looked in {own} and among those shipped"
    return Fault("cluster.machine", f"{message}: {listed(known)}")


def _read_machine(file: Traversable) -> dict[str, Any]:
    origin = f"machine profile {file}"
    raw = read_yaml(file, origin, "a mapping with description and keys of a cluster section")
    faults = [Fault("machine", "a profile cannot name another one")] if "machine" in raw else []
    try:
        profile = MachineProfile.model_validate(raw)
    except pydantic.ValidationError as error:
        faults += faults_of(error, MachineProfile)
    else:
        faults += machine_faults(profile, "")
    if faults:
        raise SpecError(faults, origin)
    return raw


def _let_local_give_way(raw: dict[str, Any], settings: Iterable[str]) -> None:
    """Leave the kind to a machine that a setting names, where the spec itself is for a laptop."""
    keys = {setting.partition("=")[0].strip() for setting in settings}
    section = raw.get("cluster")
    if "cluster.machine" not in keys or "cluster.kind" in keys or not isinstance(section, dict):
        return
    if section["machine"] is not None and section.get("kind") == "local":
        del section["kind"]


def _lay_machine(raw: dict[str, Any]) -> list[Fault]:
    """Lay the machine's profile under the spec's cluster section; return what is wrong.

    A spec that says ``kind: local`` runs anywhere, so its machine is not looked at.
    """
    section = raw.get("cluster")
    if not isinstance(section, dict) or not isinstance(section.get("machine"), str):
        return []
    name, kind = section["machine"], section.get("kind")
    if kind == "local":
        return []
    file = machines.find(name)
    if file is None:
        return [_unknown_machine(name)]
    profile = _read_machine(file)
    theirs = profile.get("kind", "local")
    if kind not in (None, theirs):
        message = f"{kind!r} is not what machine {name!r} has, {theirs!r}; leave one of them out"
        return [Fault("cluster.kind", message)]
    del profile["description"]
    raw["cluster"] = machines.laid_under(profile, section)
    return []


def _validated(
    raw: dict[str, Any], folder: Path, origin: str, known: Sequence[Fault] = ()
) -> SweepSpec:
    try:
        spec = SweepSpec.model_validate(raw)
    except pydantic.ValidationError as error:
        faults = [*known, *faults_of(error, SweepSpec)]
        raise SpecError(faults, origin, _valid_sections(raw, folder)) from None
    faults = [*known, *cross_faults(spec)]
    if faults:
        raise SpecError(faults, origin, _valid_sections(raw, folder))
    data = _placed(spec.data, folder)
    output = spec.output.model_copy(update={"store": absolute(spec.output.store, folder)})
    cluster = spec.cluster
    if cluster.scheduler_file:
        file = absolute(cluster.scheduler_file, folder)
        cluster = cluster.model_copy(update={"scheduler_file": file})
    if cluster.tls:
        files = {name: absolute(file, folder) for name, file in cluster.tls.model_dump().items()}
        cluster = cluster.model_copy(update={"tls": TlsSpec(**files)})
    cluster = _with_mounts(cluster, data.places, output.store, origin)
    return spec.model_copy(update={"data": data, "output": output, "cluster": cluster})


def _with_mounts(
    cluster: ClusterSpec, data: Sequence[str], output: str, origin: str
) -> ClusterSpec:
    """Return a cluster section in which ``{mounts}`` is what the paths of a sweep make of it.

    Where they make nothing of it, the lines and words that have it are left out.

    Parameters
    ----------
    cluster : ClusterSpec
        The section.
    data : sequence of str
        Absolute paths of the data, or URLs.
    output : str
        Absolute path of the store.
    origin : str
        What messages call the spec.

    Raises
    ------
    SpecError
        When a path cannot be named.
    """
    driver, fields = cluster.driver, ("resources", "directives", "launcher")
    directives = [*cluster.directives, *(cluster.resources or ())]
    directives += [*driver.directives, *(driver.resources or ())]
    named = placeholders.uses(directives, placeholders.MOUNTS)
    if not named and not placeholders.uses(cluster.launcher, placeholders.MOUNTS):
        return cluster
    rules, join = cluster.mounts.rules, cluster.mounts.join
    names = machines.mount_names(machines.sweep_folders(data, output), rules)
    # words of the launcher are quoted, directives are not
    odd = [name for name in names if join in name or (named and not WORD.fullmatch(name))]
    if odd:
        message = f"{odd[0]!r} cannot be named in {{mounts}}: letters, digits and ._/@=- can"
        raise SpecError([Fault("cluster.mounts", message)], origin)
    mounts = join.join(names)

    def put(section: Any, fields: Iterable[str]) -> dict[str, Any]:
        lists = {name: getattr(section, name) or [] for name in fields}
        return {
            name: [
                placeholders.with_mounts(text, mounts)
                for text in lines
                if mounts or not placeholders.uses([text], placeholders.MOUNTS)
            ]
            for name, lines in lists.items()
            if placeholders.uses(lines, placeholders.MOUNTS)
        }

    driver = driver.model_copy(update=put(driver, ("resources", "directives")))
    return cluster.model_copy(update={**put(cluster, fields), "driver": driver})


def _valid_sections(raw: dict[str, Any], folder: Path) -> dict[str, Section]:
    """Return the sections of a faulty spec that are valid in themselves, by dotted path."""
    models = raw.get("models")
    kinds: list[tuple[str, Any, Any]] = [
        ("data", DataSpec, raw.get("data")),
        ("search", Search, raw.get("search", {})),
        *(
            (f"models.{index}", ModelSpec, model)
            for index, model in enumerate(models if isinstance(models, list) else [])
        ),
    ]
    sections: dict[str, Section] = {}
    for path, kind, value in kinds:
        with contextlib.suppress(pydantic.ValidationError):
            sections[path] = pydantic.TypeAdapter(kind).validate_python(value)
    data = sections.get("data")
    if isinstance(data, DataSpec):
        sections["data"] = _placed(data, folder)
    return {
        path: section
        for path, section in sections.items()
        if not isinstance(section, ModelSpec) or not list(model_faults([section]))
    }


def _placed(data: DataSpec, folder: Path) -> DataSpec:
    """Return a data section whose paths are seen from `folder`, the loader's module too."""
    loader = data.loader
    if loader is not None:
        module, _, function = loader.rpartition(":")
        file = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
        beside = absolute(file, folder)
        if module.endswith(".py") or Path(beside).is_file():
            loader = f"{beside}:{function}"
    seen = [absolute(place, folder) for place in data.stores]
    store = seen[0] if isinstance(data.store, str) else seen or None
    return data.model_copy(update={"store": store, "loader": loader})


def absolute(path: str, folder: Path) -> str:
    """Return `path` seen from `folder`; URLs stay as they are."""
    if "://" in path or "::" in path:
        return path
    return str(Path(folder, Path(path).expanduser()).absolute())
