"""Tests of scripts/chapters.py: blocks, agreement with the text, numbers without a source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import chapters

CHAPTER = """\
# A title

```python
x = 2.5
print(f"x is {x}")  # a comment
```

Some words.

```text
x is 2.5
```

```python
y = x
```
"""


def test_steps_pair_code_with_what_it_prints() -> None:
    first, second = chapters.steps(CHAPTER)
    assert first.output is not None
    assert first.output.text == "x is 2.5\n"
    assert CHAPTER[first.output.start : first.output.stop] == first.output.text
    assert second.output is None


@pytest.mark.parametrize("extra", ["```text\nmore\n```\n\n```text\ntwice\n```\n"])
def test_steps_refuse_a_text_that_nothing_printed(extra: str) -> None:
    with pytest.raises(ValueError, match="follows no code"):
        chapters.steps(CHAPTER + extra)
    with pytest.raises(ValueError, match="follows no code"):
        chapters.steps("```text\nhello\n```\n")


def test_run_executes_in_one_namespace() -> None:
    printed, variables = chapters.run(CHAPTER, "01-title")
    assert printed == ["x is 2.5\n", ""]
    assert variables["y"] == 2.5


def test_problems_are_other_words_other_numbers_and_texts_that_are_not_shown() -> None:
    assert not list(chapters.problems(CHAPTER, ["x is 2.5\n", ""]))
    for printed in (["y is 2.5\n", ""], ["x is 2.9\n", ""], ["x is 2.5\n", "more\n"], ["", ""]):
        assert len(list(chapters.problems(CHAPTER, printed))) == 1, printed


def test_problems_compare_a_sample_by_its_length() -> None:
    sample = CHAPTER.replace("```text", "```text sample")
    assert not list(chapters.problems(sample, ["x = 3.5.\n", ""]))
    assert list(chapters.problems(sample, ["x is 2.5 and more\n", ""]))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("loss 2.634", "loss  2.660\n", True),  # 1 %
        ("loss 2.634", "loss 2.800", False),
        ("loss 0.01", "loss 0.02", True),  # one unit of the last digit
        ("loss 0.01", "loss 0.03", False),
        ("step 99", "step 98", False),  # a small integer numbers something
        ("1,115,394 tokens", "1,120,000 tokens", True),
        ("1,115,394 tokens", "1,215,394 tokens", False),
        ("1.00e-08", "1.02e-08", True),
        ("1.00e-08", "1.00e-07", False),
        ("-2.5", "2.5", False),
        ("h2 1.5", "h3 1.5", False),  # a digit in a word belongs to the word
        ("1.5 2.5", "1.5", False),
        ("nan", "1.0", False),
    ],
)
def test_agree(shown: str, printed: str, same: bool) -> None:
    assert chapters.agree(shown, printed) == same


def test_with_outputs_replaces_and_adds_texts() -> None:
    text = chapters.with_outputs(CHAPTER, ["x is 3.5\n", "new\n"])
    assert [step.output and step.output.text for step in chapters.steps(text)] == ["x is 3.5\n", "new\n"]
    assert text.replace("3.5", "2.5").replace("\n```text\nnew\n```\n", "") == CHAPTER
    assert chapters.with_outputs(text, ["x is 3.5\n", "new\n"]) == text


@pytest.mark.parametrize(
    ("prose", "missing"),
    [
        ("It is 2.5.", []),
        ("It is 2.6.", ["2.6"]),
        ("Rounded, 3 layers.", []),
        ("It is 250 % of it, not 251 %.", ["251"]),
        ("A text of 1,000 tokens.", ["1,000"]),
        ("Of 2,000, of 1, 2, 4.", ["2,000"]),
        ("Published: 2.48. <!-- given: 2.48 (the lecture) -->", []),
        ("Code `2.48`, formulas $2.48$, and [links](https://2.48) are no prose. arXiv 1609.03499 neither.", []),
    ],
)
def test_unfounded(prose: str, missing: list[str]) -> None:
    assert chapters.unfounded(f"{CHAPTER}\n{prose}\n") == missing


def test_unfounded_takes_a_printed_number_rounded() -> None:
    assert not chapters.unfounded("```text\n2.6349\n```\n\n2.63 or 2.6\n")
    assert chapters.unfounded("```text\n2.6349\n```\n\n2.64\n") == ["2.64"]


def test_borrowed_numbers_are_those_of_another_chapter() -> None:
    comments = "<!-- given: 2.48 (the lecture) --> <!-- given: 2.63 1,000 (chapter 12) -->"
    assert chapters.borrowed(comments) == [(12, "2.63"), (12, "1,000")]
    assert chapters.has_number(CHAPTER, "2.5")
    assert not chapters.has_number(CHAPTER, "2.51")


def test_bare_code_has_no_comments_and_docstrings() -> None:
    one = chapters.bare_code(CHAPTER)
    assert one == chapters.bare_code(CHAPTER.replace("# a comment", "# 注释"))
    assert one != chapters.bare_code(CHAPTER.replace("x is", "x 是"))
    function = '```python\ndef f():\n    """Words."""\n    return "words"\n```\n'
    assert chapters.bare_code(function) == chapters.bare_code(function.replace("Words", "说明"))
    assert chapters.bare_code(function) != chapters.bare_code(function.replace('"words"', '"字"'))
    assert chapters.code_hash(CHAPTER) != chapters.code_hash(CHAPTER.replace("2.5", "2.6"))


def test_save_pictures_marks_them_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(chapters, "PICTURES", tmp_path / "kept")
    chapters.PICTURES.mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    markdown = f"{CHAPTER}\n![A red square](../pictures/red.png)\n"
    assert chapters.pictures(markdown) == ["red.png"]
    assert set(chapters.save_pictures(markdown, tmp_path)) == {"red.png"}
    with Image.open(tmp_path / "kept" / "red.png") as picture:
        assert picture.text["code"] == chapters.code_hash(markdown)
        assert picture.size == (30, 20)
        assert picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)
