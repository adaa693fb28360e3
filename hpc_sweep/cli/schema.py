"""``hpc-sweep schema``: JSON Schemas of specs and machine profiles."""

from __future__ import annotations

import click

from hpc_sweep.cli.options import as_json


@click.command()
@click.option("--machine", is_flag=True, help="That of a machine profile.")
def schema(machine: bool) -> None:
    """Print the JSON Schema of a spec, for editors that complete and check YAML.

    \b
    Examples:
      hpc-sweep schema > sweep.schema.json
      hpc-sweep schema --machine
    """
    from hpc_sweep.spec import MachineProfile, SweepSpec

    found = (MachineProfile if machine else SweepSpec).model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    click.echo(as_json(found))
