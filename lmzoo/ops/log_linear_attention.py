"""Log-linear attention: linear attention with a decay, and a weight for each scale of distance.

Guo et al. 2025, arXiv 2506.04761. The tokens before position t are divided into blocks by the binary digits of t, as in
a Fenwick tree: the 13 = 8 + 4 + 1 tokens before position 13 into blocks of 8, 4 and 1, the nearest being the smallest.
A block of 2^b tokens has level b + 1, the token itself level 0, and each query has a weight for each level. Token s has
the level bits(t xor s) for query t, the number of binary digits. For every batch row and head, with vectors as rows,

    y_t = sum over s <= t of weight_t[bits(t xor s)] (a_{s+1} ... a_t) (q_t . k_s) v_s

Levels beyond the last weight share it. With equal weights on all levels this is linear attention with a decay.

`naive_log_linear_attention` keeps a memory (K, V) for each block, so about log2 T of them, and reads all of them at
each step. A new token is a block of one; two blocks of equal size become one of twice the size, as the digits carry
when one is added to a binary number. A decoder does the same.

`chunked_log_linear_attention` computes the scores within a chunk of tokens at once, each times the weight of its level,
and reads earlier tokens from the memories of the blocks before the chunk. All tokens of such a block have the same
level for a query in the chunk, that of the block's first token. The blocks after the chunk consist of blocks before it
and of tokens of the chunk. A chunk may start anywhere, and the last one may be shorter.

Legend: B batch, T time, H heads, K key width, V value width, L weights, J blocks of the state; inside the chunked form
N chunks, M = B * H, C positions.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from lmzoo.ops.chunks import in_chunks, padded
from lmzoo.ops.counting import counted_as
from lmzoo.ops.decayed_scores import decayed_scores
from lmzoo.ops.dispatch import dispatch
from lmzoo.ops.precision import wide_dtype, without_autocast

CHUNK_LENGTH = 32
SHORTEST_CHUNKED = 4  # for shorter sequences the loop needs fewer calls


def naive_log_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    weight_BTHL: Tensor,
    state_BJHKV: Tensor | None = None,
    position: int = 0,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another; arguments and results as in `log_linear_attention`."""
    *inputs, S_BJHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, weight_BTHL, state_BJHKV)
    last_level = weight_BTHL.shape[-1] - 1
    ys = []
    for now, (q_BHK, k_BHK, v_BHV, log_decay_BH, weight_BHL) in enumerate(
        zip(*(x.unbind(1) for x in inputs), strict=True), start=position
    ):
        S_BJHKV = log_decay_BH.exp()[:, None, :, None, None] * S_BJHKV
        own_BHKV = k_BHK[..., None] * v_BHV[..., None, :]
        y_BHV = weight_BHL[..., :1] * (q_BHK[..., None] * own_BHKV).sum(dim=-2)
        for block in range(S_BJHKV.shape[1]):  # empty ones are zero
            read_BHV = (q_BHK[..., None] * S_BJHKV[:, block]).sum(dim=-2)
            y_BHV = y_BHV + weight_BHL[..., min(block + 1, last_level), None] * read_BHV
        ys.append(y_BHV)
        full = _trailing_ones(now)  # blocks that the new one joins
        joined_BHKV = own_BHKV + S_BJHKV[:, :full].sum(dim=1)
        S_BJHKV = torch.cat([torch.zeros_like(S_BJHKV[:, :full]), joined_BHKV[:, None], S_BJHKV[:, full + 1 :]], dim=1)
    return torch.stack(ys, dim=1).to(v_BTHV.dtype), S_BJHKV


def chunked_log_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    weight_BTHL: Tensor,
    state_BJHKV: Tensor | None = None,
    position: int = 0,
) -> tuple[Tensor, Tensor]:
    """The fast form, in chunks; arguments and results as in `log_linear_attention`."""
    (B, T, H, _), L = v_BTHV.shape, weight_BTHL.shape[-1]
    *inputs, S_BJHKV = _wide_inputs(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, weight_BTHL, state_BJHKV)
    C = min(CHUNK_LENGTH, T)
    q_NMCK, k_NMCK, v_NMCV, log_decay_NMC, weight_NMCL = (in_chunks(padded(x, C), C).flatten(1, 2) for x in inputs)
    log_decay_NMC1 = log_decay_NMC[..., None]
    positions_NC = position + torch.arange(len(q_NMCK) * C, device=q_BTHK.device).view(-1, C)
    # Memories of the blocks of tokens before the chunk, by the logarithm of their size.
    memory = {b: S_BJHKV[:, b].flatten(0, 1) for b in _blocks(position)}
    ys = []
    with without_autocast(v_BTHV):
        level_N1CC = _level(positions_NC[:, None, :, None], positions_NC[:, None, None, :], L)
        level_weight_NMCC = weight_NMCL.gather(-1, level_N1CC.expand(-1, B * H, -1, -1))
        scores_NMCC, since_NMC1, until_NMC1 = decayed_scores(q_NMCK, k_NMCK, log_decay_NMC1)
        scores_NMCC = scores_NMCC * level_weight_NMCC
        read_NMCK, written_NMCK, kept_NM11 = q_NMCK * since_NMC1, k_NMCK * until_NMC1, since_NMC1[..., -1:, :]
        chunks = (
            x.unbind(0) for x in (read_NMCK, written_NMCK, v_NMCV, kept_NM11, scores_NMCC, weight_NMCL, positions_NC)
        )
        for n, (read_MCK, written_MCK, v_MCV, kept_M11, scores_MCC, weight_MCL, positions_C) in enumerate(
            zip(*chunks, strict=True)
        ):
            first, after = position + n * C, position + min((n + 1) * C, T)
            y_MCV = scores_MCC @ v_MCV
            for b, start in _blocks(first).items():
                level_C = _level(positions_C, torch.full_like(positions_C, start), L)
                weight_MC1 = weight_MCL.gather(-1, level_C[None, :, None].expand(B * H, -1, 1))
                y_MCV = y_MCV + weight_MC1 * (read_MCK @ memory[b])
            ys.append(y_MCV)
            old = {start: kept_M11 * memory[b] for b, start in _blocks(first).items()}
            memory = {
                b: _joined(start, start + (1 << b), old, first, written_MCK, v_MCV)
                for b, start in _blocks(after).items()
            }
    y_BTHV = rearrange(torch.stack(ys), "n (b h) c v -> b (n c) h v", h=H)[:, :T]
    empty_MKV = torch.zeros_like(memory[max(memory)])
    S_JMKV = torch.stack([memory.get(b, empty_MKV) for b in range((position + T).bit_length())])
    return y_BTHV.to(v_BTHV.dtype), rearrange(S_JMKV, "j (b h) k v -> b j h k v", b=B)


def log_linear_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    weight_BTHL: Tensor,
    state_BJHKV: Tensor | None = None,
    position: int = 0,
) -> tuple[Tensor, Tensor]:
    """Log-linear attention, by the fastest form that fits.

    Args:
        q_BTHK: the queries, used as they are: the caller scales them.
        k_BTHK: the keys.
        v_BTHV: the values.
        log_decay_BTH: the logarithms of the decays, from minus infinity to 0.
        weight_BTHL: the weights of the levels, the nearest first.
        state_BJHKV: the memories of the blocks of earlier tokens, the smallest block first, zero where the binary digit
            of `position` is zero; None if there are no earlier tokens.
        position: the number of earlier tokens.

    Returns:
        `y_BTHV` in the dtype of `v_BTHV`, and the memories after the last token, one for each binary digit of the
        number of tokens. Computation and memories are float32 whatever the dtype of the input (float64 if `v_BTHV` is),
        under autocast too. Counts as 2 K V FLOPs per token and head to write, and 2 K V for each level to read.
    """
    B, T, H, V = v_BTHV.shape
    form = dispatch(T, naive_log_linear_attention, chunked_log_linear_attention, shortest=SHORTEST_CHUNKED)
    with counted_as(2 * B * T * H * k_BTHK.shape[-1] * V * (1 + count_levels(position + T))):
        return form(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, weight_BTHL, state_BJHKV, position)


def count_levels(T: int) -> int:
    """Returns the number of levels that tokens of a sequence of T have, the token itself included."""
    return (T - 1).bit_length() + 1


def _level(query: Tensor, key: Tensor, n_levels: int) -> Tensor:
    """Returns the number of binary digits of query xor key, at most n_levels - 1, for positions that broadcast."""
    different = torch.bitwise_xor(query, key)
    powers = 2 ** torch.arange(n_levels - 1, device=query.device)
    return (different[..., None] >= powers).sum(dim=-1)


def _blocks(n: int) -> dict[int, int]:
    """Returns the blocks into which n tokens are divided: the first token of each, by the logarithm of its size."""
    return {b: n >> (b + 1) << (b + 1) for b in range(n.bit_length()) if n >> b & 1}


def _joined(start: int, end: int, old: dict[int, Tensor], first: int, written_MCK: Tensor, v_MCV: Tensor) -> Tensor:
    """Returns the memory of the tokens start ... end - 1, (M, K, V).

    It is the sum of the `old` blocks in that range, given by their first tokens, and of what tokens of the chunk that
    begins at `first` write.
    """
    parts = [memory_MKV for token, memory_MKV in old.items() if start <= token < end]
    if end > first:
        tokens = slice(max(start - first, 0), end - first)
        parts.append(written_MCK[:, tokens].mT @ v_MCV[:, tokens])
    return sum(parts[1:], start=parts[0])


def _trailing_ones(n: int) -> int:
    """Returns the number of binary ones at the end of n."""
    return (~n & (n + 1)).bit_length() - 1


def _wide_inputs(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, weight: Tensor, state_BJHKV: Tensor | None
) -> tuple[Tensor, ...]:
    """Converts all inputs to float32 or wider; a missing state becomes one without blocks."""
    B, _, H, K = k.shape
    state_BJHKV = v.new_zeros(B, 0, H, K, v.shape[-1]) if state_BJHKV is None else state_BJHKV
    dtype = wide_dtype(v.dtype)
    return tuple(x.to(dtype) for x in (q, k, v, log_decay, weight, state_BJHKV))
