"""``hpc-sweep schema``: the spec's JSON Schema."""

from __future__ import annotations

import click

from hpc_sweep.cli.options import as_json


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors that complete and check YAML."""
    from hpc_sweep.spec import SweepSpec

    found = SweepSpec.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    click.echo(as_json(found))
