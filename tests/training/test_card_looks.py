"""The card's page in a real browser: on a desktop and on a phone, in the dark, and on paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from example_cards import Example, example, with_everything
from test_card_page import hostile

import browser
from defects.training.card_page.page import page

LOOK = """
  const boxes = (selector) => [...page.querySelectorAll(selector)].map((element) => {
    const box = element.getBoundingClientRect();
    return [element.textContent, box.left, box.top, box.right, box.bottom];
  }).filter((box) => box[3] > box[1]);
  return {
    wide: page.documentElement.scrollWidth, screen: window.innerWidth,
    beyond: [...page.body.querySelectorAll(":not(.scroll *):not(svg *)")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width && (box.left < -0.5 || box.right > window.innerWidth + 0.5);
    }).map((element) => element.outerHTML.slice(0, 100)),
    charts: [...page.querySelectorAll(".chart")].map((chart) => {
      const box = chart.getBoundingClientRect();
      return {
        box: [box.left, box.top, box.right, box.bottom],
        texts: [...chart.querySelectorAll("text")].map((element) => {
          const box = element.getBoundingClientRect();
          return [element.textContent, box.left, box.top, box.right, box.bottom];
        }),
      };
    }).filter((chart) => chart.box[2] > chart.box[0]),
    headings: boxes("h1, h2, caption, summary").length,
    scripts: page.scripts.length, images: page.images.length, title: page.title,
    ground: window.getComputedStyle(page.body).backgroundColor,
  };
"""
EXAMPLES: dict[str, Callable[[], Example]] = {
    "ten": lambda: with_everything(example(10, 30)),
    "sixty": lambda: example(60, 50, 3000),
    "hostile": lambda: with_everything(hostile()),
}


def outside(chart: dict[str, Any]) -> list[str]:
    """Texts that are not wholly in their chart."""
    left, top, right, bottom = chart["box"]
    return [
        text for text, x, y, end, under in chart["texts"]
        if x < left - 1 or y < top - 1 or end > right + 1 or under > bottom + 1
    ]  # fmt: skip


def overlapping(chart: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of texts on top of each other, by more than the air around letters."""
    return [
        (one[0], other[0])
        for one, other in combinations(chart["texts"], 2)
        if min(one[3], other[3]) - max(one[1], other[1]) > 1 and min(one[4], other[4]) - max(one[2], other[2]) > 4
    ]


@pytest.mark.parametrize(
    ("name", "width"),
    [("ten", 1280), ("sixty", 390), ("hostile", 390)],
)
def test_it_fits_every_screen(name: str, width: int, tmp_path: Path) -> None:
    seen = browser.ask(tmp_path, page(*EXAMPLES[name]()), width, LOOK)
    assert seen["wide"] == seen["screen"] == width
    assert seen["beyond"] == []
    assert len(seen["charts"]) >= 4
    assert [outside(chart) for chart in seen["charts"]] == [[]] * len(seen["charts"])
    assert [overlapping(chart) for chart in seen["charts"]] == [[]] * len(seen["charts"])
    assert (seen["scripts"], seen["images"]) == (0, 0)
    assert seen["headings"] >= 10


def test_it_prints_on_a_few_pages(tmp_path: Path) -> None:
    file, printed = tmp_path / "card.html", tmp_path / "card.pdf"
    file.write_text(page(*EXAMPLES["ten"]()), "utf-8")
    browser.run(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", file.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 9
