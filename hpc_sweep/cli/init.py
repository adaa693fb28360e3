"""``hpc-sweep init``: write a starter spec."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import click

from hpc_sweep.errors import StoreError


@click.command()
@click.argument("path", default="sweep.yaml", type=click.Path(path_type=Path, dir_okay=False))
def init(path: Path) -> None:
    """Write a commented starter spec to PATH (sweep.yaml).

    \b
    Examples:
      hpc-sweep init
      hpc-sweep init t2m.yaml
    """
    template = importlib.resources.files("hpc_sweep") / "templates" / "specs" / "starter.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template.read_text(encoding="utf-8"))
    except FileExistsError:
        raise StoreError(f"{path} exists already; name another file") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {path}; edit it, then: hpc-sweep plan {path}")
