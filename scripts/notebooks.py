"""Makes a Jupyter notebook of each chapter of the course, beside its Markdown file.

The notebooks are in the repository, because services such as Colab open a notebook by its path there. They have no
outputs, so they change only when the text does. A cell of text holds an answer with its code, which stays hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
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
    WHEELS = sorted(Path().glob("lmzoo-*.whl"))
    SOURCE = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else WHEELS[-1] if WHEELS else ADDRESS
    if not SOURCE:
        raise ValueError(
            "{missing}"
            "{remedy}"
        )
    %pip install --quiet "{{SOURCE}}" matplotlib"""
WORDS = {
    "en": {
        "comment": "Installs lmzoo if it is missing: from the checkout around it, from a wheel beside it, or ADDRESS.",
        "hint": 'of a repository, as "git+https://..."',
        "missing": "lmzoo is not installed: run `pip wheel --no-deps .` in its checkout, put the file lmzoo-*.whl ",
        "remedy": "beside this notebook (on Colab: upload it), and run this cell again",
    },
    "zh": {
        "comment": "若未安装 lmzoo，则先安装：来自本笔记本所在的仓库目录、旁边的 wheel 文件，或者 ADDRESS。",
        "hint": "仓库的地址，形如 git+https://……",
        "missing": "尚未安装 lmzoo：请在它的仓库目录里运行 pip wheel --no-deps .，把得到的 lmzoo-*.whl ",
        "remedy": "放到本笔记本旁边（在 Colab 上就是上传），再运行这个单元格",
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


def executed(path: Path, folder: Path, more: Sequence[str] = ()) -> Any:
    """Runs the notebook of a chapter, and `more` cells of code, in a kernel; returns it with what the cells print.

    The kernel works in `folder`. Raises nbclient's `CellExecutionError` if a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    found: Any = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(found)
    found.cells += [nbformat.v4.new_code_cell(code) for code in more]
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(found, timeout=600, startup_timeout=300, resources=resources).execute()
    return found


def problems(path: Path, notebook: Any) -> Iterator[str]:
    """Yields a sentence for each cell that printed something else than the chapter shows."""
    _install, *cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    steps = chapters.steps(path.read_text(encoding="utf-8"))  # the last ones are of answers, which are no cells
    for number, (cell, step) in enumerate(zip(cells, steps, strict=False), start=1):
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        shown = step.output.text if step.output else ""
        sample = step.output is not None and step.output.kind == "text sample"
        if not sample and not chapters.agree(shown, printed):
            yield f"cell {number} printed\n{printed}\nand the chapter shows\n{shown}"


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
