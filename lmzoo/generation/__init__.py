"""Tokens and text from any model: one sampler loop, and what is built on it."""

from lmzoo.generation.beam import BeamOutput, beam_search
from lmzoo.generation.loop import generate, generate_ragged, stream
from lmzoo.generation.text import generate_text

__all__ = ["BeamOutput", "beam_search", "generate", "generate_ragged", "generate_text", "stream"]
