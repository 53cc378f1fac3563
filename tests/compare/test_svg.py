"""Tests the figures for papers: SVG with light colors and a legend."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lmzoo.compare.figures import figures
from lmzoo.compare.svg import for_paper, write_figures
from lmzoo.errors import InputError
from lmzoo.runs.metrics import METRICS_FILE
from tests.compare.example import HOSTILE, everything, example, model


def test_write_figures_draws_each_axis(tmp_path: Path) -> None:
    paths = write_figures(everything(), tmp_path)
    assert [path.stem for path in paths] == [
        "ranking-loss",
        *(f"loss-{axis}" for axis in ("tokens", "flops", "seconds")),
        "sensitivity-value",
        "positions-position",
        "classes-loss",
        *(f"cost-{axis}" for axis in ("decode_tokens_per_s", "train_tokens_per_s")),
        *(f"cost-{axis}" for axis in ("state_bytes", "params", "flops_per_token")),
    ]
    for path in paths:
        content = path.read_text(encoding="utf-8")
        root = ET.fromstring(content)
        words = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
        assert any("gpt2.tiny" in (word or "") for word in words), path
        assert "var(" not in content
        assert "#0072b2" in content  # the first color, light
        assert HOSTILE not in content
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in paths)


def test_for_paper_has_a_legend_of_what_is_drawn_where_models_are_only_colors() -> None:
    named = {figure.name: for_paper(figure.drawn(figure.axes[0]), figure) for figure in figures(example())}
    legend = named["loss"]["encoding"]["color"]["legend"]
    assert legend["values"] == ["best", "close", "slow", "wild"], "not leaky, which has no curve"
    assert named["cost"]["encoding"]["color"]["legend"] is None
    assert named["ranking"]["width"] == 560


def test_for_paper_keeps_a_name_that_looks_like_a_color() -> None:
    named = dataclasses.replace(example(), models=[model("var(--none)", 1.5)])
    (first, *_) = figures(named)
    assert first.name == "ranking"
    assert "var(--none)" in json.dumps(for_paper(first.drawn(first.axes[0]), first))


def test_write_figures_draws_the_activations_of_the_runs(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "best"
    run.mkdir(parents=True)
    statistics = {"residual_rms": [1, 2], "state_norm": [[1, 2.0], [2, 3.0]], "router_load": [[0.5, 1.5]]}
    statistics["grad_norms"] = {"matrix": 0.5, "embedding": 0.2}
    lines = [
        {"step": n, "split": "val", "loss": 2.0, "tokens": n, "activations": {**statistics, "largest_logit": n}}
        for n in (1, 2)
    ]
    (run / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = dataclasses.replace(example(), models=[model("best", 1.5)], references=[])
    texts = {path.stem: path.read_text(encoding="utf-8") for path in write_figures(results, tmp_path)}
    for name, text in (
        ("largest-logit-tokens", ">largest logit<"),
        ("state-norm-position", ">norm of the state<"),
        ("router-load-tokens", ">load of an expert, even share = 1<"),
        ("activations-1-tokens", ">Residual RMS of best after each block while training<"),
        ("gradients-1-tokens", ">Gradient norm of best by role of parameters while training<"),
        ("gradients-1-tokens", ">embedding<"),
    ):
        assert text in texts[name]
        assert "var(--" not in texts[name]
    assert ">best<" in texts["router-load-tokens"], "the legend"


def test_write_figures_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"^figures need vl-convert-python: pip install vl-convert-python"):
        write_figures(example(), tmp_path)
    assert not (tmp_path / "figures").exists()
