"""Pages in a real Chromium: all figures there, nothing asked for, nothing injected."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from builders import RIDGE, invent, make_store
from test_reporting import finish, with_data

from hpc_sweep.choices import FAILED
from hpc_sweep.reporting import report

CHROMIUM = Path("/usr/bin/chromium")

SCRIPT = "<script>document.title='hit'</script>"
NASTY = (
    f"</text></svg></style></title>{SCRIPT}",
    '"><img src=x onerror="document.title=\'hit\'">',
    "{{ 7 * 191 }}$\\frac{$",
    "javascript:document.title='hit'",
    "a\x00b\x1b]\u202e<svg onload=alert(1)>",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report in which every text that a user may choose is an attack."""
    folder = tmp_path_factory.mktemp("page")
    labels = np.array([f"{text} {number}" for number, text in enumerate(NASTY)], dtype=object)
    coordinates = xr.Dataset(
        coords={
            "latitude": ("latitude", 50.0 + np.arange(5), {"units": NASTY[0]}),
            "longitude": ("longitude", np.arange(6.0), {"units": "degrees_east"}),
            "season": ("season", np.char.replace(labels.astype(str), "\0", "").astype(object)),
        }
    )
    models = [
        {**RIDGE, "name": NASTY[0]},
        {
            "name": NASTY[1],
            "estimator": "sklearn.svm.SVR",
            "param_grid": {"kernel": list(NASTY), "C": [1, 10, 100]},
        },
    ]
    store = make_store(folder, (5, 6, 5), (5, 6, 5), models=models, coordinates=coordinates)
    store = with_data(store, NASTY[0], {"features": list(NASTY), "target": [NASTY[1]]})
    truth = invent(store)
    truth.status[0, 0], truth.message[0, 0] = FAILED, NASTY[0]
    truth.message[0, 1] = NASTY[1]
    for scores in truth.scores.values():
        scores[0, 0] = np.nan
    finish(store, truth)
    return report(store.path, folder / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


PIXELS = """
() => Promise.all([...document.images].map(async image => {
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < values.length; i += 4)
    seen.add(values[i] << 16 | values[i + 1] << 8 | values[i + 2]);
  return [image.naturalWidth, image.naturalHeight, seen.size];
}))
"""


def test_every_figure_is_drawn_and_nothing_is_injected(page: Path, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri(), wait_until="load")
    assert said == []
    assert [url for url in asked if not url.startswith("data:image/svg+xml")] == [page.as_uri()]
    assert tab.title() != "hit"
    assert tab.locator("script, iframe, object, embed, link, a, form, [style]").count() == 0
    assert tab.locator("img:not([src^='data:image/svg+xml;base64,'])").count() == 0
    attributes = tab.evaluate(
        "[...new Set([...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()))]"
    )
    assert not [name for name in attributes if name.startswith("on")]
    drawn = tab.evaluate(PIXELS)
    assert len(drawn) > 8
    assert all(width > 100 and height > 50 and kinds > 20 for width, height, kinds in drawn), drawn
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert NASTY[2][:13] in tab.content()  # told, not computed: 1337
    context.close()


def test_it_is_narrow_enough_and_prints(page: Path, browser: Any) -> None:
    for width in (320, 768, 1280):
        context = browser.new_context(viewport={"width": width, "height": 800})
        tab = context.new_page()
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        if width == 1280:
            assert len(tab.pdf(format="A4")) > 20_000
        context.close()


class Outline(HTMLParser):
    """Notes headings, texts of images, and cells that name rows or columns."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.alts: list[str] = []
        self.scopes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        elif tag == "img":
            self.alts.append(given.get("alt") or "")
        elif tag == "th":
            self.scopes.append(given.get("scope") or "")


def test_it_can_be_read_without_seeing_it(page: Path) -> None:
    outline = Outline()
    outline.feed(page.read_text())
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    steps = np.diff(outline.levels)
    assert (steps <= 1).all()
    assert all(re.search(r"\d", alt) for alt in outline.alts)
    assert set(outline.scopes) == {"row", "col"}


def test_figures_hold_no_markup_of_labels(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-" in text
    known = {
        "clipPath",
        "defs",
        "g",
        "image",
        "metadata",
        "path",
        "rect",
        "style",
        "svg",
        "text",
        "use",
    }
    figures = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", text)
    assert figures
    for content in figures:
        root = ElementTree.fromstring(base64.b64decode(content))
        for element in root.iter():
            space, _, tag = element.tag.rpartition("}")
            assert tag in known or "svg" not in space, element.tag
            for name, value in element.attrib.items():
                assert not name.startswith("on")
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/png;base64,"))
