"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpc_sweep.choices import CLUSTER_KINDS, RETRIED

if TYPE_CHECKING:
    from hpc_sweep.spec import SweepSpec

Command = TypeVar("Command", bound=Callable[..., Any])


def spec_options(command: Command) -> Command:
    """Add the spec and its overrides to a command."""
    return override_options(click.argument("spec", metavar="SPEC")(command))


def override_options(command: Command) -> Command:
    """Add the overrides of a spec to a command."""
    for option in (
        click.option("--store", metavar="PATH", help="Output store, in place of output.store."),
        click.option("--workers", type=click.IntRange(min=1), help="Worker processes."),
        click.option(
            "--cluster",
            metavar="KIND",
            help=f"{', '.join(CLUSTER_KINDS)}, or package.module:Class.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the spec, such as search.cv=3. May be repeated.",
        ),
    ):
        command = option(command)
    return command


dashboard_option = click.option(
    "--dashboard",
    is_flag=True,
    help="Serve Dask's dashboard on the loopback of the driver's host, which its users can read.",
)

performance_report_option = click.option(
    "--performance-report/--no-performance-report",
    default=None,
    help="Keep Dask's own report of the run in the run folder. By default where it took five "
    "seconds or more.",
)


def performance_report_settings(wanted: bool | None) -> tuple[str, ...]:
    """Return what `performance_report_option` sets of the spec."""
    return () if wanted is None else (f"cluster.performance_report={json.dumps(wanted)}",)


mixed_versions_option = click.option(
    "--mixed-versions",
    is_flag=True,
    help="Go on under another scikit-learn than the store was begun with; it is recorded.",
)


def retry_options(command: Command) -> Command:
    """Add what is done again, and with which memory."""
    for option in (
        click.option(
            "--memory",
            metavar="MEMORY",
            help="Of each worker in this run: 8GB, or 2x as much as the spec gives it.",
        ),
        click.option(
            "--retry",
            multiple=True,
            type=click.Choice(RETRIED),
            help="Do what failed so again, and nothing that is done. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def loaded_spec(
    spec: str,
    settings: tuple[str, ...],
    cluster: str | None,
    workers: int | None,
    store: str | None,
    memory: str | None = None,
) -> SweepSpec:
    """Load a spec with the overrides of the command line."""
    from hpc_sweep.prepare import load, with_memory

    more = [f"cluster.kind={json.dumps(cluster)}"] if cluster is not None else []
    if workers is not None:
        more += [f"cluster.workers={workers}", "cluster.nodes=null"]
    loaded = load(spec, [*settings, *more], store=store)
    return loaded if memory is None else with_memory(loaded, memory, spec)


def as_json(facts: Any) -> str:
    """Return facts as JSON text."""
    return json.dumps(facts, indent=2, default=str)


def core_hours_text(facts: dict[str, Any]) -> str:
    """Return the core-hours of a sweep in a line: used, predicted, charged."""
    used, left = facts["core_hours"], facts["core_hours_left"]
    charges = ", ".join(f"{amount:,.3g} {unit}" for unit, amount in facts["charges"].items())
    text = f"{used:,.3g} used" + (f" ({charges})" if charges else "")
    return text + (f", about {left:,.3g} left" if left else "")
