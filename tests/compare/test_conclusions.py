"""Tests the paragraphs in words: they claim no more than the evidence."""

from __future__ import annotations

import dataclasses

from lmzoo.compare.conclusions import conclusions
from tests.compare.example import everything, example, model, several_seeds, two_searches


def test_conclusions_of_one_seed_claim_no_difference() -> None:
    can, cannot = conclusions(example())
    assert can.startswith("The figures are of one run of each model.")
    assert "told apart" not in can
    assert "passed its checks" not in can, "no checks are recorded"
    assert "the recipes were not tuned" in cannot
    assert "About the loss of leaky nothing can be said" in cannot
    assert "That wild diverged is a finding about this recipe" in cannot
    assert "differ in size" not in cannot


def test_conclusions_of_several_seeds_count_the_pairs() -> None:
    can, cannot = conclusions(everything())
    assert "3 of 3 pairs of models are told apart with 3 seeds" in can
    assert "at most 5 %" in can
    assert "Every ranked model passed its checks" in can
    assert "The learning rate of every model was searched with equal effort." in can
    assert "Settings of the recipes that were not searched may change the order, too." in cannot
    assert "recipe may change" not in cannot
    assert "which is better" not in cannot


def test_conclusions_name_the_pairs_that_cannot_be_told_apart() -> None:
    close = several_seeds({"a": [1.5, 1.6, 1.4], "b": [1.52, 1.57, 1.45], "c": [2.5, 2.61, 2.4]})
    assert "2 of 3 pairs" in conclusions(close)[0]
    assert "These seeds do not show which is better: a or b." in conclusions(close)[1]
    equal = several_seeds({name: [1.5 + i / 9, 1.6 - i / 9] for i, name in enumerate("abcde")})
    assert "no two models can be told apart with 2 seeds." in conclusions(equal)[0]
    assert "wrong claim" not in conclusions(equal)[0], "nothing is claimed"
    assert "For 10 pairs of models these seeds do not show which one is better." in conclusions(equal)[1]
    pair = several_seeds({"a": [1.5, 1.6, 1.4], "b": [2.5, 2.61, 2.4]})
    assert "this budget, the two models are told apart with 3 seeds; the probability" in conclusions(pair)[0]
    assert "no difference can be concluded yet" in conclusions(dataclasses.replace(equal, statistics=None))[0]


def test_conclusions_name_what_else_may_decide() -> None:
    results = everything()
    models = {**results.tuning["models"], "gpt2.tiny": {**results.tuning["models"]["gpt2.tiny"], "at_end": True}}
    ended = dataclasses.replace(results, tuning={**results.tuning, "models": models})
    assert "Better values may exist for gpt2.tiny" in conclusions(ended)[1]
    assert "dropped by successive halving" not in conclusions(ended)[1]
    assert "Better values may exist for gpt2.tiny" in conclusions(two_searches())[1]
    assert "A recipe that pays off late in the training may have been dropped" in conclusions(two_searches())[1]
    assert "The learning rate and warm-up steps of every model were searched" in conclusions(two_searches())[0]
    broken = dataclasses.replace(model("broken", 1.5), status="failed", loss=None, checks={"causality": True})
    raised = dataclasses.replace(example(), models=[*example().models, broken])
    assert "About the loss of leaky nothing can be said: a check failed." in conclusions(raised)[1]
    assert "About the loss of broken nothing can be said: the code failed in a run." in conclusions(raised)[1]
    sizes = dataclasses.replace(example(), models=[model("a", 1.5, params=100), model("b", 1.6, params=200)])
    assert "The models differ in size" in conclusions(sizes)[1]
    assert "equal cost" not in conclusions(sizes)[1], "they may be matched by FLOPs"
    none = dataclasses.replace(example(), models=example().models[3:])
    assert (
        "a longer training may change the loss." in conclusions(dataclasses.replace(sizes, models=sizes.models[:1]))[1]
    )
    partial = dataclasses.replace(example(), complete=False)
    assert conclusions(partial)[0] == "Nothing yet: the comparison is not finished."
    assert conclusions(none)[0] == "Nothing can be concluded about the order of the models: none has a rank."
