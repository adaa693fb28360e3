"""``hpc-sweep completions``: what a shell offers on Tab, and the script that makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

from hpc_sweep.choices import CLUSTER_KINDS

SHELLS = ("bash", "zsh", "fish")
SPEC_ENDINGS = (".yaml", ".yml", ".json")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completions(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, stores, specs and keys.

    \b
    Examples:
      hpc-sweep completions bash > ~/.local/share/bash-completion/completions/hpc-sweep
      hpc-sweep completions zsh > ~/.zfunc/_hpc-sweep
      hpc-sweep completions fish > ~/.config/fish/completions/hpc-sweep.fish
    """
    shells = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    made = shells[shell](ctx.find_root().command, {}, "hpc-sweep", "_HPC_SWEEP_COMPLETE")
    click.echo(made.source())


class Completed(click.types.StringParamType):
    """Text that a shell completes.

    Parameters
    ----------
    offers : callable
        Gives what begins with what was typed.
    """

    def __init__(self, offers: Any) -> None:
        self._offers = offers

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what begins with what was typed; nothing where that cannot be found out."""
        try:
            return list(self._offers(incomplete))
        except Exception:  # a message amid a line that is typed would help nobody
            return []


def _stores(incomplete: str) -> Iterator[CompletionItem]:
    """Yield stores; where there are none, let the shell complete folders."""
    found = [path for path in _beginning(incomplete) if _is_store(path / "zarr.json")]
    yield from _paths(incomplete, found) if found else [CompletionItem(incomplete, type="dir")]


def _is_store(metadata: Path) -> bool:
    return metadata.is_file() and '"hpc_sweep"' in metadata.read_text(encoding="utf-8")


def _specs(incomplete: str) -> Iterator[CompletionItem]:
    """Yield specs; where there are none, let the shell complete files."""
    found = [path for path in _beginning(incomplete) if path.suffix in SPEC_ENDINGS]
    yield from _paths(incomplete, found) if found else [CompletionItem(incomplete, type="file")]


def _beginning(incomplete: str) -> list[Path]:
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder + "/" if incomplete.startswith("/") else folder or ".").expanduser()
    return sorted(
        path
        for path in place.iterdir()
        if path.name.startswith(start) and (start or not path.name.startswith("."))
    )


def _paths(incomplete: str, found: list[Path]) -> list[CompletionItem]:
    folder = incomplete[: incomplete.rfind("/") + 1]
    return [CompletionItem(folder + path.name) for path in found]


def _machines(incomplete: str) -> Iterator[CompletionItem]:
    from hpc_sweep.machines import profiles

    return (CompletionItem(name) for name in profiles() if name.startswith(incomplete))


def _clusters(incomplete: str) -> Iterator[CompletionItem]:
    return (CompletionItem(kind) for kind in CLUSTER_KINDS if kind.startswith(incomplete))


def _keys(incomplete: str) -> Iterator[CompletionItem]:
    """Yield dotted keys of a spec."""
    from hpc_sweep.spec import SweepSpec

    schema = SweepSpec.model_json_schema()
    keys = dict.fromkeys(_dotted(schema, schema["$defs"], ""))
    return (CompletionItem(f"{key}=") for key in keys if key.startswith(incomplete))


def _dotted(node: Mapping[str, Any], known: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the keys below a node of a JSON Schema; of a list of models the first."""
    if "$ref" in node:
        yield from _dotted(known[node["$ref"].rpartition("/")[2]], known, path)
        return
    for choice in (*node.get("oneOf", ()), *node.get("anyOf", ())):
        yield from _dotted(choice, known, path)
    if "$ref" in node.get("items", {}):
        yield from _dotted(node["items"], known, f"{path}0.")
    for name, below in node.get("properties", {}).items():
        deeper = list(_dotted(below, known, f"{path}{name}."))
        yield from deeper or [f"{path}{name}"]


OFFERS = {
    "store": _stores,
    "stores": _stores,
    "spec": _specs,
    "name": _machines,
    "cluster": _clusters,
    "settings": _keys,
}
"""What is offered for which parameter of a command, by its name."""


def teach(commands: click.Group) -> None:
    """Let shells complete the arguments of all commands."""
    for command in commands.commands.values():
        for param in command.params:
            if param.name in OFFERS and param.type is click.STRING:
                param.type = Completed(OFFERS[param.name])
