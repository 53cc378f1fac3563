"""Checks of `fit`, by which a model that declares trainable=False learns from a text."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.conformance.measure import require_equal, require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel

COUNTS = (300, 2**16 + 20)  # equal tokens: a counter in 8 or 16 bits is less after the second than after the first
UNSAVED = "attributes that fit() sets: only buffers are saved"


def require_fit(subject: Subject, tokens_BT: Tensor) -> str:
    """Checks `fit` on the rows of `tokens_BT`, after another text, which must have no effect on the result.

    How well a model can fit depends on what it counts. So its loss on a text must only be less than its loss on this
    text after another one was fitted. Returns both losses in words.
    """
    idx, targets = tokens_BT[:, :-1], tokens_BT[:, 1:]
    model, fresh = subject.model(perturbed=False).train(), subject.model(perturbed=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fresh.fit(tokens_BT)
    model.fit(subject.tokens(4, 30, seed=9))
    for name, tensor in model.state_dict().items():
        if tensor.shape != shapes[name]:
            raise Fault(
                f"fit() changes the shape of {name} from {tuple(shapes[name])} to {tuple(tensor.shape)}: a saved model "
                "is loaded into the shapes that the constructor gives; look at fit(): it must fill the buffers in place"
            )
    other = model(idx, targets).loss.item()
    model.fit(tokens_BT)
    for name, tensor in model.state_dict().items():
        where = "fit(): it must begin anew in each call"
        require_same_bits(tensor, fresh.state_dict()[name], f"{name}, fitted after another text,", where)
    _require_separate_rows(fresh, tokens_BT)
    padded = torch.cat([tokens_BT, tokens_BT.new_full((len(tokens_BT), 5), IGNORE_INDEX)], dim=1)
    fresh.fit(padded)
    for name, tensor in fresh.state_dict().items():
        what = f"{name}, fitted to rows with padding (IGNORE_INDEX) at the end,"
        require_same_bits(tensor, model.state_dict()[name], what, "fit(): padding is no token")
    _require_large_counts(fresh)
    loss = model(idx, targets).loss.item()
    if not loss < other:
        raise Fault(
            f"the loss on a text is {loss:.2f} nats after fit() of this text, and {other:.2f} after fit() of another "
            "one: it must be less; look at fit()"
        )
    return f"{loss:.2f} nats after fit(), {other:.2f} after fit() of another text"


@torch.no_grad()
def _require_large_counts(model: LanguageModel) -> None:
    """Raises `Fault` if a long text of one token is predicted worse than a short one: a counter is too small."""
    idx = torch.zeros(1, 8, dtype=torch.long)
    found = []
    for length in COUNTS:
        model.fit(idx.new_zeros(1, length))
        found.append(model(idx, idx).loss.item())
    if not found[1] <= found[0] + 1e-3:
        raise Fault(
            f"the loss on a text of one repeated token is {found[1]:.3g} nats after fit() of {COUNTS[1]:,} such "
            f"tokens, and {found[0]:.3g} after fit() of {COUNTS[0]}: it must not be more; look at the dtype of "
            "counters in fit(): uint8 ends at 255, int16 at 32,767"
        )


@torch.no_grad()
def _require_separate_rows(model: LanguageModel, tokens_BT: Tensor) -> None:
    """Raises `Fault` if `fit` counts the last token of a row and the first of the next as neighbors.

    The two rows have no token in common, so their order has an effect only if `fit` reads on from one into the other.
    """
    V = model.config.vocab_size
    half = V // 2
    rows = torch.stack([tokens_BT[0] % max(1, half), half + tokens_BT[1] % (V - half)])
    idx = torch.cat([rows, tokens_BT, rows.flip(1)])[:, :-1]
    model.fit(rows)
    logits_BTV = model(idx).logits
    model.fit(rows.flip(0))
    what = "after fit() of the same two rows, which have no token in common, in another order, a logit"
    require_equal(model(idx).logits, logits_BTV, what, "fit(): it must read each row separately", 1e-5)


@torch.no_grad()
def require_fit_in_buffers(subject: Subject) -> None:
    """Raises `Fault` if a model that loads the state dict of a fitted one gives other logits.

    Two texts are fitted, one with rare pairs of tokens: what is estimated from rare pairs, such as a discount, has its
    default value where each pair occurs often.
    """
    generator = torch.Generator().manual_seed(0)
    V = subject.config.vocab_size
    rare = torch.multinomial(1 / torch.arange(1, V + 1) ** 2, 4 * 64, replacement=True, generator=generator).view(4, 64)
    for text in (rare, subject.tokens(1, 2)):
        fitted, loaded = subject.model(), subject.model()
        fitted.fit(text)
        loaded.load_state_dict(fitted.state_dict())
        idx = rare[:, : min(subject.context, 9)]
        what = f"a model that has loaded the state dict of one that was fitted to {text.numel()} tokens"
        require_same_bits(loaded(idx).logits, fitted(idx).logits, what, UNSAVED)
