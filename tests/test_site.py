"""Tests of the documentation site (docs/site/): links of all Markdown files, links between pages, the two languages."""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import lmzoo
from tests.cases import each_case

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "site"))
import sources  # noqa: E402  (from docs/site/, which is no package)
from chinese import CAPTIONS, translate  # noqa: E402
from docutils import nodes  # noqa: E402
from extension import counterpart, mark_cells, plain_docstring  # noqa: E402
from gallery_pages import family_page, raw, write_vega  # noqa: E402
from links import broken_links  # noqa: E402
from search import SearchMixed  # noqa: E402

from lmzoo.gallery import gather  # noqa: E402

FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "registry").glob("*/card.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    text = re.sub(r"^(```|~~~).*?^\1[`~]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+).+?\1", "", text)


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a file."""
    text = re.sub(r"^(```|~~~).*?^\1[`~]*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@each_case("path", FILES)
def test_links_of_markdown_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(without_code(path.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), f"{path.name}: {link}: there is no such file"
        if anchor:
            assert anchor in anchors(file), f"{path.name}: {link}: there is no such heading"


def test_pages_has_every_document_once() -> None:
    places = sources.pages()
    assert len(set(places.values())) == len(places)
    assert places["docs/contract.md"] == "contract.md"
    files = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {file for file in files if not file.startswith("docs/examples/moving-average/lmzoo_")} <= set(places)


def test_contents_lists_every_page_once() -> None:
    places = [*sources.pages().values(), "cite.md", "course/en/01.md", "course/zh/01.md", "new.md"]
    text = sources.contents(places)
    names = [place.removesuffix(".md") for place in places if not place.startswith("gallery/")]
    listed = re.findall(r"^(?:.+ <)?([^\s<>:`]+?)>?$", text, re.MULTILINE)
    assert sorted(set(names) - {"index"}) == sorted(name for name in listed if name != "self" and "gallery" not in name)


def test_contents_begins_the_course_with_its_list_of_chapters() -> None:
    text = sources.contents(["course/en/02-b.md", "course/en/index.md", "course/en/01-a.md"])
    assert re.findall(r"^course/en/(\S+)", text, re.MULTILINE) == ["index", "01-a", "02-b"]


def test_api_page_describes_every_public_name() -> None:
    text = (ROOT / "docs" / "site" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. (?:auto|py:)\w+:: lmzoo\.(\w+)", text, re.MULTILINE))
    described = {*listed, "__version__", "LmzooError"}  # which is in the module of the errors
    assert set(lmzoo.__all__) <= described, f"add to docs/site/api.md: {set(lmzoo.__all__) - described}"


def test_with_links_turns_links_to_the_places_of_pages() -> None:
    places = {"README.md": "index.md", "docs/data.md": "data.md", "docs/course/en/1.md": "course/en/1.md"}
    places |= {"registry/mamba/card.md": "gallery/mamba.md"}
    others: list[str] = []

    def turned(text: str, source: str) -> str:
        return sources.with_links(text, source, places, others.append)

    assert turned("[a](docs/data.md#b) [c](https://x.org/docs/data.md)", "README.md") == (
        "[a](data.md#b) [c](https://x.org/docs/data.md)"
    )
    assert turned("[a](../../data.md) [b](#c)", "docs/course/en/1.md") == "[a](../../data.md) [b](#c)"
    assert turned("[m](../registry/mamba/card.md)", "docs/data.md") == "[m](gallery/mamba.md)"
    code = "```text\n[a](docs/data.md)\n```\n"
    assert turned(code, "README.md") == code
    assert not others
    assert turned("[l](LICENSE)", "README.md") == "[l](LICENSE)"
    assert others == ["LICENSE"], "a file that is no page is copied"


def test_cite_has_bibtex_with_the_fields_of_the_citation_file() -> None:
    text = sources.cite(ROOT)
    assert "@software{lmzoo,\n  author = {{lmzoo contributors}},\n  title = {lmzoo: a pluggable" in text
    assert re.search(r"^  year = \{20\d\d\},\n  version = \{\d+\.\d+\.\d+\},$", text, re.MULTILINE)


def test_counterpart_is_the_same_page_in_the_other_language() -> None:
    assert counterpart("course/en/03-context") == "course/zh/03-context"
    assert counterpart("course/zh/03-context") == "course/en/03-context"
    assert counterpart("contract") == ""


def test_search_splits_chinese_into_pairs_of_characters() -> None:
    search = SearchMixed({})
    assert search.split("隐状态 of an LSTM, 词元") == ["隐状", "状态", "of", "an", "LSTM", "词元"]
    assert search.split("用gated_deltanet解码器") == ["用", "gated_deltanet", "解码", "码器"]


def test_family_page_has_a_heading_for_each_section() -> None:
    text = family_page(gather("bigram"))
    assert text.startswith("# Bigram\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[:2] == ["The idea", "The equations"]


def test_raw_has_a_fence_that_its_text_cannot_end() -> None:
    assert raw("a").startswith("```{raw} html\na\n```\n")
    assert raw("x\n`````\ny").startswith("``````{raw} html\n")


def test_write_vega_keeps_its_names_in_a_function(tmp_path: Path) -> None:
    write_vega(tmp_path)
    text = (tmp_path / "vega.js").read_text(encoding="utf-8")
    assert text.startswith("(() => {")
    assert text.endswith("})();\n")


def test_plain_docstring_escapes_signs_of_restructuredtext_outside_of_code() -> None:
    lines = ["Adds |x| to `a_`s, *args and own_ `b|c*`."]
    plain_docstring(None, "", "", None, None, lines)  # type: ignore[arg-type]
    assert lines == [r"Adds \|x\| to `a_`\ s, \*args and own\_ `b|c*`."]


def test_mark_cells_tells_short_cells_from_long_ones() -> None:
    texts = [
        "2.094 ± 0.017",
        "滑动窗口",
        "Counts of the n-grams of a text",
        "数出一段文本的 n 元语法，一遍即得，不用梯度训练",
    ]
    row = nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))
    mark_cells(None, row)  # type: ignore[arg-type]
    assert [cell["classes"] for cell in row] == [["short"], ["short", "han"], [], ["long"]]


def test_broken_links_names_missing_files_and_anchors(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="b.html#gone"></a><img src="c.svg"><a href="https://x.org/d"></a>'
    )
    (tmp_path / "b.html").write_text('<h2 id="here">&amp;</h2><a href="#here"></a><a href="a.html"></a>')
    assert broken_links(tmp_path) == [
        "a.html: b.html#gone: there is no such anchor",
        "a.html: c.svg: there is no such file",
    ]


def test_translate_gives_chinese_words_to_the_menus_of_a_page() -> None:
    tree = '<span class="caption-text">Guides</span><a>Guides</a><span class="caption-text">课程</span>'
    context: dict[str, Any] = {"furo_navigation_tree": tree, "title": "Guides"}
    translate(context)
    assert context["furo_navigation_tree"] == tree.replace('text">Guides', 'text">指南（英文）')
    words = (context["_"]("Next"), context["gettext"]("Made with "), context["_"]("Unknown"))
    assert (context["title"], *words) == ("Guides", "下一页", "制作工具：", "Unknown")
    shown = re.findall(r":caption: (.+)", sources.contents(sources.pages().values()))
    assert set(shown) - {"课程"} == CAPTIONS.keys(), "every caption has a Chinese one"


def test_translate_puts_the_chinese_course_before_the_english_one() -> None:
    part = '<p class="caption"><span class="caption-text">{}</span></p><ul><li>{}</li></ul>'
    parts = [part.format(caption, number) for number, caption in enumerate(("Start", "Course", "课程", "Gallery"))]
    context: dict[str, Any] = {"furo_navigation_tree": "<div>" + "".join(parts) + "</div>"}
    translate(context)
    tree = context["furo_navigation_tree"]
    assert re.findall(r"<li>(\d)", tree) == ["0", "2", "1", "3"]
    assert (tree.startswith("<div>"), tree.endswith("</div>")) == (True, True)
