"""Drives the page of `lmzoo inspect` in Chromium: with a mouse, with the keyboard, by taps, wide and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lmzoo.inspect.inspection import Inspection
from lmzoo.inspect.page import html
from tests import browser
from tests.inspect.texts import HOSTILE, inspected

pytestmark = pytest.mark.browser
TEXT = f"abc abc {HOSTILE}"


class Keys:
    """The codes of keys in WebDriver."""

    ESCAPE, END, HOME, ARROW_RIGHT = "\ue00c", "\ue010", "\ue011", "\ue014"


class Page:
    """An open page of two models."""

    def __init__(self, driver: Any, models: list[Inspection]) -> None:
        self.driver, self.models = driver, models

    def find(self, selector: str, model: int = 0) -> Any:
        return self.driver.find_element("css selector", f"[data-model='{model}'] {selector}")

    def token(self, i: int, model: int = 0) -> Any:
        return self.find(f".token[data-i='{i}']", model)

    def panel(self, model: int = 0) -> str:
        return self.find(".panel", model).text

    def colors(self, model: int = 0) -> list[int]:
        """Return the strengths of the colors of the tokens, in per cent."""
        script = "return [...document.querySelectorAll(`[data-model='${arguments[0]}'] .token`)].map((span) => "
        return self.driver.execute_script(f"{script}parseInt(span.style.getPropertyValue('--a')))", model)

    def color(self, model: int = 0) -> str:
        """Return by what the text is colored."""
        return self.find("select option:checked", model).text

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def point(self, element: Any, right: float = 0.5, down: float = 0.5) -> Any:
        """Move the mouse to a place of an element, given as shares of its width and height."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.size
        dx, dy = round((right - 0.5) * size["width"]), round((down - 0.5) * size["height"])
        actions = ActionChains(self.driver).move_to_element_with_offset(element, dx, dy)
        actions.perform()
        return actions

    def calm(self) -> None:
        """Let go of the pinned token, and move the mouse away."""
        for model in (1, 0):  # the first one keeps the focus
            self.driver.execute_script("arguments[0].focus({preventScroll: true})", self.token(0, model))
            self.keys(Keys.ESCAPE)
        self.point(self.driver.find_element("css selector", "h1"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    file = tmp_path_factory.mktemp("browser") / "inspect.html"
    models = [inspected("mixtral", TEXT, name=HOSTILE), inspected("mamba", TEXT)]
    file.write_text(html(models), encoding="utf-8")
    with browser.opened(file) as driver:
        opened = Page(driver, models)
        browser.wait(driver, lambda: bool(opened.panel(1)))
        yield opened


@pytest.fixture(params=[1200, 390])
def wide_or_phone(page: Page, request: pytest.FixtureRequest) -> Page:
    browser.set_width(page.driver, request.param)
    browser.wait(page.driver, lambda: page.driver.execute_script("return innerWidth") == request.param)
    page.calm()
    return page


def facts(page: Page, i: int, model: int = 0) -> list[str]:
    """Return what the panel must say about a token."""
    token = page.models[model].tokens[i]
    assert token.nats is not None
    assert token.bits is not None
    nats, bits = (f"{float(f'{number:.3g}'):g}" for number in (token.nats, token.bits))
    return [f"token {i + 1} of {len(TEXT)}", f"{nats} nats = {bits} bits"]


def test_browser_shows_probabilities_of_the_token_that_is_pointed_at(wide_or_phone: Page) -> None:
    page = wide_or_phone
    page.point(page.token(6))
    for fact in facts(page, 6):
        assert fact in page.panel()
    lines = page.panel().splitlines()
    for text, p in page.models[0].tokens[6].top:
        at = lines.index("␣" if text == " " else "↵" if text == "\n" else text, 2)
        assert float(lines[at + 1].removesuffix(" %")) == pytest.approx(100 * p, abs=0.06)
    page.point(page.driver.find_element("css selector", "h1"))
    assert "token 1 of" in page.panel(), "of the focused token"


def test_browser_goes_through_the_text_with_the_keyboard(wide_or_phone: Page) -> None:
    page = wide_or_phone
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    for fact in facts(page, 2):
        assert fact in page.panel()
    assert page.driver.switch_to.active_element == page.token(2)
    assert facts(page, 2, 1)[1] in page.panel(1), "the other model has read the same tokens"
    page.keys(Keys.END)
    assert "after the text" in page.panel()
    page.keys(Keys.HOME)
    assert "nothing predicts it" in page.panel()


def test_browser_shows_the_influence_on_a_pressed_token(wide_or_phone: Page) -> None:
    page = wide_or_phone
    surprise = page.colors()
    assert page.color() == "surprise"
    page.token(9).click()
    for model in (0, 1):
        assert page.color(model) == "influence"
        found = page.models[model].influence
        assert found is not None
        row = found[8] / found[8].max()
        # The image holds 8 bits of the square root of a share.
        assert page.colors(model)[: len(row)] == pytest.approx((100 * row.sqrt()).tolist(), abs=1)
        assert page.colors(model)[9:] == [0] * (len(TEXT) - 8)
    assert page.token(9).get_attribute("aria-pressed") == "true"
    page.find("button[name=on]").click()
    assert page.colors()[9] > 0, "token 10 is predicted from token 9, too"
    page.keys(Keys.ESCAPE)
    page.token(10).click()
    assert page.color() == "surprise", "a second press lets go"
    assert page.colors() == surprise


def test_browser_colors_by_an_attention_head(wide_or_phone: Page) -> None:
    page = wide_or_phone
    page.token(5).click()
    label = "1.attention.weights, head 2"
    page.find("select").send_keys(label)
    assert page.color() == label
    row = page.models[0].recording["blocks.1.attention.weights"][0, 5, 1]
    assert page.colors()[: len(row)] == pytest.approx((100 * (row / row.max()).sqrt()).tolist(), abs=2)


def test_browser_reads_a_field_of_a_map_and_selects_its_row(wide_or_phone: Page) -> None:
    page = wide_or_phone
    image, n = page.find("figure.wide img.map"), len(TEXT)
    page.point(image, (2 + 0.5) / n, (7 + 0.5) / n)
    readout = page.find("figure.wide .readout").text
    found = page.models[0].influence
    assert found is not None
    share = 100 * found[7, 2] / found[7].max()
    assert readout.startswith("influence: “c” (3) on the prediction of “<” (9): ")
    assert float(readout.rpartition(": ")[2].partition(" %")[0]) == pytest.approx(share.item(), abs=0.8)
    page.point(image, (9 + 0.5) / n, (7 + 0.5) / n)
    assert page.find("figure.wide .readout").text.endswith("later, not seen")
    page.point(image, (2 + 0.5) / n, (7 + 0.5) / n).click().perform()
    assert page.color() == "influence"
    assert page.token(8).get_attribute("aria-pressed") == "true"


def test_browser_shows_the_layers_at_a_token(wide_or_phone: Page) -> None:
    page = wide_or_phone
    page.keys(Keys.ARROW_RIGHT)
    page.driver.execute_script("arguments[0].open = true", page.find(".panel details"))
    chosen = " ".join(map(str, page.models[0].recording["blocks.0.router.chosen"][0, 1].tolist()))
    assert f"0.router.chosen\n{chosen}" in page.panel()
    page.keys(Keys.ARROW_RIGHT)
    assert "router.chosen" in page.panel(), "stays open"
    page.driver.execute_script("arguments[0].open = false", page.find(".panel details"))


def test_browser_shows_all_text_as_text_and_no_horizontal_scroll_bar(wide_or_phone: Page) -> None:
    page = wide_or_phone
    assert "</script>" in page.driver.find_element("css selector", "h1").text
    assert page.driver.execute_script("return document.querySelectorAll('.text b').length") == 0
    root = "document.documentElement"
    width, room = page.driver.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert width == room


def test_browser_reports_no_error_and_sends_no_request(page: Page) -> None:
    """Runs last: it reads what the other tests have caused."""
    browser.require_no_error_and_no_request(page.driver)
