"""Tests of `lmzoo.gallery.imports`: the modules that a family uses."""

from __future__ import annotations

from xml.etree import ElementTree

from lmzoo.gallery.differences import sources
from lmzoo.gallery.imports import COLUMNS, common, distinctive, graph, graph_svg, imported, used


def test_imported_names_files_of_layers_and_algorithms_in_order() -> None:
    source = (
        "from lmzoo.layers.stack import Residual\nfrom lmzoo.ops import rope\nfrom lmzoo.configs import require\n"
        "from lmzoo import decoder\nimport torch\n"
    )
    assert imported(source) == ["layers.stack", "ops.rope", "decoder"]


def test_graph_reaches_the_algorithms_below_the_layers() -> None:
    edges = graph(sources()["mamba"])
    assert "layers.mamba" in edges[""]
    assert "ops.selective_scan" in edges["layers.mamba"]
    assert {module.partition(".")[0] for module in edges if module} <= {*COLUMNS}
    assert {other for others in edges.values() for other in others} | {""} == set(edges)


def test_common_are_modules_of_most_families() -> None:
    assert "layers.stack" in common()
    assert "layers.mamba" not in common()


def test_distinctive_leaves_them_out() -> None:
    edges = distinctive(sources()["mamba"])
    assert not common() & {*edges, *(other for others in edges.values() for other in others)}
    assert used(sources()["mamba"]) == [module for module in edges if module]
    assert used("") == []


def test_graph_svg_draws_each_module_and_each_import() -> None:
    edges = distinctive(sources()["mamba"])
    text = graph_svg("<mamba>", sources()["mamba"])
    root = ElementTree.fromstring(text)
    assert len(root.findall("rect")) == len(edges)
    assert len(root.findall("path")) == sum(map(len, edges.values()))
    assert "&lt;mamba&gt;" in text
