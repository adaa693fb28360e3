"""Hooks of MkDocs: pages that are kept elsewhere in the repository, or made from the code.

The pages of examples, benchmarks, contributing and the changelog stay where they belong; links
between pages are those of the repository, so that they lead somewhere there too. The tables of the
spec's keys are made from its JSON Schema.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from hpc_sweep.cli import main
from hpc_sweep.spec import SweepSpec

REPOSITORY = Path(__file__).resolve().parent.parent
KEYS = "<!-- the spec's keys -->"
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=(#[^)]*)?\))")
EXAMPLES = re.compile(r"\x08\nExamples:((?:\n  .*)+)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def kept_elsewhere() -> dict[str, str]:
    """Return pages by their path in the repository, outside of docs."""
    pages = {
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "benchmarks/README.md": "benchmarks.md",
        "examples/README.md": "examples/index.md",
        "README.md": "index.md",
    }
    for page in sorted(REPOSITORY.glob("examples/*/README.md")):
        pages[str(page.relative_to(REPOSITORY))] = f"examples/{page.parent.name}.md"
    return pages


def on_config(config: MkDocsConfig) -> None:
    """Make blocks of code of the examples in the help of commands."""
    for command in main.commands.values():
        text = inspect.cleandoc(command.help or "")
        text += "\n\n" + inspect.cleandoc(command.epilog or "")
        command.help, command.epilog = EXAMPLES.sub(_code, text), None


def _code(examples: re.Match[str]) -> str:
    lines = examples[1].replace("\n  ", "\n    $ ").rstrip()
    return f"Examples:\n{lines}\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the notebooks that they lead to."""
    for place, page in kept_elsewhere().items():
        if files.get_file_from_path(page) is None:
            text = (REPOSITORY / place).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    for notebook in REPOSITORY.glob("examples/*/*.ipynb"):
        place = str(notebook.relative_to(REPOSITORY))
        files.append(File.generated(config, place, abs_src_path=str(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of the repository lead to pages, and fill in what is made from the code."""
    pages = kept_elsewhere()
    homes = {made: place for place, made in pages.items() if made != "index.md"}
    here = page.file.src_uri
    home = PurePosixPath(homes.get(here, f"docs/{here}"))

    def led(link: re.Match[str]) -> str:
        place = os.path.normpath(home.parent / link[1])
        target = pages.get(place, place.removeprefix("docs/"))
        return os.path.relpath(target, PurePosixPath(here).parent)

    fences = FENCE.findall(markdown)
    texts = [LINK.sub(led, text) for text in FENCE.split(markdown)]
    whole = texts[0] + "".join(f + text for f, text in zip(fences, texts[1:], strict=True))
    return whole.replace(KEYS, "\n".join(spec_keys()))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out what mkdocs-click shows where an option has no default."""
    return html.replace("<code>Sentinel.UNSET</code>", "")


def spec_keys() -> Iterator[str]:
    """Yield the lines of a page with a table for each section of the spec."""
    schema = SweepSpec.model_json_schema()
    sections = schema["$defs"]
    for name, section in schema["properties"].items():
        if "$ref" not in section and "items" not in section and "oneOf" not in section:
            yield from (f"`{name}`: {_kind(section)}, default {_default(section)}.", "")
    for title, name in (
        ("data", "DataSpec"),
        ("models", "ModelSpec"),
        ("search", "GridSpec"),
        ("cluster", "ClusterSpec"),
        ("cluster.driver", "DriverSpec"),
        ("cluster.mounts", "MountsSpec"),
        ("cluster.scratch", "ScratchSpec"),
        ("cluster.charge", "ChargeSpec"),
        ("cluster.tls", "TlsSpec"),
        ("output", "OutputSpec"),
    ):
        yield from (f"## {title}", "", sections[name].get("description", ""), "")
        yield from _table(sections[name])
        if title == "search":
            yield from _strategies(sections, set(sections[name]["properties"]))


def _strategies(sections: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    for section in sections.values():
        strategy = section.get("properties", {}).get("strategy", {}).get("const")
        if strategy is None or strategy == "grid":
            continue
        yield from (f"### strategy: {strategy}", "", section["description"], "")
        yield from _table(section, known)


def _table(section: Mapping[str, Any], known: Collection[str] = ()) -> Iterator[str]:
    yield from ("| key | meaning | type | default |", "|---|---|---|---|")
    required = section.get("required", ())
    for key, facts in section["properties"].items():
        if key not in known and key != "strategy":
            default = "required" if key in required else _default(facts)
            meaning = facts.get("description", "")
            yield f"| `{key}` | {_cell(meaning)} | {_kind(facts)} | {default} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _default(facts: Mapping[str, Any]) -> str:
    if "default" not in facts:
        return "none" if "$ref" not in facts else ""
    value = facts["default"]
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _kind(facts: Mapping[str, Any]) -> str:
    """Return for people what values a key takes."""
    if "enum" in facts:
        return _cell(" | ".join(f"`{value}`" for value in facts["enum"]))
    if "const" in facts:
        return f"`{facts['const']}`"
    if "$ref" in facts or "allOf" in facts:
        return "section"
    either = facts.get("anyOf") or facts.get("oneOf")
    if either:
        kinds = [_kind(one) for one in either if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if facts.get("type") == "array":
        return f"list of {_kind(facts.get('items', {}))}"
    names = {"string": "text", "object": "mapping", "boolean": "true or false"}
    return names.get(facts.get("type", ""), facts.get("type", "any"))
