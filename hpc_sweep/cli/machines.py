"""``hpc-sweep machines``: profiles of clusters, and what one of them makes of scripts."""

from __future__ import annotations

from typing import Any

import click

from hpc_sweep.cli.options import as_json


@click.command()
@click.argument("name", required=False)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def machines(name: str | None, json_: bool) -> None:
    """List machine profiles, or show what NAME resolves to.

    A profile is a part of a spec's cluster section in a file of its own; a spec names it as
    cluster.machine, and what the spec says itself wins.

    \b
    Examples:
      hpc-sweep machines
      hpc-sweep machines generic-slurm --json
    """
    if name is None:
        found = _listed()
        click.echo(as_json(found) if json_ else _table(found))
    else:
        shown = _resolved(name)
        click.echo(as_json(shown) if json_ else _text(shown))


def _listed() -> list[dict[str, str]]:
    from hpc_sweep.errors import SpecError
    from hpc_sweep.machines import profiles
    from hpc_sweep.spec import load_machine

    found = []
    for name, file in profiles().items():
        try:
            description = str(load_machine(name)[0]["description"])
        except SpecError as error:
            first, *more = error.faults
            description = f"malformed: {first}" + (f" (and {len(more)} more)" if more else "")
        found.append({"name": name, "description": description, "file": str(file)})
    return found


def _table(found: list[dict[str, str]]) -> str:
    from hpc_sweep.machines import own_folder

    lines = [f"{one['name']}: {one['description']}\n    {one['file']}" for one in found]
    lines.append(f"yours: {own_folder()}/NAME.yaml; in a spec: cluster: {{machine: NAME}}")
    return "\n".join(lines)


def _resolved(name: str) -> dict[str, Any]:
    from pathlib import Path

    from hpc_sweep.spec import WORD, load_machine
    from hpc_sweep.submission import machine_scripts

    profile, file = load_machine(name)
    here = Path.cwd()  # a path with a space could not go into the scripts
    spec, scripts = machine_scripts(name, here if WORD.fullmatch(str(here)) else Path("/data"))
    return {
        "name": name,
        "description": profile["description"],
        "file": str(file),
        "cluster": spec.cluster.model_dump(mode="json", exclude_unset=True, exclude={"machine"}),
        "driver": _directives(scripts.driver),
        "worker": [] if spec.cluster.place == "one_job" else _directives(scripts.worker),
    }


def _directives(script: str) -> list[str]:
    return [line for line in script.splitlines() if line.startswith(("#SBATCH ", "#PBS "))]


def _text(shown: dict[str, Any]) -> str:
    from hpc_sweep.spec import yaml_text

    cluster = yaml_text({"cluster": shown["cluster"]})
    lines = [f"# {shown['name']}: {shown['description']}", f"# {shown['file']}", cluster]
    for job in ("driver", "worker"):
        if shown[job]:
            lines += [f"# the {job}'s job, with data and store in one folder", *shown[job], ""]
    return "\n".join(lines).rstrip()
