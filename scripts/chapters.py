"""Reads the chapters of the course: their code, what it printed, and the numbers in their prose.

A chapter is a Markdown file in docs/course/en, with a twin of the same name in docs/course/zh. The conventions are
explained in docs/course/README.md, for the authors of chapters.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "docs" / "course"
PICTURES = COURSE / "pictures"
LANGUAGES = ("en", "zh")
# Another CPU rounds differently, and another version of Python has a slightly different corpus pydocs.
TOLERANCE = 0.03
EXACT = 100  # smaller integers number things, and must be equal

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")
_PICTURE = re.compile(r"!\[[^\]]*\]\(\.\./pictures/([\w-]+\.png)\)")
_GIVEN = re.compile(r"<!-- given: (.*?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its info string, its text, and where the text lies in the file."""

    kind: str
    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Step:
    """A block of Python, and the block with what it prints; None if it prints nothing."""

    code: Block
    output: Block | None


def chapters(language: str = "en") -> list[Path]:
    """Returns the files of the chapters of a language, in order."""
    return sorted((COURSE / language).glob("[0-9][0-9]-*.md"))


def blocks(markdown: str) -> list[Block]:
    """Returns the fenced blocks, in order."""
    return [Block(found[1].strip(), found[2], *found.span(2)) for found in _FENCE.finditer(markdown)]


def steps(markdown: str) -> list[Step]:
    """Returns the blocks of Python, each with the block of text between it and the next one.

    Raises ValueError for text that follows no code, and for two blocks of text after one block of code.
    """
    found: list[Step] = []
    for block in blocks(markdown):
        if block.kind == "python":
            found.append(Step(block, None))
        elif block.kind in ("text", "text sample"):
            if not found or found[-1].output is not None:
                raise ValueError(f"this block of text follows no code that printed it:\n{block.text}")
            found[-1] = Step(found[-1].code, block)
    return found


def run(markdown: str, name: str) -> tuple[list[str], dict[str, Any]]:
    """Execute the blocks in the present folder; returns what each printed, and the variables at the end."""
    namespace: dict[str, Any] = {"__name__": f"chapter_{name.replace('-', '_')}"}
    printed = []
    for number, step in enumerate(steps(markdown), start=1):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(step.code.text, f"{name}, block {number}", "exec"), namespace)
        printed.append(out.getvalue())
    return printed, namespace


def problems(markdown: str, printed: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each block whose text in the file is not what was printed."""
    for number, (step, text) in enumerate(zip(steps(markdown), printed, strict=True), start=1):
        if step.output is None:
            if text:
                yield f"block {number} printed a text that the chapter does not show:\n{text}"
        elif step.output.kind == "text sample":
            if abs(len(text) - len(step.output.text)) > 0.2 * len(text):
                yield f"block {number} printed a sample of another length:\n{text}"
        elif not agree(step.output.text, text):
            yield f"block {number} printed\n{text}\nand the chapter shows\n{step.output.text}"


def agree(shown: str, printed: str) -> bool:
    """True if the words are equal, and the numbers equal up to the tolerance."""
    if " ".join(_NUMBER.sub("#", shown).split()) != " ".join(_NUMBER.sub("#", printed).split()):
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(_near(one, other) for one, other in pairs)


def _near(shown: str, printed: str) -> bool:
    one, other = _value(shown), _value(printed)
    if "." not in shown and "e" not in shown and abs(one) < EXACT:
        return one == other
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other)) + _unit(shown)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _unit(number: str) -> float:
    """Returns the unit of the last digit of a decimal fraction; 0 for an integer or a power of ten."""
    return 0.0 if "." not in number or "e" in number else 10.0 ** -len(number.partition(".")[2])


def with_outputs(markdown: str, printed: Sequence[str]) -> str:
    """Returns the chapter with the printed texts in its blocks of text."""
    for step, text in reversed(list(zip(steps(markdown), printed, strict=True))):
        if step.output is None:
            if text:
                end = step.code.stop + len("```\n")
                markdown = f"{markdown[:end]}\n```text\n{text}```\n{markdown[end:]}"
        else:
            markdown = markdown[: step.output.start] + text + markdown[step.output.stop :]
    return markdown


def unfounded(markdown: str) -> list[str]:
    """Returns the numbers of the prose that no block has, rounded, and no comment gives a source for.

    Numbers with a decimal point, with a comma after thousands, or before a percent sign are looked at: the others count
    chapters, layers and the like.
    """
    given = {number for comment in _GIVEN.findall(markdown) for number in _NUMBER.findall(comment)}
    return [number for number in prose_numbers(markdown) if number not in given and not has_number(markdown, number)]


def borrowed(markdown: str) -> list[tuple[int, str]]:
    """Returns the numbers that a comment takes from another chapter ("given: 2.63 (chapter 1)"): (chapter, number)."""
    found = (re.fullmatch(r"([^()]*)\(chapter (\d+)\)", comment) for comment in _GIVEN.findall(markdown))
    return [(int(one[2]), number) for one in found if one for number in _NUMBER.findall(one[1])]


def prose_numbers(markdown: str) -> list[str]:
    """Returns the measured-looking numbers outside of code, formulas, comments and addresses."""
    text = _FENCE.sub("", markdown)
    text = re.sub(r"<!--.*?-->|\]\([^)]*\)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|arXiv[: ]\S+", " ", text, flags=re.DOTALL)
    found = re.finditer(_NUMBER.pattern + r"(?= ?%)?", text)
    return [
        one[0] for one in found if "." in one[0] or "," in one[0] or re.match(r" ?%", text[one.end() : one.end() + 2])
    ]


def has_number(markdown: str, number: str) -> bool:
    """True if a block of the chapter has the number, possibly with more digits, or as a share in place of percent."""
    known = [_value(other) for block in blocks(markdown) for other in _NUMBER.findall(block.text)]
    half = 0.5 * (_unit(number) or 1.0) * (1 + 1e-6)
    return any(abs(_value(number) - scale * value) <= half for value in known for scale in (1.0, 100.0))


def pictures(markdown: str) -> list[str]:
    """Returns the names of the pictures that a chapter shows."""
    return _PICTURE.findall(markdown)


def bare_code(markdown: str) -> list[str]:
    """Returns each block of code without comments and docstrings: equal in two chapters that do the same."""
    trees = [ast.parse(step.code.text) for step in steps(markdown)]
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body[:1] = [ast.Pass()]
    return [ast.unparse(tree) for tree in trees]


def code_hash(markdown: str) -> str:
    """Returns a hash of the code, which a picture holds that was drawn by it."""
    return hashlib.sha256("\n".join(bare_code(markdown)).encode()).hexdigest()[:16]


def save_pictures(markdown: str, folder: Path) -> Mapping[str, int]:
    """Copy the pictures that a run left in `folder` to the documents, marked with the hash of the code.

    Returns their sizes in bytes.
    """
    from PIL import Image, PngImagePlugin

    sizes = {}
    for name in pictures(markdown):
        mark = PngImagePlugin.PngInfo()
        mark.add_text("code", code_hash(markdown))
        with Image.open(folder / name) as picture:
            small = picture.convert("RGB").quantize(256)
            small.save(PICTURES / name, pnginfo=mark, optimize=True)
        sizes[name] = (PICTURES / name).stat().st_size
    return sizes
