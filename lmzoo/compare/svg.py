"""Writes the figures of a report as SVG files for papers, by vl-convert, which needs no browser."""

from __future__ import annotations

import json
import re
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from lmzoo.compare.activations import read_activations
from lmzoo.compare.figure import Figure, Spec
from lmzoo.compare.figures import figures
from lmzoo.compare.results import Results
from lmzoo.errors import InputError
from lmzoo.storage import atomic

FOLDER = "figures"
WIDTH = 560  # pixels
FONT = "Helvetica, Arial, sans-serif"


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write each figure with each choice of its x axis to `folder`/figures, such as `loss-tokens.svg`.

    `folder` is the directory of the comparison, whose runs are read too. Returns the paths. Raises `InputError` without
    vl-convert, before anything is written.
    """
    try:
        converter: Any = import_module("vl_convert")
    except ImportError:
        raise InputError(
            "figures need vl-convert-python: pip install vl-convert-python, or '.[report]' in the checkout"
        ) from None
    target = folder / FOLDER
    drawn = {
        target / f"{figure.name}-{axis.field}.svg": converter.vegalite_to_svg(for_paper(figure.drawn(axis), figure))
        for figure in figures(results, read_activations(results, folder))
        for axis in figure.axes
    }
    target.mkdir(parents=True, exist_ok=True)
    for path, content in drawn.items():
        atomic.write_file(path, content)
    return list(drawn)


def for_paper(spec: Spec, figure: Figure) -> Spec:
    """Return the specification with a fixed width, the light colors, and a legend if the models are only colors."""
    spec = {**spec, "width": WIDTH}
    if figure.legend:
        for channel in spec["encoding"].keys() & {"color", "strokeDash"}:
            spec["encoding"][channel]["legend"] = {"orient": "right", "values": list(figure.models)}
    if "value" in spec["encoding"].get("color", {}):  # a figure of one model, whose name nothing else shows
        spec["title"] = {"text": figure.description, "anchor": "start", "fontSize": 12, "fontWeight": "normal"}
    colors = _light_colors()
    text = re.sub(r"var\(--(\w+)\)", lambda name: colors.get(name[1], name[0]), json.dumps(spec))
    found: Spec = json.loads(text)
    found["config"] |= {"font": FONT, "background": None}
    return found


def _light_colors() -> dict[str, str]:
    """Return the colors of the light report by the names of their CSS variables."""
    css = resources.files("lmzoo.compare").joinpath("report.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--(\w+): (#\w+)", css.partition("}")[0]))
