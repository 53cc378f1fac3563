"""Tests of the course: its code prints and draws what the chapters show, in both languages, and in the notebooks."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

import lmzoo
from tests.helpers import load_script, registered_names_restored

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import chapters
import notebooks

ENGLISH, CHINESE = (chapters.chapters(language) for language in chapters.LANGUAGES)
SECONDS = 90
PREDICT = {"en": "> **Predict before you run.**", "zh": "> **先猜再运行。**"}
EXERCISES = {"en": "## Exercises", "zh": "## 练习"}
SAME_GENERATE = "assert type(model).generate is lmzoo.LanguageModel.generate"
each_chapter = pytest.mark.parametrize("path", [*ENGLISH, *CHINESE], ids=lambda path: f"{path.parent.name}-{path.stem}")


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder to run in; what a chapter registers or sets for its pictures is gone after its test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with matplotlib.rc_context(), registered_names_restored():
        yield
    pyplot.close("all")


@each_chapter
def test_chapter_prints_and_draws_what_it_shows(path: Path, tmp_path: Path) -> None:
    """Chinese code that is the English one, up to comments and docstrings, need not run: it shows the same texts."""
    markdown, english = path.read_text(encoding="utf-8"), (chapters.COURSE / "en" / path.name).read_text("utf-8")
    if path.parent.name == "zh" and chapters.bare_code(markdown) == chapters.bare_code(english):
        assert shown(markdown) == shown(english), "run scripts/course"
        return
    torch.seed()  # without a seed of its own, the chapter would print other numbers in each run
    start = time.process_time()
    printed, variables = chapters.run(markdown, path.stem)
    assert time.process_time() - start < SECONDS
    assert not list(chapters.problems(markdown, printed)), "read what differs; then run scripts/course"
    models = [value for value in variables.values() if isinstance(value, lmzoo.LanguageModel)]
    assert models
    assert {type(model).generate for model in models} == {lmzoo.LanguageModel.generate}
    for name in chapters.pictures(markdown):
        with Image.open(chapters.PICTURES / name) as kept, Image.open(tmp_path / name) as drawn:
            assert kept.size == drawn.size
            assert kept.text["code"] == chapters.code_hash(english), f"{name}: run scripts/course"


def shown(markdown: str) -> list[str | None]:
    return [step.output and step.output.text for step in chapters.steps(markdown)]


@each_chapter
def test_chapter_has_its_parts(path: Path) -> None:
    markdown, language = path.read_text(encoding="utf-8"), path.parent.name
    number = int(path.name[:2])
    assert re.match(rf"# {number} · \S.*\n\n\[", markdown), "a title with the number, then the links"
    assert len(re.findall("^# ", "".join(re.split(r"^```.*?^```$", markdown, flags=re.M | re.S)), re.M)) == 1
    assert chapters.pictures(markdown)
    assert PREDICT[language] in markdown
    exercises = markdown.split(EXERCISES[language])[1]
    assert len(re.findall(r"^\*\*[1-3][.．、]", exercises, re.MULTILINE)) == 3
    assert len(re.findall(r"^<details>\n<summary>[^<]+</summary>\n\n", exercises, re.MULTILINE)) == 3
    assert exercises.count("\n\n</details>\n") == 3
    assert SAME_GENERATE in "".join(step.code.text for step in chapters.steps(markdown))


@each_chapter
def test_numbers_in_the_prose_are_printed_or_have_a_source(path: Path) -> None:
    markdown = path.read_text(encoding="utf-8")
    assert not chapters.unfounded(markdown)
    for chapter, number in chapters.borrowed(markdown):
        assert chapters.has_number(ENGLISH[chapter - 1].read_text(encoding="utf-8"), number), (chapter, number)


@each_chapter
def test_lines_of_a_diff_are_lines_of_the_code_around_it(path: Path) -> None:
    """Lines that it removes stand in a block before it, lines that it adds in the next one."""
    markdown = path.read_text(encoding="utf-8")
    steps = chapters.steps(markdown)
    for diff in (block for block in chapters.blocks(markdown) if block.kind == "diff"):
        before = "\n".join(step.code.text for step in steps if step.code.start < diff.start).splitlines()
        after = next(step.code.text for step in steps if step.code.start > diff.start).splitlines()
        for line in diff.text.splitlines():
            assert (line[1:] in before) or line[0] == "+", line
            assert (line[1:] in after) or line[0] == "-", line


@each_chapter
def test_notebook_is_the_one_that_scripts_course_writes(path: Path) -> None:
    text = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == notebooks.notebook(path), "run scripts/course"
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    ran = [step.code.text.strip() for step in chapters.steps(path.read_text(encoding="utf-8"))]
    assert cells[1:] == ran[: len(cells) - 1], "a run of the chapter is a run of the notebook, and then of the answers"
    assert len(cells) > 5


def test_every_chapter_is_in_both_languages_and_in_both_lists() -> None:
    assert [path.name for path in ENGLISH] == [path.name for path in CHINESE]
    for paths in (ENGLISH, CHINESE):
        index = (paths[0].parent / "index.md").read_text(encoding="utf-8")
        assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", index) == [path.name for path in paths]
    used = {name for path in ENGLISH for name in chapters.pictures(path.read_text(encoding="utf-8"))}
    assert used == {path.name for path in chapters.PICTURES.iterdir()}


@pytest.mark.parametrize("name", [path.name for path in ENGLISH])
def test_both_languages_have_the_same_structure(name: str) -> None:
    texts = [(chapters.COURSE / language / name).read_text(encoding="utf-8") for language in chapters.LANGUAGES]
    for mark in (r"^#+ ", r"^\|", r"^<details>", r"^> \*\*", r"^\$\$", r"^!\["):
        counts = [len(re.findall(mark, text, re.MULTILINE)) for text in texts]
        assert counts[0] == counts[1], f"{mark}: {counts}"
    assert len(chapters.steps(texts[0])) == len(chapters.steps(texts[1]))
    assert chapters.pictures(texts[0]) == chapters.pictures(texts[1])


@pytest.mark.parametrize("path", [*CHINESE, CHINESE[0].with_name("index.md")], ids=lambda path: path.stem)
def test_paragraph_of_a_chinese_chapter_is_one_line(path: Path) -> None:
    """A browser shows a line break between Chinese characters as a space."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    breaks = re.findall(r".*[\u3000-\u9fff\uff00-\uffef]\n(?!\d+\. )(?:> )?[\u3000-\u9fff\uff00-\uffef*`\[\w].*", prose)
    assert breaks == []


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/course, on a course with one small chapter in two languages."""
    for name in ("en", "zh", "pictures"):
        (tmp_path / name).mkdir()
    chapter = '# 1 · Two\n\n```python\nprint(f"{1 + 1:.3f}")  # {}\n```\n'
    (tmp_path / "en" / "01-two.md").write_text(chapter.replace("{}", "a sum"), encoding="utf-8")
    (tmp_path / "zh" / "01-two.md").write_text(chapter.replace("{}", "和"), encoding="utf-8")
    monkeypatch.setattr(chapters, "COURSE", tmp_path)
    return load_script("course", monkeypatch)


def test_script_writes_what_chapters_print_in_both_languages(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--check"]) == 1
    assert not list(tmp_path.rglob("*.ipynb"))
    assert script.main(["01"]) == 0
    for path in tmp_path.rglob("*.md"):
        assert shown(path.read_text(encoding="utf-8")) == ["2.000\n"]
        assert path.with_suffix(".ipynb").read_text(encoding="utf-8") == notebooks.notebook(path)
    assert script.main(["--check", "01"]) == 0


def test_script_runs_notebooks_in_a_kernel_and_compares(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One notebook, and another text in its chapter, so that one kernel shows both: it ran, and was compared."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))  # not those of the person who runs the tests
    (tmp_path / "zh" / "01-two.md").unlink()
    assert script.main(["01"]) == 0
    english = tmp_path / "en" / "01-two.md"
    english.write_text(english.read_text(encoding="utf-8").replace("2.000", "3.000"), encoding="utf-8")
    assert script.main(["--kernel", "01"]) == 1
    assert "cell 1 printed\n2.000\n\nand the chapter shows\n3.000" in capsys.readouterr().out


def test_script_refuses_a_chapter_that_does_not_exist(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        script.main(["02"])
    assert stop.value.code == 2
    assert "no chapter of docs/course/en begins with 02" in capsys.readouterr().err
