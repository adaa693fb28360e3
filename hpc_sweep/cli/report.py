"""``hpc-sweep report``: one page of a store, or its figures for a paper."""

from __future__ import annotations

import click

from hpc_sweep.choices import FIGURE_FORMATS
from hpc_sweep.cli.options import as_json


@click.command()
@click.argument("store", metavar="STORE")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The page; default: the store's name with .html, in the current folder.",
)
@click.option("--figures", metavar="DIR", help="Write the figures as files there, and no page.")
@click.option(
    "--format",
    "formats",
    metavar="KINDS",
    default="pdf",
    show_default=True,
    help=f"Kinds of files of --figures, with commas between them: {', '.join(FIGURE_FORMATS)}.",
)
@click.option("--json", "json_", is_flag=True, help="Print the paths of what was written as JSON.")
def report(store: str, output: str | None, figures: str | None, formats: str, json_: bool) -> None:
    """Write a report of STORE: one HTML page to look at, print, or mail to a colleague.

    It holds the answer in a sentence, maps of the best models, parameters and scores, how models
    and parameters compare, where they fail, what it took, and how to do it again. It needs no
    other file and asks no other host. A store that is not finished says how far it is.

    \b
    Examples:
      hpc-sweep report results.zarr
      hpc-sweep report results.zarr -o /tmp/ridge-or-forest.html
      hpc-sweep report results.zarr --figures figures --format pdf,png
    """
    kinds = [kind.strip().lower() for kind in formats.split(",")]
    unknown = [kind for kind in kinds if kind not in FIGURE_FORMATS]
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}; there are {', '.join(FIGURE_FORMATS)}", param_hint="--format"
        )
    if figures is not None and output is not None:
        raise click.UsageError("--figures writes no page, so -o names nothing; call it twice")
    from hpc_sweep import reporting
    from hpc_sweep.keeping import explained

    with explained(store):
        if figures is None:
            written = [reporting.report(store, output)]
        else:
            written = reporting.write_figures(store, figures, kinds)
    names = [str(path) for path in written]
    click.echo(as_json({"written": names}) if json_ else "\n".join(names))
