"""Tests comparisons at several sizes: the curves of real small runs, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lmzoo import humanize
from lmzoo.compare import series
from lmzoo.compare.records import load_results
from lmzoo.compare.results import CellResult, write_results
from lmzoo.compare.scaling import Crossing, fit_curve
from lmzoo.compare.series import Scaling, compare_sizes, fit, markdown, parse_sizes
from lmzoo.errors import ConfigError, LmzooError
from lmzoo.runs import inputs
from lmzoo.runs.lock import locked
from tests.compare.example import example, model

SETTINGS: dict[str, Any] = {"steps": 6, "batch_size": 2, "context_length": 16, "eval_every": 6}
SIZES = (1e4, 1e5, 1e6, 1e7)


def test_parse_sizes_sorts_them() -> None:
    assert parse_sizes("1M, 300k,3e6") == [3e5, 1e6, 3e6]


@pytest.mark.parametrize("text", ["1M,2M", "1M,1M,2M,3M", "1M,2M,big", ""])
def test_parse_sizes_names_the_rule(text: str) -> None:
    with pytest.raises(ConfigError, match="sizes="):
        parse_sizes(text)


def test_compare_sizes_makes_a_comparison_of_each_size(text: Path, tmp_path: Path) -> None:
    found = compare_sizes(["mlp", "bigram"], str(text), tmp_path, sizes="2k,4k,8k", settings=SETTINGS)
    points = found.points["mlp"]
    assert [point.size for point in points] == [2000, 4000, 8000]
    for point in points:
        results = json.loads((tmp_path / f"params={point.size:.0f}" / "results.json").read_text())
        (row,) = [row for row in results["models"] if row["name"] == "mlp"]
        assert (point.params, list(point.losses)) == (row["params"], [row["loss"]])
        assert point.params == pytest.approx(point.size, rel=0.03)
        assert point.flops == 3 * row["flops_per_token"] * 6 * 2 * 16
    expected = fit_curve([point.flops for point in points], [point.losses for point in points])
    assert (found.curves["mlp"].E, found.curves["mlp"].a) == (expected.E, expected.a)
    assert found.problems == {"bigram": "has the same training FLOPs at several sizes"}
    content = json.loads((tmp_path / "scaling.json").read_text())
    assert content["models"]["mlp"]["curve"]["E"] == expected.E
    assert content["models"]["bigram"]["curve"] is None
    table = (tmp_path / "scaling.md").read_text()
    assert "bigram has the same training FLOPs at several sizes, so it has no curve" in table
    assert "One seed gives no intervals." in table


def test_compare_sizes_reads_the_text_once(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = inputs.load_corpus
    monkeypatch.setattr(inputs, "load_corpus", lambda data, **more: read.append(data) or plain(data, **more))
    settings = SETTINGS | {"steps": 1}
    compare_sizes(["bigram"], str(text), tmp_path, sizes="2k,4k,8k", settings=settings)
    assert read == [str(text)]


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ("2k,4k,8k", {"match": "params=1k"}, "match cannot be given"),
        ("2k,4k,1e30", {}, "mlp"),
        ("2k,4k", {}, "needs 3 different sizes"),
        ("2k,4k,8k", {"budget": "flops=1G"}, "'flops=1G' cannot be given: sizes="),
        ("2k,4k,8k", {"budget": "seconds=9"}, "must differ in FLOPs of training"),
    ],
)
def test_compare_sizes_refuses_bad_input_before_anything_is_written(
    text: Path, tmp_path: Path, sizes: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LmzooError, match=message):
        compare_sizes(["mlp"], str(text), tmp_path / "out", sizes=sizes, settings=SETTINGS, **options)
    assert not (tmp_path / "out").exists()


def test_compare_sizes_refuses_a_directory_in_which_another_one_works(text: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match=r"^out=.* is being trained in by another process$"):
        compare_sizes(["mlp"], str(text), tmp_path, sizes="2k,4k,8k", settings=SETTINGS)
    assert not any(tmp_path.iterdir())


def comparison(size: float, *, seeds: int) -> Any:
    """Results in which "steep" is worse than "flat" at small sizes and better at large ones."""
    rows = []
    for name, E, a in (("flat", 1.0, 0.1), ("steep", 0.9, 0.2)):
        base = E + (6 * size * 1000) ** -a * (20 if name == "flat" else 180)
        losses = [base + 0.001 * n * (1 if name == "flat" else -1) for n in range(seeds)]
        cells = [CellResult(seed=n, run="r", loss=loss) for n, loss in enumerate(losses)]
        rows.append(model(name, losses[0], params=int(size), flops_per_token=2 * size, tokens=1000, cells=cells))
    return dataclasses.replace(example(), models=rows)


def test_fit_says_where_curves_cross() -> None:
    found = fit({size: comparison(size, seeds=3) for size in SIZES})
    assert found.curves["flat"].a == pytest.approx(0.1, abs=0.02)
    assert found.curves["steep"].a == pytest.approx(0.2, abs=0.02)
    (crossing,) = found.crossings
    assert (crossing.below, crossing.above) == ("flat", "steep")
    text = markdown(found)
    assert "| model | 10.0 k params |" in text
    assert "flat has the lower loss up to" in text
    assert "of the draws of the bootstrap" in text
    assert "Three sizes fix" not in text
    json.loads(series.to_json(found))


@pytest.mark.parametrize(
    ("share", "note"),
    [
        (
            0.97,
            "a has the lower loss up to 3.00 T training FLOPs (2.00 T to 4.00 T; they cross in 97 % of the draws",
        ),
        (0.6, "The curves of a and b cross at 3.00 T training FLOPs, but in 60 % of the draws of the bootstrap alone"),
        (
            None,
            "The curves of a and b cross at 3.00 T training FLOPs; with one seed it is not known how certain that is.",
        ),
    ],
)
def test_notes_call_a_crossing_a_finding_only_if_it_is_certain(share: float | None, note: str) -> None:
    interval = None if share is None else (2e12, 4e12)
    crossing = Crossing(below="a", above="b", flops=3e12, share=share, interval=interval)
    (found,) = [line for line in series.notes(Scaling(sizes=SIZES, crossings=[crossing])) if " cross " in line]
    assert found.startswith(note)
    assert ("lower loss up to" in found) == (share == 0.97)


def test_notes_say_what_a_curve_at_a_bound_does_not_show() -> None:
    flops = [1e6, 1e7, 1e8]
    curves = {"falling": [2.0, 1.6, 1.1], "rising": [2.0, 2.1, 2.2], "usual": [2.0, 1.6, 1.5]}
    found = series.Scaling(sizes=[1, 2, 3], curves={n: fit_curve(flops, [[x] for x in y]) for n, y in curves.items()})
    text = markdown(found)
    assert "E = 0, the least that is allowed, fits best for falling: these sizes show no limit." in text
    assert "The losses of rising do not fall with the size, so nothing follows from the exponent a." in text


def test_fit_gives_the_same_files_from_results_that_are_read_again(tmp_path: Path) -> None:
    by_size = {size: comparison(size, seeds=1) for size in SIZES}
    by_size = {size: dataclasses.replace(found, models=found.models[::-1]) for size, found in by_size.items()}
    assert by_size[1e4].models != by_size[1e4].ranked
    read = {}
    for size, results in by_size.items():
        write_results(results, tmp_path)
        read[size] = load_results(tmp_path)
    assert markdown(fit(by_size)) == markdown(fit(read))
    assert series.to_json(fit(by_size)) == series.to_json(fit(read))


def test_markdown_escapes_names() -> None:
    by_size = {size: comparison(size, seeds=1) for size in SIZES}
    for size, results in by_size.items():
        flat, steep = results.models
        by_size[size] = dataclasses.replace(results, models=[dataclasses.replace(flat, name="<b>|*"), steep])
    text = markdown(fit(by_size))
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert any(line.startswith("| \\<b\\>\\|\\* |") for line in text.splitlines())
    assert "The curves of \\<b\\>\\|\\* and steep cross" in text


def test_fit_of_a_comparison_that_is_not_finished_gives_no_curve_to_models_that_are_not_done() -> None:
    by_size = {size: comparison(size, seeds=3 if size == 1e4 else 2) for size in SIZES}
    new = dataclasses.replace(by_size[1e5].models[0], name="new")
    models = [*by_size[1e5].models, new]
    by_size[1e5] = dataclasses.replace(by_size[1e5], models=models, complete=False)
    found = fit(by_size)
    assert found.curves == {}
    assert found.problems == {
        "flat": "has 2 to 3 seeds, not the same number at each size",
        "steep": "has 2 to 3 seeds, not the same number at each size",
        "new": "has no loss at 10.0 k parameters",
    }
    text = markdown(found)
    assert "- This comparison is not finished: run the same command again" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| new")]
    assert [cell.strip() == humanize.MISSING for cell in row.split("|")[2:6]] == [True, False, True, True]
    assert "One seed gives no intervals." not in text
    assert "is not finished" not in markdown(fit({size: comparison(size, seeds=2) for size in SIZES}))


def test_fit_gives_no_curve_without_a_loss_at_every_size() -> None:
    by_size = {size: comparison(size, seeds=1) for size in SIZES[:3]}
    failed = dataclasses.replace(by_size[1e5].models[0], status="failed")
    by_size[1e5] = dataclasses.replace(by_size[1e5], models=[failed, by_size[1e5].models[1]])
    found = fit(by_size)
    assert found.problems == {"flat": "has no loss at 100 k parameters"}
    assert list(found.curves) == ["steep"]
    text = markdown(found)
    assert "Three sizes fix the three parameters: only more sizes can show" in text
    assert "One seed gives no intervals." in text
