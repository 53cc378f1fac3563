"""Words of the menus on Chinese pages. Sphinx knows one language for a whole site, so the others are replaced here."""

from __future__ import annotations

import re
from typing import Any

WORDS = {
    "On this page": "本页目录",
    "Back to top": "回到顶部",
    "Next": "下一页",
    "Previous": "上一页",
    "Home": "首页",
    "Search": "搜索",
}
CAPTIONS = {
    "Start": "开始",
    "Course": "课程（英文）",
    "Gallery": "模型图鉴（英文）",
    "Guides": "指南（英文）",
    "Reference": "参考（英文）",
    "Project": "项目（英文）",
}


def word(text: str, **_given: object) -> str:
    """Returns a word of the theme in Chinese; one that is not known stays as it is."""
    return WORDS.get(text, text)


def translate(context: dict[str, Any]) -> None:
    """Sets the words of a page and the captions of its menu to Chinese ones."""
    context["_"] = context["gettext"] = word
    for name, value in context.items():
        if name.endswith("navigation_tree") and isinstance(value, str):
            context[name] = re.sub(
                r'(?<=<span class="caption-text">)[^<]*', lambda found: CAPTIONS.get(found[0], found[0]), value
            )
