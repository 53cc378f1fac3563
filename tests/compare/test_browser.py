"""Drives a report in Chromium: its controls redraw the figures, nothing fails, and no request leaves the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmzoo.compare.report import html
from lmzoo.compare.report_charts import ACTIVATIONS
from tests import browser
from tests.compare.example import HOSTILE, LOGGED, probed_example

pytestmark = pytest.mark.browser
# All text of a figure, and the colors of its lines.
TEXTS = (
    "return [...document.querySelectorAll(`[data-figure=${arguments[0]}] svg text`)].map((text) => text.textContent)"
)
FIGURES = (
    "ranking",
    "loss",
    "sensitivity",
    "positions",
    "classes",
    "cost",
    "probes",
    *ACTIVATIONS,
    "activations-1",
    "gradients-1",
)
LINES = "[data-figure=loss] .mark-line path"
COLORS = f"return [...document.querySelectorAll('{LINES}')].map((line) => line.getAttribute('stroke'))"


class Page:
    """An open report."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def texts(self, figure: str) -> list[str]:
        return self.driver.execute_script(TEXTS, figure)

    def click(self, figure: str, control: str) -> None:
        """Press the space key on a control, as one does without a mouse; radio buttons and boxes obey it."""
        self.driver.find_element("css selector", f"[data-figure={figure}] input{control}").send_keys(" ")

    def wait(self, holds: Callable[[], bool]) -> None:
        browser.wait(self.driver, holds)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(html(probed_example(), LOGGED), encoding="utf-8")
    with browser.opened(folder / "report.html") as driver:
        opened = Page(driver)
        opened.wait(lambda: all(opened.texts(name) for name in FIGURES))
        yield opened


def test_browser_draws_the_names_of_models_as_text(page: Page) -> None:
    assert any("</script>" in text for text in page.texts("ranking"))
    assert any(text.startswith(HOSTILE[:20]) for text in page.texts("cost"))
    assert page.driver.execute_script("return document.images.length") == 0


def test_browser_hides_a_model(page: Page) -> None:
    assert page.driver.execute_script(COLORS) == ["var(--s0)", "var(--s1)", "var(--s2)", "var(--s3)"]
    page.click("loss", "[value='mamba.tiny']")
    page.wait(lambda: page.driver.execute_script(COLORS) == ["var(--s0)", "var(--s2)", "var(--s3)"])
    page.click("loss", "[value='mamba.tiny']")
    page.wait(lambda: len(page.driver.execute_script(COLORS)) == 4)


def test_browser_draws_where_losses_come_from(page: Page) -> None:
    assert {"training length 5", "tokens before the target", "16"} <= set(page.texts("positions"))
    assert {"all tokens", "repeated bigram (20.0 %)", "whitespace (20.0 %)"} <= set(page.texts("classes"))
    assert "residual RMS" in page.texts("activations-1")
    lines = "return document.querySelectorAll('[data-figure=activations-1] .mark-line path').length"
    assert page.driver.execute_script(lines) == 3
    assert {"gradient norm", "matrix", "embedding", "vector"} <= set(page.texts("gradients-1"))
    empty = "return getComputedStyle(document.querySelector('[data-figure=activations-1] form')).display"
    assert page.driver.execute_script(empty) == "none", "no gap where there is no control"


def test_browser_draws_the_heat_map_of_probes(page: Page) -> None:
    fields = "return document.querySelectorAll('[data-figure=probes] .mark-rect path').length"
    assert {"gpt2.tiny", "mqar easy, 64", "1.00", "0.60", "✕"} <= set(page.texts("probes"))
    assert page.driver.execute_script(fields) == 6, "a run that diverged has no color"
    page.click("probes", "[value='gpt2.tiny']")
    page.wait(lambda: page.driver.execute_script(fields) == 2)
    page.click("probes", "[value='gpt2.tiny']")
    page.wait(lambda: page.driver.execute_script(fields) == 6)


def test_browser_hides_a_model_in_all_figures_of_activations(page: Page) -> None:
    def lines() -> list[int]:
        count = "return document.querySelectorAll(`[data-figure=${arguments[0]}] .mark-line path`).length"
        return [page.driver.execute_script(count, name) for name in ACTIVATIONS]

    assert "load of an expert, even share = 1" in page.texts("router-load")
    assert {"tokens read", "8"} <= set(page.texts("state-norm"))
    assert lines() == [2, 1, 2]
    box = page.driver.find_element("css selector", "[data-shared] input[value='mamba.tiny']")
    box.send_keys(" ")
    page.wait(lambda: lines() == [1, 0, 0])
    box.send_keys(" ")
    page.wait(lambda: lines() == [2, 1, 2])


def test_browser_switches_the_axis_and_its_scale(page: Page) -> None:
    def log_x() -> bool:
        return page.driver.find_element("css selector", "[data-figure=loss] [name=log-x]").is_selected()

    assert "tokens seen in training" in page.texts("loss")
    assert not log_x()
    page.click("loss", "[name=axis][value='1']")
    page.wait(lambda: "FLOPs of training" in page.texts("loss"))
    assert log_x(), "FLOPs are shown on a logarithmic axis at first"
    before = page.texts("loss")
    page.click("loss", "[name=log-x]")
    page.wait(lambda: page.texts("loss") not in ([], before))
    assert "FLOPs of training" in page.texts("loss")


def test_browser_shows_no_horizontal_scroll_bar_on_a_phone(page: Page) -> None:
    browser.set_width(page.driver, 390)
    page.wait(lambda: page.driver.execute_script("return document.querySelector('.plot svg').clientWidth") < 390)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == 390
    ends = "return [...arguments[0].querySelectorAll('text')].map((text) => text.getBoundingClientRect().right)"
    drawn = page.driver.find_element("css selector", "[data-figure=gradients-1] svg")
    assert max(page.driver.execute_script(ends, drawn)) < drawn.rect["x"] + drawn.rect["width"], "the legend is whole"
    drawn = page.driver.find_element("css selector", "[data-figure=probes] svg")
    assert max(page.driver.execute_script(ends, drawn)) <= drawn.rect["x"] + drawn.rect["width"], "no name is cut"


# Gives each text of the page that names a model a very long name.
LENGTHEN = """
const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode;
  if (!node.parentElement.closest('svg')) node.data = node.data.replaceAll('gpt2.tiny', arguments[0]);
}
"""

# How far below its color a name begins, in pixels.
DROPS = """
const marks = [...document.querySelectorAll('tbody th > .swatch, figcaption > .swatch')];
return marks.filter((mark) => mark.nextSibling && mark.getClientRects().length).map((mark) => {
  const name = document.createRange();
  name.setStart(mark.nextSibling, 0);
  name.setEnd(mark.nextSibling, 1);
  return name.getBoundingClientRect().top - mark.getBoundingClientRect().top;
});
"""
# The headings of figures on a phone that may be broken within a word.
BROKEN_HEADINGS = """
const figures = [...document.querySelectorAll('td[data-label]')];
return figures.filter((td) => getComputedStyle(td, '::before').overflowWrap !== 'normal').map((td) => td.dataset.label);
"""


def test_browser_breaks_names_that_are_longer_than_a_line(page: Page) -> None:
    def too_wide(width: int) -> list[str]:
        browser.set_width(page.driver, width)
        page.wait(lambda: page.driver.execute_script("return document.querySelector('.plot svg').clientWidth") < width)
        wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > arguments[0])"
        return page.driver.execute_script(f"return {wide}.map((e) => e.outerHTML.slice(0, 200))", width)

    page.driver.execute_script(LENGTHEN, "family.preset_with_a_name_of_many_letters" * 3)
    assert too_wide(390) == []
    assert page.driver.execute_script(BROKEN_HEADINGS) == []
    assert too_wide(1200) == []
    assert max(page.driver.execute_script(DROPS)) < 8, "a name begins beside its color"
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert too_wide(690) == [], "nothing is cut on paper"
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_browser_reports_no_error_and_sends_no_request(page: Page) -> None:
    """Runs last: it reads what the other tests have caused."""
    browser.require_no_error_and_no_request(page.driver)
