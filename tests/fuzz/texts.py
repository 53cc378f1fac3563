"""Cases of texts: tokenizers and generation with any text."""

from __future__ import annotations

import random
from collections.abc import Callable

from lmzoo.data.tokenizers import StreamDecoder, load_tokenizer, train_tokenizer
from lmzoo.errors import LmzooError
from lmzoo.generation import generate_text, generate_texts
from lmzoo.runs.run import load_run
from lmzoo.sampling import SamplingConfig
from tests.fuzz import values
from tests.fuzz.watch import Case, Place


def case(draw: random.Random, place: Place) -> Case:
    """Draws a tokenizer and a text, or a prompt and stop strings."""
    spec = draw.choice(
        ("char", "char+unk", "byte", "bpe:300", "bpe:256", values.text(draw), "bpe:" + str(values.number(draw)))
    )
    train, text = values.text(draw) * 3, values.text(draw)
    ids = [values.number(draw) if draw.random() < 0.2 else draw.randrange(300) for _ in range(5)]
    n, stop = draw.choice((0, 3, 5, values.number(draw))), draw.choice(((), text, ("",), (text, "a"), 3, [None]))

    def both_ways() -> None:
        tokenizer = train_tokenizer(spec, [train])
        try:
            encoded = tokenizer.encode(text)
        except LmzooError:
            encoded = []
        else:
            assert tokenizer.decode(encoded) == text or spec == "char+unk", "the text changed"
        stream = StreamDecoder(tokenizer)
        assert "".join(map(stream.feed, encoded)) + stream.finish() == tokenizer.decode(encoded)
        tokenizer.decode(ids)

    def generated() -> None:
        model, tokenizer, _ = load_run(place.base / "run")
        if isinstance(n, int) and n > 1000:
            pieces = generate_text(model, tokenizer, text, n, stop=stop)  # type: ignore[arg-type]
            next(pieces, None)
            return
        list(generate_text(model, tokenizer, text, n, SamplingConfig(0.5), stop=stop))  # type: ignore[arg-type]
        generate_texts(model, tokenizer, "1 sheep", n, 3, stop=stop)  # type: ignore[arg-type]

    def saved() -> None:
        load_tokenizer(place.base / "run").save(place.pipe)

    ways: dict[str, Callable[[], object]] = {
        f"tokenizer {spec!r} trained on {train[:200]!r}: {text[:200]!r} and {ids!r}": both_ways,
        f"generate_text({text[:200]!r}, {n!r}, stop={stop!r})": generated,
        "tokenizer.save of a pipe": saved,
    }
    what = draw.choices(list(ways), (10, 5, 1))[0]
    return Case(what, ways[what])
