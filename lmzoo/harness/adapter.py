"""The adapter of lmzoo models for `lm_eval`: log-likelihoods of texts, and texts up to a stop string.

It computes what the adapter of transformers computes (`lm_eval.models.huggingface.HFLM`), for every family: rows are
padded at their end, which a causal model does not notice. `lm_eval` calls `loglikelihood` (which it defines itself, by
`_loglikelihood_tokens`), `loglikelihood_rolling` and `generate_until`; with --apply_chat_template it first calls
`chat_template`, and `apply_chat_template` for the context of each request.

Legend: B rows, T tokens of a row, N tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from lmzoo import arguments
from lmzoo.errors import InputError
from lmzoo.generation.text import continue_texts, default_prompt
from lmzoo.harness.chat import ChatTemplate
from lmzoo.model import LanguageModel
from lmzoo.runs.saved import load_run
from lmzoo.sampling_config import SamplingConfig, named_settings

MAX_LOGITS = 1 << 26  # of one batch: 256 MiB in float32
AUTO_BATCH_SIZE = 16
# The settings of generation that `generate_until` reads itself; the others are fields of `SamplingConfig`.
_READ_HERE = ("until", "max_gen_toks", "do_sample", "temperature")
# A request for a log-likelihood: the tokens of a context and of its continuation, after the texts of both, by which a
# result is cached (None: a window of a longer text, not cached).
Request = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("lmzoo")
class HarnessModel(TemplateLM):
    """A run, a checkpoint or a saved model of lmzoo.

    `max_length` is the number of tokens that the model reads, by default its `context_length`; a longer context loses
    its beginning. `eos` is the text of the token at which generation stops; by default it stops at the tokens that end
    a text for the tokenizer. `prefix` stands before a text that has no context, by default the token that begins a
    text, or else the one that ends it, or else a line break. Both must be one token. Where the tokenizer adds special
    tokens to a text, a context has them.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        tokenizer: str | Path | None = None,
        prefix: str | None = None,
        eos: str | None = None,
        batch_size: int | str = AUTO_BATCH_SIZE,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if path is None:
            raise InputError("the model lmzoo needs a path: --model_args path=RUN")
        for name, value in unknown.items():
            raise InputError(f"{name}={value!r} is no argument of the model lmzoo: docs/lm-eval.md lists them")
        run = load_run(path, tokenizer)
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = None  # lm_eval asks for cuda:0 unless told otherwise
        self.model: LanguageModel = run.model.eval() if device is None else run.model.eval().to(device)
        self.zoo_tokenizer = run.tokenizer  # not `tokenizer`, which lm_eval takes for one of transformers
        self._chat = ChatTemplate(run.tokenizer.conventions.chat, str(path))
        self.batch_size = _rows(batch_size, max_batch_size)
        longest = self.model.config.context_length if max_length is None else max_length
        self.max_length = arguments.count("max_length", longest, least=2)
        self.max_gen_toks = arguments.count("max_gen_toks", max_gen_toks, least=1)
        named = run.tokenizer.conventions.chat.tokens
        end = eos or named.get("eos_token")
        stops = [*run.tokenizer.stop_tokens] if eos is None else []
        self._stop_tokens = [*stops, *([self._token_of("eos", end)] if end else [])]
        self._prefix = prefix or named.get("bos_token") or end or default_prompt(run.tokenizer)
        self._prefix_token = self._token_of("prefix", self._prefix)

    def _token_of(self, name: str, text: str) -> int:
        """Returns the token of the text of an argument. Raises `InputError` if there are several."""
        ids = self.zoo_tokenizer.encode_array(text).tolist()
        if len(ids) != 1:
            raise InputError(f"{name}={text!r} must be one token, not {len(ids)}")
        return ids[0]

    @property
    def eot_token_id(self) -> int:
        """The token before a text without a context."""
        return self._prefix_token

    @property
    def tokenizer_name(self) -> str:
        """The name of the texts of chats, under which `lm_eval` keeps requests (`--cache_requests`)."""
        return f"lmzoo-{self._chat.fingerprint()}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Chooses the chat template with a name, or for True the default one, and returns it, for the log of `lm_eval`.

        Raises `InputError` if the model has no such template.
        """
        if not chat_template:
            return None
        self._chat.choose("default" if chat_template is True else chat_template)
        return self._chat.source()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns the text of a chat by the chosen template, in which special tokens are written by their names.

        `tok_encode` adds none before it if it begins with the prefix. Raises `InputError` if the model has no template,
        and `DataError` if the template fails.
        """
        return self._chat.render(chat_history, add_generation_prompt=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Returns the token ids of a text, with those that the tokenizer adds, unless the text begins with the prefix.

        `add_special_tokens=True` adds them always, and False never.
        """
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._prefix)
        tokenizer = self.zoo_tokenizer
        return tokenizer.encode(string) if add_special_tokens else tokenizer.encode_array(string).tolist()

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of token ids."""
        return self.zoo_tokenizer.decode(tokens)

    def _loglikelihood_tokens(self, requests: Sequence[Request], **_: Any) -> list[tuple[float, bool]]:
        """Returns the log-probability in nats of each continuation, and whether greedy decoding would give it."""
        # One token more than the model reads: the last one is only predicted.
        rows = [(context + continuation)[-self.max_length - 1 :] for _texts, context, continuation in requests]
        answers: dict[int, tuple[float, bool]] = {}
        for batch in self._batches([len(row) - 1 for row in rows]):
            idx_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[i]) for i in batch], batch_first=True)
            idx_BT = idx_BT.to(self.model.device)
            with torch.no_grad():
                log_probs_BTV = self.model(idx_BT[:, :-1]).logits.float().log_softmax(dim=-1)
            for i, idx_T, log_probs_TV in zip(batch, idx_BT, log_probs_BTV, strict=True):
                count = min(len(requests[i][2]), self.max_length)
                answers[i] = _score(idx_T[: len(rows[i])], log_probs_TV[: len(rows[i]) - 1], count)
        for i, (texts, _context, _continuation) in enumerate(requests):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answers[i])
        return [answers[i] for i in range(len(requests))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yields the numbers of the rows of each batch, given the tokens of each row.

        The longest rows come first, so that rows of a batch have similar lengths.
        """
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            longest = lengths[batch[0]] if batch else 0
            logits = (len(batch) + 1) * longest * self.model.config.vocab_size
            if batch and (len(batch) == self.batch_size or logits > MAX_LOGITS):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Returns the log-probability in nats of each whole text, in windows of `max_length` tokens."""
        windows: list[Request] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            parts = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            for context, continuation in map(make_disjoint_window, parts):
                windows.append((None, context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (log_prob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += log_prob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Returns the continuation of each context, up to a stop string or the largest number of new tokens."""
        given = [cast(tuple[str, dict[str, Any]], request.args) for request in requests]
        prompts = [self.tok_encode(text) or [self.prefix_token_id] for text, _settings in given]
        by_settings: dict[str, list[int]] = {}  # requests of one batch have the same settings
        for number, (_text, settings) in enumerate(given):
            by_settings.setdefault(repr(settings), []).append(number)
        texts = [""] * len(requests)
        for numbers in by_settings.values():
            settings: dict[str, Any] = {**normalize_gen_kwargs(given[numbers[0]][1], self.max_gen_toks)}
            n_new, stop = settings["max_gen_toks"], [text for text in settings["until"] if text]
            # What is left of the window for the context; half of it if the new tokens alone would fill it.
            room = self.max_length - n_new if n_new < self.max_length else self.max_length // 2
            config = _sampling(settings)
            for batch in self._batches([len(prompts[i]) for i in numbers]):
                rows = [numbers[place] for place in batch]  # the numbers of requests
                tails = [prompts[i][-room:] for i in rows]
                stops = {"stop": stop, "stop_tokens": self._stop_tokens}
                continued = continue_texts(self.model, self.zoo_tokenizer, tails, n_new, config, **stops)
                for i, text in zip(rows, continued, strict=True):
                    texts[i] = text
                    self.cache_hook.add_partial("generate_until", given[i], text)
        return texts


def _rows(batch_size: int | str, most: int | None) -> int:
    """Returns the largest number of rows of a batch, for "auto" (or "auto:N") 16, or `most` if that is smaller."""
    if str(batch_size).startswith("auto"):
        limit = AUTO_BATCH_SIZE if most is None else arguments.count("max_batch_size", most, least=1)
        return min(AUTO_BATCH_SIZE, limit)
    return arguments.count("batch_size", int(batch_size) if str(batch_size).isdecimal() else batch_size, least=1)


def _sampling(settings: dict[str, Any]) -> SamplingConfig:
    """Returns the settings of a sampler for a task's settings. Raises an `LmzooError` for one that we do not have."""
    more = {name: value for name, value in settings.items() if name not in _READ_HERE}
    if more.get("num_beams") == 1:  # no beam search
        del more["num_beams"]
    return named_settings({**more, "temperature": settings["temperature"] if settings["do_sample"] else 0.0})


def _score(idx_T: Tensor, log_probs_TV: Tensor, count: int) -> tuple[float, bool]:
    """Returns the log-probability of the last `count` tokens of a row, and whether each is the most likely one."""
    targets_N, log_probs_NV = idx_T[-count:], log_probs_TV[-count:]
    total = log_probs_NV.gather(1, targets_N[:, None]).double().sum().item()
    return total, bool((log_probs_NV.argmax(dim=-1) == targets_N).all())
