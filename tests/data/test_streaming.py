"""Tests of streamed corpora: training and validation documents, identity, bounded memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.data.streaming import PREFIX_BYTES, VALIDATION_BYTES, load_stream
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import DataError
from tests.data.datasets import jsonl

Write = Callable[[str, str | bytes], Path]


def test_load_stream_refuses_too_few_rows(write: Write) -> None:
    with pytest.raises(DataError, match="has 1 rows in its split 'train': none is left to train on"):
        load_stream(f"hf:{write('one.jsonl', jsonl(['one']))}")


def test_load_corpus_refuses_a_stream() -> None:
    with pytest.raises(DataError, match="'hf:owner/name' is a stream, but a text of known length is needed"):
        load_corpus("hf:owner/name")


def test_load_stream_holds_out_the_first_tenth(write: Write) -> None:
    texts = [f"{i:03d}{'x' * 45}" for i in range(100)]  # 50 bytes each with the separator
    corpus = load_stream(f"hf:{write('a.jsonl', jsonl(texts))}")
    assert (corpus.held_out, corpus.val.n_bytes, corpus.val.n_chars) == (10, 500, 500)
    assert "".join(corpus.chunks("val")) == "\n\n".join(texts[:10]) + "\n\n"
    assert "".join(corpus.chunks("train")) == "\n\n".join(texts[10:]) + "\n\n"
    byte = train_tokenizer("byte", [])
    split = corpus.validation(byte)
    assert bytes(split.tokens.astype("uint8").tolist()).decode() == "".join(corpus.chunks("val"))
    assert (split.split, split.n_tokens, split.n_bytes) == ("val", 500, 500)
    reader = corpus.reader(byte)
    for _ in range(2):  # in every pass
        assert bytes(reader.read(4500).tolist()).decode() == "".join(corpus.chunks("train"))


def test_load_stream_uses_the_validation_split_of_the_dataset(write: Write, chinese: str) -> None:
    folder = write("d/train.jsonl", jsonl([chinese, "a"])).parent
    write("d/validation.jsonl", jsonl(["eine", "zwei"]))
    corpus = load_stream(f"hf:{folder}")
    assert corpus.held_out == 0
    assert "".join(corpus.chunks("train")) == f"{chinese}\n\na\n\n"
    assert "".join(corpus.chunks("val")) == "eine\n\nzwei\n\n"
    assert (corpus.train.n_bytes, corpus.train.n_chars) == (len(chinese.encode()) + 5, len(chinese) + 5)


def test_load_stream_counts_documents_that_nearly_equal_a_training_document(write: Write) -> None:
    rng = random.Random(0)
    poems = [" ".join(rng.choice("abcdefgh") * rng.randint(1, 9) for _ in range(60)) for _ in range(40)]
    folder = write("d/train.jsonl", jsonl(poems)).parent
    write(
        "d/validation.jsonl",
        jsonl([poems[7] + " the end", "short", poems[30].replace(" ", "\n"), "z" + poems[1][::-1]]),
    )
    corpus = load_stream(f"hf:{folder}")
    assert (corpus.copies, corpus.val.rows) == (2, 4)
    assert corpus.copies_note == (
        "2 of the 4 documents of the validation split nearly equal one of the first 40 training documents; the rest of "
        "a stream is not searched, and none is left out"
    )
    write("d/validation.jsonl", "")
    assert load_stream(f"hf:{write('a.jsonl', jsonl(poems))}").copies == 0


def test_load_stream_reads_only_the_prefix(write: Write) -> None:
    kilobyte = "x" * 1022
    folder = write("d/train.jsonl", jsonl([kilobyte] * 12_000)).parent
    corpus = load_stream(f"hf:{folder}")
    assert corpus.train.n_bytes + corpus.val.n_bytes == PREFIX_BYTES
    assert corpus.val.n_bytes == PREFIX_BYTES // 10
    write("d/test.jsonl", jsonl([kilobyte] * 2_000))
    corpus = load_stream(f"hf:{folder}")
    assert corpus.train.n_bytes == PREFIX_BYTES
    assert corpus.val.n_bytes == VALIDATION_BYTES


def test_stream_hash_identifies_the_data(write: Write) -> None:
    """The hash ignores the folder, but changes with the column, the validation split, the text, and added rows."""
    texts = ["x" * 1022] * 10_300
    rows = "".join(json.dumps({"text": text, "more": text}) + "\n" for text in texts)
    file = write("a/part.jsonl", rows)
    sha256 = load_stream(f"hf:{file}").sha256
    assert load_stream(f"hf:{write('b/part.jsonl', rows)}").sha256 == sha256
    others = [f"hf:{file},column=more", f"hf:{write('c/part.jsonl', rows + jsonl(['end'], more=''))}"]
    others += [f"hf:{write('d/part.jsonl', rows.replace('x', 'y', 1))}"]
    write("e/train.jsonl", rows)
    for validation in ("a", "b"):
        others.append(f"hf:{write(f'e{validation}/validation.jsonl', jsonl([validation], more='')).parent}")
        write(f"e{validation}/train.jsonl", rows)
    found = [load_stream(other).sha256 for other in others]
    assert len({sha256, *found}) == 1 + len(others)


_MEASURED = """
import resource, sys
from lmzoo.data.stream_batches import StreamBatches
from lmzoo.data.streaming import load_stream
from lmzoo.data.tokenizers import train_tokenizer
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def read(path, steps):
    corpus = load_stream("hf:" + path)
    batches = StreamBatches(corpus.reader(train_tokenizer("byte", [])), 64, 1024, 0)
    for step in range(steps):
        batches.batch(step)
    batches.close()
    return steps * 64 * 1024
read(sys.argv[1], 160)
before = peak_mib()
print(read(sys.argv[2], 640), peak_mib() - before)
"""


def test_stream_needs_memory_independent_of_its_length(write: Write, process_env: dict[str, str]) -> None:
    """After 12 MB, reading nearly all of 44 MB needs no more memory."""
    line = json.dumps({"text": "sixteen letters " * 64}) + "\n"
    small, large = write("small.jsonl", line * 12_000), write("large.jsonl", line * (44 << 10))
    command = [sys.executable, "-c", _MEASURED, str(small), str(large)]
    done = subprocess.run(command, env=process_env, check=True, capture_output=True, text=True)
    n_tokens, growth_mib = done.stdout.split()
    assert int(n_tokens) == 40 << 20
    assert float(growth_mib) < 24
    assert done.stderr == ""


def test_validation_has_the_ends_of_isolated_documents(shards: Path) -> None:
    corpus = load_stream(f"hf:{shards}")
    tokenizer = train_tokenizer("byte", [])
    isolated = corpus.validation(tokenizer, "isolated")
    assert isolated.ends is not None
    parts = np.split(isolated.tokens, isolated.ends[:-1])
    assert [tokenizer.decode(part.tolist()) for part in parts] == list(corpus.chunks("val"))
    assert isolated.ends[-1] == isolated.n_tokens
    joined = corpus.validation(tokenizer)
    assert joined.ends is None
    assert np.array_equal(joined.tokens, isolated.tokens)
