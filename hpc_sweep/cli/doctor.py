"""``hpc-sweep doctor``: what would stop a run on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_sweep.cli.options import as_json, loaded_spec, override_options
from hpc_sweep.errors import EXIT_CLUSTER, EXIT_OK

if TYPE_CHECKING:
    from hpc_sweep.doctor.checks import Check
    from hpc_sweep.spec import SweepSpec

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False)
@override_options
@click.option("--no-job", is_flag=True, help="Look from here only; submit nothing.")
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the small job to start.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Instead: pack what a bug report needs of the store in SPEC's place into FILE (zip).",
)
@click.pass_context
def doctor(
    ctx: click.Context,
    spec: str | None,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    no_job: bool,
    wait: float,
    json_: bool,
    bundle: Path | None,
) -> None:
    """Look for what would stop a run of SPEC, from here and from inside a small job.

    The job goes where worker jobs go. Nothing is left behind, and no store is touched.
    Without SPEC the working directory stands for the store's folder, and --cluster or --set
    say the rest. Exit code 3 when something would stop a run.

    hpc-sweep doctor --bundle FILE STORE packs spec, scripts, versions, events and the ends of
    logs of STORE's runs for a bug report; never keys.

    \b
    Examples:
      hpc-sweep doctor sweep.yaml
      hpc-sweep doctor --cluster slurm --set cluster.queue=compute --json
      hpc-sweep doctor results.zarr --bundle report.zip
    """
    if bundle is not None:
        if spec is None:
            raise click.UsageError("--bundle FILE needs a STORE")
        from hpc_sweep.doctor.bundle import pack

        names = pack(Path(spec), bundle)
        click.echo(f"packed {len(names)} files into {bundle}; look at it before you send it")
        return
    from hpc_sweep.doctor.checks import worst
    from hpc_sweep.doctor.examine import examine

    if spec is None:
        loaded = _without_spec(settings, cluster, workers, store)
    else:
        loaded = loaded_spec(spec, settings, cluster, workers, store)
    checks = examine(
        loaded,
        with_data=spec is not None,
        with_job=not no_job,
        wait_s=wait,
        say=lambda text: click.echo(text, err=True),
    )
    verdict = worst(checks)
    if json_:
        click.echo(as_json({"verdict": verdict, "checks": [asdict(check) for check in checks]}))
    else:
        _print_table(checks)
    ctx.exit(EXIT_CLUSTER if verdict == "fail" else EXIT_OK)


def _without_spec(
    settings: tuple[str, ...], cluster: str | None, workers: int | None, store: str | None
) -> SweepSpec:
    """Return a spec whose cluster and store's folder alone mean something."""
    from hpc_sweep.spec import load_spec

    profile = any(setting.startswith("cluster.machine=") for setting in settings)
    kind = cluster or (None if profile else _kind_here())
    wanted = {"kind": kind, "workers": workers}
    raw = {
        "data": {"store": ".", "features": ["none"], "partition_by": ["none"]},
        "models": [{"estimator": "none"}],
        "cluster": {key: value for key, value in wanted.items() if value is not None},
        "output": {"store": store or "results.zarr"},
    }
    return load_spec(raw, settings)


def _kind_here() -> str:
    """Return the kind of queue whose commands are here, else ``local``."""
    kinds = {"slurm": "sbatch", "pbs": "qsub"}
    return next((kind for kind, command in kinds.items() if shutil.which(command)), "local")


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for name in ("check", "where", "verdict", "what was seen"):
        table.add_column(name, overflow="fold")
    for check in checks:
        seen = Text(check.seen)
        if check.remedy:
            seen.append(f"\n→ {check.remedy}", style="italic")
        verdict = Text(check.verdict, style=COLOURS[check.verdict])
        table.add_row(Text(check.name), Text(check.where), verdict, seen)
    console = Console()
    console.print(table)
    counts = {name: sum(check.verdict == name for check in checks) for name in COLOURS}
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.print(text, highlight=False, markup=False)
