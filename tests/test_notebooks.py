"""Tests of scripts/notebooks.py: the cells are the code and the text of a chapter, and a kernel runs them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import chapters
import notebooks

# It trains nothing, so most of the time is the start of a kernel and the import of torch; and its text is Chinese.
CHEAPEST = chapters.COURSE / "zh" / "09-attention-without-softmax.md"

CHAPTER = """\
# 1 · A title

[中文](../zh/01-title.md) · [next](02-next.md) · [terms](../../glossary.md)

```python
print(1)
```

```text
1
```

![One](../pictures/one.png)

<details>
<summary>Answer</summary>

```python
print(2)
```

```text
2
```

</details>
"""


@pytest.fixture
def cells(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "en" / "01-title.md"
    path.parent.mkdir()
    path.write_text(CHAPTER, encoding="utf-8")
    notebook = json.loads(notebooks.notebook(path))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return notebook["cells"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_notebook_begins_with_the_title_and_one_install_cell(cells: list[dict[str, Any]]) -> None:
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "code", "markdown"]
    assert source(cells[0]).startswith("# 1 · A title")
    assert "%pip install" in source(cells[1])
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


def test_install_cell_takes_the_checkout_or_a_wheel_or_the_address(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = '%pip install --quiet "{SOURCE}" matplotlib'
    assert source(cells[1]).count(pip) == 1
    code = source(cells[1]).replace(pip, "installed.append(str(SOURCE))")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (tmp_path / "docs" / "course" / "zh").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "course" / "zh")
    installed: list[str] = []
    with pytest.raises(ValueError, match="pip wheel --no-deps"):
        exec(code, {"installed": installed})
    exec(code.replace('ADDRESS = ""', 'ADDRESS = "git+https://host.example/lmzoo"'), {"installed": installed})
    for version in ("0.1.0", "0.2.0"):
        Path(f"lmzoo-{version}-py3-none-any.whl").touch()
    exec(code, {"installed": installed})
    (tmp_path / "pyproject.toml").touch()
    exec(code, {"installed": installed})
    assert installed == ["git+https://host.example/lmzoo", "lmzoo-0.2.0-py3-none-any.whl", "../../.."]
    monkeypatch.undo()
    exec(code, {"installed": installed})
    assert len(installed) == 3, "it is installed already"


def test_notebook_leaves_out_what_its_cells_print_and_draw(cells: list[dict[str, Any]]) -> None:
    assert source(cells[2]) == "print(1)"
    assert "pictures" not in source(cells[3])


def test_notebook_keeps_an_answer_in_one_hidden_cell(cells: list[dict[str, Any]]) -> None:
    answer = source(cells[3])
    assert answer.startswith("<details>")
    assert answer.endswith("</details>")
    assert "print(2)" in answer
    assert "```text\n2\n```" in answer


def test_notebook_links_to_notebooks(cells: list[dict[str, Any]]) -> None:
    assert "(../zh/01-title.ipynb)" in source(cells[0])
    assert "(02-next.ipynb)" in source(cells[0])
    assert "(../../glossary.md)" in source(cells[0])


def test_notebook_runs_in_a_kernel_and_shows_what_its_chapter_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One notebook in a real kernel, so that what is special about a notebook is tested once.

    That is: the install cell (its `%pip` is parsed, and not reached, because lmzoo is installed here), the figure that
    a cell draws, and objects with `_repr_html_`. That the code of the other notebooks runs, tests/test_course.py tests.
    """
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))  # not those of the person who runs the tests
    monkeypatch.delenv("MPLBACKEND", raising=False)  # else no figure is shown
    notebook = notebooks.executed(CHEAPEST, tmp_path, more=["model"])
    assert not list(notebooks.problems(CHEAPEST, notebook))
    install, *cells, shown = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert "%pip" in install.source
    assert install.outputs == []
    assert "text/html" in shown.outputs[0].data
    assert len(cells) > 5
    for cell in cells:
        drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert drawn == ("savefig" in cell.source), cell.source


def test_problems_name_a_cell_that_prints_something_else(tmp_path: Path) -> None:
    import nbformat

    path = tmp_path / "en" / "01-title.md"
    path.parent.mkdir()
    path.write_text(CHAPTER, encoding="utf-8")
    notebook = nbformat.reads(notebooks.notebook(path), as_version=4)
    cell = notebook.cells[2]
    for text, number in (("1\n", 0), ("7\n", 1)):
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
        assert len(list(notebooks.problems(path, notebook))) == number
