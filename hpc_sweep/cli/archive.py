"""``hpc-sweep archive``: a verified store in one file."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_sweep.cli.options import as_json


@click.command()
@click.argument("store", metavar="STORE")
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Archive a half-finished store, without its parts.")
@click.option("--force", is_flag=True, help="Replace DEST if it is there.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def archive(store: str, dest: Path, partial: bool, force: bool, json_: bool) -> None:
    """Copy STORE, verified first, into one file DEST (.zip or .nc), and read that again.

    A zip holds the store's files as they are, its event log and its models; xarray opens it as
    "zip::DEST". NetCDF has the same arrays; event log and models come into a zip beside it.
    hpc-sweep results reads both; for all else unpack the zip.

    \b
    Examples:
      hpc-sweep archive results.zarr results.zip
      hpc-sweep archive results.zarr results.nc --json
      hpc-sweep archive results.zarr so-far.zip --partial --force
    """
    from dataclasses import asdict

    from hpc_sweep.keeping import archive as archive_store
    from hpc_sweep.plan import format_bytes

    written = archive_store(store, dest, partial=partial, force=force)
    if json_:
        click.echo(as_json(asdict(written)))
        return
    state = "" if written.complete else "; half finished"
    click.echo(f"{written.archive}: {format_bytes(written.bytes)}, verified{state}")
    if written.beside:
        click.echo(f"{written.beside}: event log and models")
    how = f'open_zarr("zip::{written.archive}")'
    if written.kind == "netcdf":
        how = f'open_dataset("{written.archive}")'
    click.echo(f"open: xarray.{how}")
