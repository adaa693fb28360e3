"""The page: sections of texts, figures and tables, written by a template that escapes all of it."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_sweep.reporting.drawing import Picture, as_address
from hpc_sweep.reporting.sentences import Answer

TEMPLATES = importlib.resources.files("hpc_sweep") / "templates" / "report"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    caption : str
        What it shows.
    columns : sequence of str
        Their titles; the first column names the row.
    rows : sequence of sequence of str
        The cells.
    numbers : frozenset of int
        Which columns hold numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Block:
    """A text to copy, which is shown when it is asked for."""

    title: str
    text: str
    is_open: bool = False


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    key: str
    title: str
    texts: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    blocks: Sequence[Block] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        shown = (self.texts, self.pictures, self.blocks, [t for t in self.tables if t.rows])
        return not any(map(bool, shown))


@dataclass(frozen=True)
class Page:
    """All that a page says.

    Attributes
    ----------
    name : str
        Of the sweep.
    answer : Answer
        Its answer.
    question, unfinished, footer, version : str
        What was asked; how far it is; where it is from; the version of hpc-sweep.
    facts : sequence of tuple of str
        Names and short texts.
    sections : sequence of Section
        In order.
    """

    name: str
    answer: Answer
    question: str
    unfinished: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footer: str
    version: str


def html(page: Page) -> str:
    """Return a page as one file of HTML that asks no other host for anything.

    No script runs in it: its policy forbids all but its own style and the images inside it.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    template = (TEMPLATES / "page.html.j2").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text: str = environment.from_string(template).render(
        page=page,
        policy=policy,
        css=Markup(css),  # noqa: S704, our own file
        address=as_address,
    )
    return text.strip() + "\n"
