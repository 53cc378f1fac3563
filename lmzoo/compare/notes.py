"""Headline and caveats of a comparison as sentences, made from the results alone."""

from __future__ import annotations

from lmzoo import humanize
from lmzoo.compare.findings import PERCENT, first_places, listed, seed_notes
from lmzoo.compare.protocol import is_carried, state_note
from lmzoo.compare.results import Results, same_steps
from lmzoo.compare.sizes import match_notes, size_range
from lmzoo.compare.tuning import tune_notes

RECIPES = (
    "The recipe of each model (learning rate and so on) comes from its preset, unless the command set another. The "
    "recipes were not tuned with equal effort, and another budget can change the order."
)


def text_seen(results: Results) -> str:
    """Name the training text on which n-grams are counted."""
    who = "the models" if same_steps(results) else "the model with the most steps"
    return f"training text that {who} saw{' with the first seed' if len(results.seeds) > 1 else ''}"


def headline(results: Results) -> str:
    """State the finding in one or two sentences, no stronger than the evidence."""
    ranked = results.ranked
    if not ranked:
        return "No model has a rank: see the reasons below."
    text = "" if results.complete else "Not finished; so far, "
    if len(results.seeds) > 1:
        return ("" if results.complete else "Not finished. ") + first_places(results) + _ngram_sentence(results)
    best, equal = ranked[0], [model.name for model in ranked if model.loss == ranked[0].loss]
    assert best.loss is not None
    if len(equal) > 1:
        text += f"{listed(equal)} have the same validation loss, {best.loss:.3f} nats per token"
        others = ", the lowest (one seed each)" if len(equal) < len(ranked) else " (one seed each)"
        return f"{text}{others}.{_ngram_sentence(results)}"
    lowest = "the lowest validation loss," if len(ranked) > 1 else "a validation loss of"
    text += f"{best.name} has {lowest} {best.loss:.3f} nats per token"
    if best.bits_per_byte is not None:
        text += f" ({best.bits_per_byte:.3f} bits per byte)"
    if len(ranked) > 1 and ranked[1].loss is not None:
        text += f", {ranked[1].loss - best.loss:.3f} below {ranked[1].name} (one seed each)"
    return f"{text}.{_ngram_sentence(results)}"


def _ngram_sentence(results: Results) -> str:
    """State how many models beat the best n-gram: with several seeds, if their whole interval is below it."""
    reference = results.best_reference
    if reference is None or (len(results.seeds) > 1 and results.statistics is None):
        return ""
    ahead = [model.name for model in results.ranked if model.loss is not None and model.loss < reference.loss]
    by = ""
    if results.statistics is not None and ahead:
        by = f", with the whole {PERCENT} interval"
        ahead = [name for name in ahead if results.statistics.means[name].high < reference.loss]
    all_models = len(results.ranked)
    who = f"{len(ahead)} of {all_models} models beat" if ahead else "No model beats"
    if len(ahead) == 1:
        who = f"{'Only ' if all_models > 1 else ''}{ahead[0]} beats"
    return f" {who} the best counted n-gram ({reference.name}, {reference.loss:.3f}){by}."


def context_notes(results: Results) -> list[str]:
    """State for each model with a longer context of its own that the comparison cuts it."""
    length = results.budget["context_length"]
    return [
        f"{name} sees {length} tokens of context here, not its own {own}: all models get the shortest context of all, "
        f"or the one of --set context_length=N"
        for name, own in results.cut_contexts.items()
    ]


def entropy_notes(results: Results) -> list[str]:
    """State the entropy rate of a synthetic source, and how far above it each model is."""
    rate = results.corpus.get("entropy_rate")
    if rate is None:
        return []
    text = f"The entropy rate of {results.corpus['name']} is {rate['nats']:.3f} nats per token: no model has a lower "
    text += "expected loss"
    above = {model.name: model.loss - rate["nats"] for model in results.ranked if model.loss is not None}
    if above:
        text += f". Nats above it: {', '.join(f'{name} {nats:.3f}' for name, nats in above.items())}"
    if any(nats < 0 for nats in above.values()):
        text += " (a negative number is chance)"
    return [text]


def notes(results: Results) -> list[str]:
    """List the caveats, most important first."""
    several = len(results.seeds) > 1
    one = "One seed was run for each model, so the variation of the loss between seeds is not known: a difference may "
    found = seed_notes(results) if several else [f"{one}be chance."]
    found += [
        f"{'For each seed, every' if several else 'Every'} model saw the same tokens in the same order"
        f"{'' if same_steps(results) else ', as far as its budget went'}, and was evaluated on every token of "
        f"{'a half of ' if results.tuning else ''}the validation split.",
        *(tune_notes(results) or [RECIPES]),
    ]
    if results.budget.get("documents") == "isolated":
        found.append(
            "Documents are isolated, in training and evaluation: no prediction crosses the beginning of a document, "
            "whose first token is not predicted. Documents longer than the context are cut; each piece starts anew"
            f"{' (in training, and for losses by position)' if is_carried(results) else ''}."
        )
    found += [note] if (note := state_note(results)) else []
    found += match_notes(results)
    if (sizes := size_range(results)) is not None:
        found.append(
            f"The models differ in size: {humanize.count(sizes[0])} to {humanize.count(sizes[1])} parameters. The "
            "ranking compares these models, not their architectures with equally many parameters."
        )
    limits = results.bigram_limits
    if limits:
        found.append(
            f"On the {text_seen(results)}, no bigram table can have a lower loss than {limits['train']:.3f} nats; a "
            f"table of the counts, each increased by one, has {limits['val']:.3f} on the evaluated text."
        )
    if results.references:
        counted, window = results.references[0].counted_tokens, results.budget["context_length"]
        seen = min(results.budget["tokens"], results.corpus["train_tokens"])
        part = "a part of " if counted < seen - 2 * window else ""  # one epoch leaves out up to two windows
        found.append(
            f"The n-grams were counted on {part}the {text_seen(results)}, each window once "
            f"({humanize.count(counted)} tokens), and like the models they see nothing before their "
            f"{'row' if is_carried(results) else f'window of {window} tokens'}."
        )
    if results.corpus["origin"]:
        found.append(
            f"{results.corpus['name']} was built from {results.corpus['origin']}: another version of Python gives "
            f"another text, and other losses."
        )
    found += [f"{note}." for note in [*entropy_notes(results), *context_notes(results)]]
    if results.unranked:
        found.append(
            "A model without a rank is part of the result: a model that diverged did so with this recipe; a model that "
            "fails a check may see future tokens, so its loss would mean nothing; one whose code fails has none."
        )
    precisions: dict[str, list[str]] = {}
    for model in results.ranked:
        if "precision" in model.config:
            precisions.setdefault(model.config["precision"], []).append(model.name)
    if precisions.keys() - {"float32"}:
        trained = "; ".join(f"{precision}: {', '.join(names)}" for precision, names in sorted(precisions.items()))
        found.append(
            f"Precision in training: {trained}. With precision = 'auto' it depends on the machine and on the size of "
            "the model; another precision gives slightly other losses."
        )
    found.append("Speeds were measured on this machine under its load at the time; they vary by some per cent.")
    at_once = max((cell.at_once for model in results.models for cell in model.cells), default=1)
    if at_once > 1:
        threads = humanize.number(results.hardware["threads"], "CPU thread")
        found.append(
            f"Up to {at_once} runs were made at once, each with {threads}. The "
            "speeds were measured afterwards, alone, with as many threads; the seconds of training are of runs that "
            "shared the machine."
        )
    if not results.complete:
        found.insert(0, "This comparison is not finished: run the same command again to continue it.")
    return found
