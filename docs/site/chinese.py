"""Chinese pages: words and order of the menus, and emphasis. Sphinx knows one language for a whole site."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

HAN = re.compile("[\u3400-\u9fff]")
WORDS = {
    "On this page": "本页目录",
    "Back to top": "回到顶部",
    "Next": "下一页",
    "Previous": "上一页",
    "Home": "首页",
    "Search": "搜索",
    "Made with ": "制作工具：",
}
CAPTIONS = {
    "Start": "开始",
    "Course": "课程（英文）",
    "Gallery": "模型图鉴（英文）",
    "Guides": "指南（英文）",
    "Reference": "参考（英文）",
    "Project": "项目（英文）",
}
FIRST = ("开始", "课程")  # in the menu


def word(text: str, **_given: object) -> str:
    """Returns a word of the theme in Chinese; one that is not known stays as it is."""
    return WORDS.get(text, text)


def translate(context: dict[str, Any]) -> None:
    """Sets the words of a page and the captions of its menu to Chinese ones; the Chinese course comes first."""
    context["_"] = context["gettext"] = word
    for name, value in context.items():
        if name.endswith("navigation_tree") and isinstance(value, str):
            value = re.sub(
                r'(?<=<span class="caption-text">)[^<]*', lambda found: CAPTIONS.get(found[0], found[0]), value
            )
            before, *parts = re.split(r'(?=<p class="caption")', value)
            parts.sort(key=lambda part: next((at for at, caption in enumerate(FIRST) if f">{caption}<" in part), 9))
            context[name] = "".join([before, *parts])


def mark_emphasis(doctree: nodes.document) -> None:
    """Marks emphasized Chinese words: the style sheet puts dots below them, as Chinese has no italics."""
    for node in doctree.findall(nodes.emphasis):
        if HAN.search(node.astext()):
            node["classes"].append("han")
