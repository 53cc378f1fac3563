"""Drives a small site in Chromium, from files: search, filter, languages; nothing fails, and no request leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.browser
FAMILIES = ("bigram", "gpt2", "mamba")
PAGES = {
    "README.md": "# Small\n\n[中文](README.zh-CN.md), [Mamba](registry/mamba/card.md), [a](docs/contract.md#loss)\n",
    "README.zh-CN.md": "# 小站\n\n[English](README.md)\n",
    "docs/contract.md": "# Rules\n\n## Loss\n\n[A family](../registry/gpt2/card.md)\n",
    "docs/course/en/01-pairs.md": "# Counting pairs\n\nState $h_t$. [Rules](../../contract.md)\n\n$$\nW x\n$$\n",
    "docs/course/en/01-pairs.ipynb": "{}",
    "docs/course/zh/01-pairs.md": "# 数一数相邻的词元\n\n循环神经网络的*隐状态*只有一个向量，即 *state*。\n",
}


class Site:
    """A built site in a browser."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, page: str) -> None:
        self.driver.get(f"{self.folder.as_uri()}/{page}")
        self.wait(lambda: self.script("document.readyState") == "complete")  # on a busy machine it may follow

    def script(self, text: str) -> Any:
        return self.driver.execute_script(f"return {text}")

    def wait(self, holds: Callable[[], bool]) -> None:
        browser.wait(self.driver, holds)

    def found(self, query: str) -> list[str]:
        """The pages that the search finds, the best first."""
        self.open(f"search.html?q={query}")
        done = "/finished|did not match/.test(document.querySelector('.search-summary')?.textContent ?? '')"
        self.wait(lambda: self.script(done))
        links = "[...document.querySelectorAll('#search-results a')].map((link) => link.getAttribute('href'))"
        return [link.partition("#")[0].partition("?")[0] for link in self.script(links)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "CITATION.cff", folder)
    for family in FAMILIES:
        shutil.copytree(ROOT / "registry" / family, folder / "registry" / family)
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    code = f"from pathlib import Path; from make import build; here = Path({str(folder)!r}); "
    code += f"assert build(here / 'build', here, {FAMILIES}) == []"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs" / "site", check=True)  # Sphinx is full of warnings
    html = folder / "build" / "html"
    with browser.opened(html / "index.html") as driver:
        yield Site(driver, html)


def test_search_finds_a_family_by_its_name_and_by_its_text(site: Site) -> None:
    assert site.found("mamba")[0] == "gallery/mamba.html"
    assert site.found("selective state space")[0] == "gallery/mamba.html"


def test_search_finds_chinese_text(site: Site) -> None:
    assert "course/zh/01-pairs.html" in site.found("隐状态")
    assert "course/zh/01-pairs.html" in site.found("词元")
    assert site.found("隐秘") == []


def test_language_switch_keeps_the_page(site: Site) -> None:
    site.open("course/en/01-pairs.html")
    assert site.script("document.documentElement.lang") == "en"
    site.driver.find_element("css selector", ".other-language").click()
    assert site.driver.current_url.endswith("course/zh/01-pairs.html")
    assert site.script("document.documentElement.lang") == "zh-CN"
    site.driver.find_element("css selector", ".other-language").click()
    assert site.driver.current_url.endswith("course/en/01-pairs.html")


def test_course_leads_to_no_page_in_the_other_language(site: Site) -> None:
    neighbors = "[...document.querySelectorAll('.related-pages a')].map((link) => link.getAttribute('href'))"
    site.open("gallery/index.html")
    site.wait(lambda: site.script(neighbors) == ["bigram.html"])
    for page in ("course/en/01-pairs.html", "course/zh/01-pairs.html"):
        site.open(page)
        assert site.script(neighbors) == []


def test_emphasized_chinese_is_upright_with_dots(site: Site) -> None:
    site.open("course/zh/01-pairs.html")
    styles = "[...document.querySelectorAll('article em')].map((word) => getComputedStyle(word))"
    assert site.script(f"{styles}.map((style) => style.fontStyle)") == ["normal", "italic"]
    assert site.script(f"{styles}.map((style) => style.textEmphasisStyle)") == ["dot", "none"]


def test_page_of_the_course_has_its_notebook_and_formulas_without_a_script(site: Site) -> None:
    site.open("course/en/01-pairs.html")
    assert site.script("document.querySelector('.page-links a[download]').getAttribute('href')") == "01-pairs.ipynb"
    displays = "[...document.querySelectorAll('article math')].map((formula) => formula.getAttribute('display'))"
    assert site.script(displays) == ["inline", "block"]


def test_gallery_filters_families_and_draws_the_plot_again(site: Site) -> None:
    shown = "[...document.querySelectorAll('.families a:not([hidden])')].map((card) => card.dataset.family)"
    names = (
        "[...document.querySelectorAll('.plot svg .mark-text.role-mark text')].map((text) => text.textContent).join()"
    )
    site.open("gallery/index.html")
    site.wait(lambda: site.script(names) == "GPT-2,Mamba")  # a bigram has no state
    assert site.script(shown) == [*FAMILIES]
    axis = site.driver.find_element("css selector", "form.axis select")
    axis.send_keys("parameters")
    site.wait(lambda: site.script(names) == "Bigram,GPT-2,Mamba")
    site.driver.find_element("css selector", "form.filter [name=state]").send_keys("constant")
    site.wait(lambda: site.script(names) == "Mamba")
    assert site.script(shown) == ["mamba"]
    assert site.script("document.querySelectorAll('.time-line li:not([hidden])').length") == 1
    assert site.script("document.querySelector('.filter output').value") == "1 of 3 families"
    site.driver.find_element("css selector", "form.filter [type=reset]").click()
    site.wait(lambda: site.script(shown) == [*FAMILIES])
    site.driver.find_element("css selector", "form.filter [name=text]").send_keys("no such family")
    site.wait(lambda: site.script("document.querySelector('.plot').childElementCount") == 0)
    assert site.script(shown) == []


@pytest.mark.parametrize("width", [390, 1160, 1200, 1440])
@pytest.mark.parametrize("page", ["index.html", "gallery/index.html", "gallery/mamba.html", "search.html?q=mamba"])
def test_no_page_is_wider_than_its_window(site: Site, page: str, width: int) -> None:
    """On a phone, and where the style sheet widens the text: what is wider is cut off, beside a scroll bar too."""
    browser.set_width(site.driver, width)
    site.open(page)
    wide = site.script("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    browser.set_width(site.driver, 1200)
    assert wide[0] == wide[1]
    assert wide[1] == 390 or width > 390


def test_no_page_reports_an_error_or_sends_a_request(site: Site) -> None:
    """Runs last: it reads what the other tests have caused."""
    assert site.driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in site.driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    ours = [each["request"]["url"] for each in sent if each["documentURL"].startswith(site.folder.as_uri())]
    assert ours, "Chromium's own first page sends requests too"
    assert [url for url in ours if not url.startswith((site.folder.as_uri(), "data:"))] == []
