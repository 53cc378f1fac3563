"""Makes a Jupyter notebook of each chapter of the course, beside its Markdown file.

The notebooks are in the repository, because services such as Colab open a notebook by its path there. They have no
outputs, so they change only when the text does. A cell of text holds an answer with its code, which stays hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chapters

# "git+https://..." once lmzoo has a public address: then the notebooks also run where they are opened alone.
ADDRESS = ""
INSTALL = """\
# {comment}
import importlib.util
from pathlib import Path

ADDRESS = "{address}"  # {hint}
CHECKOUT = Path("../../..")
if importlib.util.find_spec("lmzoo") is None:
    SOURCE = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else ADDRESS
    if not SOURCE:
        raise ValueError("{missing}")
    %pip install --quiet "{{SOURCE}}" matplotlib"""
WORDS = {
    "en": {
        "comment": "Installs lmzoo if it is missing: from the checkout that holds this notebook, or else from ADDRESS.",
        "hint": 'for a notebook alone, as on Colab: the repository it is from, as "git+https://..."',
        "missing": "lmzoo is not installed, and ADDRESS is empty: write the address of its repository there",
    },
    "zh": {
        "comment": "若未安装 lmzoo，则先安装：本笔记本在仓库目录里时从仓库安装，否则从 ADDRESS 安装。",
        "hint": "单独打开本笔记本时（例如在 Colab 上），在此填写它所在仓库的地址，形如 git+https://……",
        "missing": "尚未安装 lmzoo，而 ADDRESS 是空的：请填上 lmzoo 仓库的地址",
    },
}
_DETAILS = re.compile(r"^<details>.*?^</details>$", re.MULTILINE | re.DOTALL)


def notebook(path: Path) -> str:
    """Returns the text of the notebook of a chapter."""
    markdown, language = path.read_text(encoding="utf-8"), path.parent.name
    cells = [("code", INSTALL.format(address=ADDRESS, **WORDS[language])), *_cells(markdown)]
    title = cells.pop(1) if cells[1][0] == "markdown" else None
    content = {
        "cells": [_cell(number, *cell) for number, cell in enumerate([*([title] if title else []), *cells])],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _cells(markdown: str) -> Iterator[tuple[str, str]]:
    """Yields the type and the text of the cells: code, and the Markdown in between."""
    hidden = [found.span() for found in _DETAILS.finditer(markdown)]
    last = 0
    for block in chapters.blocks(markdown):
        if block.kind not in ("python", "text", "text sample") or any(a < block.start < b for a, b in hidden):
            continue
        before = markdown[last : markdown.rindex("```", 0, block.start)]
        if before.strip():
            yield "markdown", _text(before)
        if block.kind == "python":  # the cell prints what the chapter shows in a block of text
            yield "code", block.text.strip()
        last = block.stop + len("```\n")
    if markdown[last:].strip():
        yield "markdown", _text(markdown[last:])


def _text(markdown: str) -> str:
    """Returns Markdown for a notebook: the cells draw the pictures, and links lead to notebooks of chapters."""
    markdown = re.sub(r"^!\[[^\]]*\]\([^)]*\)$\n*", "", markdown, flags=re.MULTILINE)
    return re.sub(r"(\]\((?:\.\./\w\w/)?\d\d-[\w-]+)\.md", r"\1.ipynb", markdown).strip()


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return {**cell, "source": text.splitlines(keepends=True)}
