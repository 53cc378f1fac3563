"""Converts the equations of a card, which are written for a terminal, to MathML, which browsers draw by themselves.

A line such as `S_t = a_t S_{t-1} + k_t v_t^T    (K, V) per head` has cells that two spaces part: equations and notes.
`_` begins a subscript and `^` a superscript, of one word or of a group in braces or parentheses; names of Greek letters
become the letters, `sum over s of` a sign. Names of settings and words of several letters stay upright.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape

GREEK = {
    **dict(zip(("alpha", "beta", "gamma", "delta", "theta", "lambda", "phi", "pi"), "αβγδθλφπ", strict=True)),
    "Phi": "Φ",
}
SIGNS = {"<=": "≤", ">=": "≥", "->": "→", "...": "…", "-": "−", ".": "·", "*": "∗"}
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<code>`[^`]*`)|(?P<name>[^\W\d_²³][^\W_²³]*(?:_[^\W_²³]+)*'?)"
    r"|(?P<sign><=|>=|->|\.\.\.|//|\|\||\+=|.)"
)
# A subscript without braces: its words may be joined by commas, as in W_gate,e.
_SUBSCRIPT = re.compile(r"-?[^\W_²³]+(?:_[^\W_²³]+)*(?:,[^\W_²³]+)*")
_SQUARES = {"²": "2", "³": "3"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_EQUATION = re.compile(r"(?!for |with |or )(?:[a-z]+ )?([^=:;]*?)\+?=")  # one word may come first, as in log a_t = ...
_NAMES = re.compile(r"[^\W\d_](?:_\w+)?(?:, [^\W\d]\w*)+ ?")  # a letter and further names, as in x, dt = ...
_PROSE_WORD = re.compile(r"(?<![\w`])[a-z]{2,}(?![\w(])")  # not a function, which has a parenthesis
# The first part is as short as possible, so that a subscript in braces, as in x_{i + K/2}, is not split at its `_`.
_IN_PROSE = re.compile(r"(?<!\w)[^\W\d_]\w*?(?:[_^](?:\{[^}]*\}|\([^)]*\)|\w+))*(?!\w)")


def equations(text: str, settings: Collection[str] = ()) -> str:
    """Returns a block of equations as HTML; `settings` are the names of settings of the model."""
    lines = [_line(line, settings) for line in text.rstrip("\n").split("\n")]
    return f'<div class="equations">{"".join(lines)}</div>'


def mathml(text: str, settings: Collection[str] = ()) -> str:
    """Returns one equation as an element `math`."""
    return f"<math>{_Reader(text, settings).read()}</math>"


def is_equation(text: str) -> bool:
    """True for a text with an equals sign that only signs, names and functions stand before."""
    left = _EQUATION.match(text)
    return left is not None and (bool(_NAMES.fullmatch(left[1])) or not _PROSE_WORD.search(left[1]))


def _line(line: str, settings: Collection[str]) -> str:
    if not line.strip():
        return '<div class="gap"></div>'
    indent = len(line) - len(line.lstrip())
    cells = re.split(r"\s{2,}", re.sub(r"\s+(\+?=)\s", r" \1 ", line.strip()))
    style = f' style="padding-left: {0.6 * indent:g}em"' if indent else ""
    if not any(map(is_equation, cells)):
        return f'<div class="prose"{style}>{_prose("   ".join(cells), settings)}</div>'
    first, *notes = (mathml(cell, settings) if is_equation(cell) else _prose(cell, settings) for cell in cells)
    shown = "".join(f'<span class="note">{note}</span>' for note in notes)
    return f'<div class="line"><span{style}>{first}</span><span>{shown}</span></div>'


def _prose(text: str, settings: Collection[str]) -> str:
    """Returns a text as HTML, with the names in it that have a subscript or superscript as MathML."""
    parts: list[str] = []
    end = 0
    for match in _IN_PROSE.finditer(text):
        name = match[0]
        if name in settings and "_" in name:
            shown = f"<code>{escape(name)}</code>"
        elif re.search(r"[_^]", name) or name in GREEK:
            shown = mathml(name, settings)
        else:
            continue
        parts += [escape(text[end : match.start()]), shown]
        end = match.end()
    return "".join([*parts, escape(text[end:])])


class _Reader:
    """Reads an equation from left to right."""

    def __init__(self, text: str, settings: Collection[str]) -> None:
        self.text, self.settings, self.at = text, settings, 0

    def read(self, closing: str = "", until: str = "") -> str:
        """Returns the MathML up to the sign `closing` or the word `until`, or up to the end."""
        found: list[str] = []
        spaced, last = False, ""
        while self.at < len(self.text):
            match = _TOKEN.match(self.text, self.at)
            assert match is not None, self.text
            kind, token = match.lastgroup or "", match[0]
            self.at = match.end()
            if kind == "space":
                spaced = True
                continue
            if token == closing or (until and token == until):
                break
            word = kind == "name" and self.is_word(token)
            if spaced and kind != "sign" and last in ("word", "atom"):
                found.append(f'<mspace width="{0.33 if word or last == "word" else 0.17}em"/>')
            found.append(self.atom(kind, token, last))
            spaced = False
            is_sign = kind == "sign" and token not in _CLOSING  # a group in parentheses is an atom
            last = "word" if word else "sign" if is_sign else "atom"
        return "".join(found)

    def is_word(self, name: str) -> bool:
        """True for a word of several letters that is no function and has no subscript."""
        follows = self.text[self.at : self.at + 1]
        return len(name) > 1 and name not in GREEK and "_" not in name and follows not in ("(", "_")

    def atom(self, kind: str, token: str, last: str) -> str:
        """Returns an atom with its subscript and superscript."""
        sub = ""
        if kind == "number":
            base = f"<mn>{token}</mn>"
        elif kind == "code":
            base = f'<mtext class="code">{escape(token[1:-1])}</mtext>'
        elif kind == "name":
            if token.partition("_")[0] == "sum" and last != "word":
                return self.sum(token)
            if token == "sqrt" and self.text[self.at :].startswith("("):
                self.at += 1
                return f"<msqrt><mrow>{self.read(')')}</mrow></msqrt>"
            base, sub = self.name(token)
        elif token in _CLOSING:
            inner = self.read(_CLOSING[token])
            base = f"<mrow>{_sign(token)}{inner}{_sign(_CLOSING[token])}</mrow>"
        else:
            return _sign(token)
        return self.scripts(base, sub)

    def name(self, token: str) -> tuple[str, str]:
        """Returns the MathML of a name without its subscript, and the subscript."""
        if token in self.settings and len(token) > 1 and not self.text[self.at :].startswith("("):
            return _upright(token, "code"), ""
        head, _, tail = token.partition("_")
        if re.fullmatch(r"[^\W\d_]\d+", head):  # q1
            head, tail = head[0], f"{head[1:]},{tail}" if tail else head[1:]
        if tail and (len(head) == 1 or head in GREEK):
            more = _SUBSCRIPT.match(self.text, self.at - len(tail)) if token.endswith(tail) else None
            if more is not None and "," in more[0]:  # W_gate,e
                tail, self.at = more[0], more.end()
            return self.letter(head), self.subscript(tail)
        head, _, tail = token.rpartition("_")
        if head and len(tail) == 1:  # softmax_s, feed_forward_l
            return _upright(head), self.subscript(tail)
        return self.letter(token), ""

    def letter(self, name: str) -> str:
        """Returns a name without subscripts: a letter is italic, a word is upright."""
        bare = name.rstrip("'")
        shown = GREEK.get(bare, bare) + "′" * (len(name) - len(bare))
        return f"<mi>{escape(shown)}</mi>" if len(bare) == 1 or bare in GREEK else _upright(shown)

    def subscript(self, text: str) -> str:
        parts = [self.letter(part) if not part.isdigit() else f"<mn>{part}</mn>" for part in text.split(",")]
        return "<mo>,</mo>".join(parts)

    def sum(self, token: str) -> str:
        """Returns the sign of a sum, with what stands below it: after `sum over`, or as a subscript."""
        if token != "sum":
            return self.scripts("<mo>∑</mo>", self.subscript(token.partition("_")[2]))
        rest = self.text[self.at :]
        if over := re.match(r" over (?=.*? of\b)", rest):
            self.at += over.end()
            below = self.read(until="of")
            return f"<munder><mo>∑</mo><mrow>{below.replace('<mtext>in</mtext>', '<mo>∈</mo>')}</mrow></munder>"
        if rest.startswith(" of "):
            self.at += 4
        return self.scripts("<mo>∑</mo>", "")

    def scripts(self, base: str, sub: str) -> str:
        """Returns the base with the subscripts and superscripts that follow in the text."""
        sup = ""
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in _SQUARES:
                self.at += 1
                sup += f"<mn>{_SQUARES[sign]}</mn>"
            elif sign in "_^" and self.at + 1 < len(self.text) and not self.text[self.at + 1].isspace():
                self.at += 1
                script = self.script()
                if sign == "_":
                    sub += f"<mo>,</mo>{script}" if sub else script  # k1_{2m}
                else:
                    sup += script
            else:
                break
        if sub and sup:
            return f"<msubsup>{base}<mrow>{sub}</mrow><mrow>{sup}</mrow></msubsup>"
        if sub or sup:
            return f"<{'msub' if sub else 'msup'}>{base}<mrow>{sub or sup}</mrow></{'msub' if sub else 'msup'}>"
        return base

    def script(self) -> str:
        """Reads a subscript or superscript: a group without its braces or parentheses, or a word."""
        sign = self.text[self.at]
        if sign in "{(":
            self.at += 1
            return self.read(_CLOSING[sign])
        word = _SUBSCRIPT.match(self.text, self.at)
        if word is None:
            self.at += 1
            return _sign(sign)
        self.at = word.end()
        return self.subscript(word[0])


def _sign(token: str) -> str:
    return f'<mo stretchy="false">{escape(SIGNS.get(token, token))}</mo>'


def _upright(name: str, css: str = "") -> str:
    attribute = f' class="{css}"' if css else ""
    return f"<mtext{attribute}>{escape(name)}</mtext>"
