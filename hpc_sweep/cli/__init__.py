"""The command line. Modules here import Click and floor 0 only; the rest inside commands."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

import click

from hpc_sweep import __version__
from hpc_sweep.cli.archive import archive
from hpc_sweep.cli.cancel import cancel
from hpc_sweep.cli.completions import completions, teach
from hpc_sweep.cli.doctor import doctor
from hpc_sweep.cli.init import init
from hpc_sweep.cli.machines import machines
from hpc_sweep.cli.plan import plan
from hpc_sweep.cli.predict import predict
from hpc_sweep.cli.report import report
from hpc_sweep.cli.results import results
from hpc_sweep.cli.run import run
from hpc_sweep.cli.schema import schema
from hpc_sweep.cli.status import status
from hpc_sweep.cli.submit import submit
from hpc_sweep.cli.verify import verify
from hpc_sweep.errors import (
    EXIT_CLUSTER,
    EXIT_INTERRUPTED,
    EXIT_OURS,
    Interrupted,
    SweepError,
    disk_cause,
    disk_error,
    foreign_import,
)
from hpc_sweep.printing import drop_refused, lasting


class Commands(click.Group):
    """The group of commands: prints one message for each error, and its exit code."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        r"""Add a command; ``\b`` of its raw docstring is Click's mark of lines left as they are."""
        if cmd.help is not None:
            cmd.help = cmd.help.replace("\\b\n", "\b\n")
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; our own errors end it with one message, if it can be printed."""
        with lasting("stderr"):
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except Interrupted as stop:
            click.echo(str(stop), err=True)
            sys.exit(stop.exit_code)
        except SweepError as error:
            _report(ctx, str(error))
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except ImportError as error:
            lacking = foreign_import(error)
            if lacking is None:
                _report_ours(ctx, error)
            _report(ctx, str(lacking))
            sys.exit(EXIT_CLUSTER)
        except Exception as error:
            cause = disk_cause(error)
            if cause is not None:
                drop_refused()
                _report(ctx, str(disk_error(cause, cause.filename or "a file", "use")))
                sys.exit(EXIT_CLUSTER)
            _report_ours(ctx, error)


def _report_ours(ctx: click.Context, error: Exception) -> NoReturn:
    kind = type(error).__name__
    _report(ctx, f"{kind}: {error} (a fault of hpc-sweep; --debug shows where)")
    sys.exit(EXIT_OURS)


def _report(ctx: click.Context, message: str) -> None:
    if ctx.params.get("debug"):
        click.echo(traceback.format_exc(), err=True)
    click.echo(f"error: {message}", err=True)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="hpc-sweep")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Find the best model and parameters for each partition of a data set.

    One YAML spec names the data, how it is cut, the models and grids to try, and where
    to compute: a laptop or a queue. Begin with: hpc-sweep init

    Exit codes: 0 good, 1 our fault, 2 spec or store, 3 cluster or disk, 4 some partitions
    failed, 130 interrupted.

    \b
    Examples:
      hpc-sweep init sweep.yaml
      hpc-sweep plan sweep.yaml
      hpc-sweep run sweep.yaml
      hpc-sweep results results.zarr
    """


for command in (
    *(init, schema, plan, run, submit, status, results, report, verify, archive),
    *(cancel, doctor, machines, completions),
):
    main.add_command(command)
main.add_command(predict)
teach(main)
