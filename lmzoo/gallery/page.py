"""Makes the page of a family: what its registry entry says, what its code shows, and what was measured.

The same sections make a page of the documentation site and the file that `lmzoo show NAME --open` opens. Everything is
HTML without a script; all text of the entry is escaped.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import NamedTuple

from lmzoo import humanize, registry
from lmzoo.drawing import svg
from lmzoo.errors import ConfigError
from lmzoo.gallery import card, differences, imports
from lmzoo.gallery.checked import checks_html
from lmzoo.gallery.facts import Facts, gather
from lmzoo.gallery.measured import number, results_html
from lmzoo.gallery.states import state_svg

CARD_FIRST = (card.IDEA, card.EQUATIONS)  # sections of the card that come before what the code shows
FRAME = 'rect class="frame"'  # in a drawing: a module whose parts are not joined by a composer of layers
REFERENCE = "llama"  # the family whose state is drawn beside that of each other one


class Section(NamedTuple):
    """A part of the page: its title and its HTML."""

    title: str
    body: str


def lead(facts: Facts) -> str:
    """Returns the beginning of the page: a sentence, and the most important figures."""
    model, family = facts.model, facts.family
    traits, active = model.traits, model.num_params(active=True)
    T = model.config.context_length
    share = "" if active == model.num_params() else f"{humanize.count(active)} for a token"
    field = traits.receptive_field
    cells = {
        "Parameters": (humanize.count(model.num_params()), share or f"of {facts.name}"),
        "FLOPs per token": (humanize.count(model.flops_per_token(T)), f"forward, in {T:,} tokens"),
        "Decoding state": (humanize.size(model.state_bytes(T)), f"{traits.state_growth}, at {T:,} tokens"),
        "Sees": ("all tokens" if field is None else f"{field:,} tokens", "up to the present one"),
        "Past its context": ("goes on" if traits.extrapolates else "slides a window", ""),
        "Year": (str(family.facts.get("year", humanize.MISSING)), str(family.facts.get("kind", ""))),
    }
    summary = family.facts.get("summary")
    sentence = f'<p class="lead">{escape(str(summary))}.</p>' if summary else ""
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, (value, more) in cells.items()
    )
    return f'{sentence}<dl class="facts card">{shown}</dl>'


def sections(facts: Facts) -> list[Section]:
    """Returns the sections of the page in their order; a section without content is left out."""
    texts = card.sections(facts.family.card, facts.settings) if facts.family.card else {}
    before = [Section(title, texts.pop(title)) for title in CARD_FIRST if title in texts]
    return [
        section
        for section in [
            *before,
            Section("The blocks", _blocks(facts)),
            Section("The state while decoding", _state(facts)),
            Section("Measured", results_html(facts.family.results, all_bits())),
            Section("Checks", checks_html(facts.family)),
            *(Section(title, body) for title, body in texts.items()),
            Section("The code", _code(facts)),
            Section("Differs from", _differs(facts)),
            Section("BibTeX", card.preformatted(facts.family.papers.strip()) if facts.family.papers else ""),
        ]
        if section.body
    ]


def all_bits() -> list[float]:
    """Returns the bits per byte of all families that were measured."""
    found = []
    for family in registry.families().values():
        try:
            found.append(number(family.results, "bits_per_byte"))
        except ConfigError:  # of a user's registry: no reason to lose the page of another family
            continue
    return sorted(bits for bits in found if bits is not None)


def _blocks(facts: Facts) -> str:
    drawn = svg(facts.drawing)
    frames = (
        " A frame with a title holds the parts of one class in the order of its constructor; how they are joined, its "
        "source says."
    )
    return (
        f'<p class="caption">{escape(facts.name)}, drawn from its modules, from the input at the top to the logits. A '
        "line on the left of a block is the residual stream, to which the block adds its result. Blue parts keep a "
        "state while decoding, grey ones multiply by weights. Point at a part to see its costs."
        f'{frames if FRAME in drawn else ""}</p><div class="scroll">{drawn}</div>'
    )


def _state(facts: Facts) -> str:
    traits = facts.model.traits
    words = {"none": "There is none", "constant": "Its size is constant"}.get(
        traits.state_growth, f"Its growth is {traits.state_growth}"
    )
    if not traits.extrapolates and traits.state_growth != "none":
        words += f" up to {facts.model.config.context_length:,} tokens, its context"
    caption = f"{words}: bytes of one sequence of {facts.name} after so many tokens, drawn to scale"
    if facts.family.name == REFERENCE:
        drawn = state_svg(facts.states)
    else:
        other = gather(REFERENCE)
        caption += f"; the thin bars are those of {other.name}"
        drawn = state_svg(facts.states, other.name, other.states)
    return f'<p class="caption">{escape(caption)}.</p><div class="scroll">{drawn}</div>'


def _code(facts: Facts) -> str:
    if not facts.source:
        return ""
    common = ", ".join(f"<code>{escape(name)}</code>" for name in sorted(imports.common()))
    return (
        f"<p><code>{escape(facts.file)}</code>, and the modules of lmzoo that it uses, without those that most "
        f'families use ({common}):</p><div class="scroll">'
        f"{imports.graph_svg(facts.family.name, facts.source)}</div>"
        f"<details open><summary>{escape(facts.file)}</summary>{highlighted(facts.source)}</details>"
    )


def highlighted(source: str) -> str:
    """Returns Python source as HTML with the classes of Pygments."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="highlight"))


def _differs(facts: Facts) -> str:
    """Returns the differences from related families."""
    parts = []
    for name in differences.compared(facts):
        lines = differences.lines_of_both(differences.sources()[name], facts.source)
        parts.append(
            f'<details id="differs-from-{escape(name)}"><summary>{escape(name)}: {differences.counts(lines)}</summary>'
            f"{differences.difference_html(lines)}</details>"
        )
    caption = (
        "The families that its description names, or whose code is most similar: red lines are in their files, green "
        f"ones in {facts.file}."
    )
    return f'<p class="caption">{escape(caption)}</p>{"".join(parts)}' if parts else ""


def asset(name: str) -> str:
    """Returns a file of this package."""
    return resources.files("lmzoo.gallery").joinpath(name).read_text(encoding="utf-8")


def standalone(facts: Facts) -> str:
    """Returns the whole page as one HTML file."""
    from pygments.formatters import HtmlFormatter

    from lmzoo.compare.report import page

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    css = f"{asset('gallery.css')}{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"
    parts = [f"<h1>{escape(facts.title)}</h1>", lead(facts)]
    parts += [f"<h2>{escape(section.title)}</h2>\n{section.body}" for section in sections(facts)]
    return page(f"{facts.title} in lmzoo", parts, css=css)
