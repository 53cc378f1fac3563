"""In a model that was built correctly, one layer was replaced by one that starts from zeros in every call.

Ours: the class is right, so small models of it pass; only the caller's own model shows the fault.
"""

from __future__ import annotations

from tests.museum.base import CellConfig, Recurrent
from tests.museum.exhibits.state_reset_each_call import ResettingCell

CAUGHT_BY = "own_decoding"


CONFIG = CellConfig(vocab_size=50, d_model=48)
MODEL = Recurrent(CONFIG)
MODEL.cells[1] = ResettingCell(CONFIG)
MODEL.init_weights()
