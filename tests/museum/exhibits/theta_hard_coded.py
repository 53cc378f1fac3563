"""The base of the rotary angles is a setting, but the tables are made with 10,000.

sgl-project/SpecForge#265, google/gemma.cpp#986, vllm-project/vllm#9503.
"""

from __future__ import annotations

from tests.museum.grouped import Grouped, GroupedAttention

CAUGHT_BY = "settings"


class HardCodedAttention(GroupedAttention):
    @property
    def theta(self) -> float:
        return 10000.0


class MODEL(Grouped):
    attention_class = HardCodedAttention
