"""States in words what a comparison shows and what it does not, no stronger than the evidence."""

from __future__ import annotations

from lmzoo.compare.findings import listed
from lmzoo.compare.results import Results
from lmzoo.compare.sizes import size_range
from lmzoo.compare.statistics import ALPHA
from lmzoo.compare.tuning import at_ends, halved, searches, setting_title


def conclusions(results: Results) -> tuple[str, str]:
    """Return two paragraphs: what can be concluded, and what cannot."""
    return " ".join(_can(results)), " ".join(_cannot(results))


def _can(results: Results) -> list[str]:
    if not results.complete:
        return ["Nothing yet: the comparison is not finished."]
    names = [model.name for model in results.ranked]
    if not names:
        return ["Nothing can be concluded about the order of the models: none has a rank."]
    found = []
    statistics = results.statistics
    if len(results.seeds) < 2:
        found.append(
            "The figures are of one run of each model. They order these runs, not the models: how much a changed seed "
            "moves a loss is not known."
        )
    elif statistics is None:
        found.append("Fewer than two seeds of every model are done, so no difference can be concluded yet.")
    elif statistics.pairs:
        apart = sum(pair.told_apart for pair in statistics.pairs)
        total = len(statistics.pairs)
        which = "no two models can be told apart" if not apart else f"{apart} of {total} pairs of models are told apart"
        if total == 1:
            which = f"the two models {'are' if apart else 'cannot be'} told apart"
        risk = f"; the probability of any wrong claim among them is at most {100 * ALPHA:g} %" if apart else ""
        found.append(f"For this text, these sizes and this budget, {which} with {statistics.seeds} seeds{risk}.")
    checked = [model.name for model in results.ranked if model.checks and all(model.checks.values())]
    if len(checked) == len(names):
        found.append(
            "Every ranked model passed its checks, which run a small form of it: it sees no future token, decodes as "
            "its forward pass predicts, and reports the loss that it should, so the losses have the same meaning."
        )
    if results.tuning:
        settings = listed([setting_title(search["setting"]) for search in searches(results.tuning)])
        found.append(
            f"The {settings} of every model {'were' if ' and ' in settings else 'was'} searched with equal effort."
        )
    return found


def _cannot(results: Results) -> list[str]:
    found = []
    equals: list[str] = []
    if results.statistics is not None:
        equals = [f"{p.first} or {p.second}" for p in results.statistics.pairs if not p.told_apart]
    if equals and len(equals) <= 6:
        found.append(f"These seeds do not show which is better: {'; '.join(equals)}.")
    elif equals:
        found.append(f"For {len(equals)} pairs of models these seeds do not show which one is better.")
    what = "the order" if len(results.ranked) > 1 else "the loss"
    found.append(f"Another text, another size or a longer training may change {what}.")
    if not results.tuning:
        found.append(f"Another recipe may change {what}, too: the recipes were not tuned with equal effort.")
    else:
        found.append(f"Settings of the recipes that were not searched may change {what}, too.")
    if ends := list(dict.fromkeys(name for names in at_ends(results).values() for name in names)):
        found.append(
            f"Better values may exist for {listed(ends)}, since the best one that was tried lies at an end of the grid."
        )
    if halved(results):
        found.append("A recipe that pays off late in the training may have been dropped by successive halving.")
    if size_range(results) is not None:
        found.append("The models differ in size, so architectures with equally many parameters are not compared.")
    failed = [model for model in results.unranked if model.status == "failed"]
    raised = [model.name for model in failed if model.checks and all(model.checks.values())]
    if unsound := [model.name for model in failed if model.name not in raised]:
        found.append(f"About the loss of {listed(unsound)} nothing can be said: a check failed.")
    if raised:
        found.append(f"About the loss of {listed(raised)} nothing can be said: the code failed in a run.")
    if diverged := [model.name for model in results.unranked if model.status == "diverged"]:
        found.append(f"That {listed(diverged)} diverged is a finding about this recipe, not about every recipe.")
    found.append("Speeds are of this machine and this implementation.")
    return found
