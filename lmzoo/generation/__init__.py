"""Generation of tokens and text from any model: one sampler loop, beam search, speculative decoding, scoring."""

from lmzoo.generation.beam import BeamOutput, beam_search
from lmzoo.generation.drafts import NGramDraft, PromptLookup
from lmzoo.generation.loop import generate, generate_ragged, stream
from lmzoo.generation.scoring import ScoredOutput, generate_with_log_probs, score
from lmzoo.generation.speculative import generate_speculative, stream_speculative
from lmzoo.generation.text import generate_text, generate_texts

__all__ = [
    "BeamOutput",
    "NGramDraft",
    "PromptLookup",
    "ScoredOutput",
    "beam_search",
    "generate",
    "generate_ragged",
    "generate_speculative",
    "generate_text",
    "generate_texts",
    "generate_with_log_probs",
    "score",
    "stream",
    "stream_speculative",
]
