"""minGRU and minLSTM (Feng et al. 2024, arXiv 2410.01201): gated recurrent networks that train in parallel.

Blocks of the mixer (`lmzoo.layers.min_rnn`) and SwiGLU. Distinctive: the gates of a GRU or an LSTM are computed from
the token alone, without the last state, so the recurrence is linear in the state and all times are computed by a scan
(`lmzoo.ops.log_scan`). The state is one positive vector for each layer. Option: `cell` is "gru" or "lstm". Deviations:
the frame is Llama's (RMS norms, SwiGLU), and the scan does not stay in log space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require_positive
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.min_rnn import Cell, MinRNN
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class MinGRUConfig(MixerConfig):
    """The cell and its width, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"cell": "lstm"},)

    cell: Cell = "gru"  # one gate (minGRU), or two that are normalized (minLSTM)
    expand: int = 2  # inner width / d_model

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "expand")


@register_model("mingru")
class MinGRU(MixerModel):
    """Blocks of minGRU or minLSTM and SwiGLU."""

    config_class = MinGRUConfig

    def make_mixer(self, config: Any, layer: int) -> MinRNN:
        return MinRNN(config.d_model, expand=config.expand, cell=config.cell)
