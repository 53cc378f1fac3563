"""The file that `lmzoo new` writes: a model that passes all checks, to be changed step by step into another one."""

from __future__ import annotations

# The placeholders are replaced, not formatted: the text is Python with braces.
_TEMPLATE = '''"""NAME: describe the idea, cite the paper, and list where this code deviates from it.

Now it is a short filter: the output is a weighted sum of the last tokens, with weights of its own for each channel.
Change one thing at a time, and check after each change:

    lmzoo check FILE
    lmzoo train NAME.tiny --plugin FILE
    lmzoo compare gpt2.tiny NAME.tiny --plugin FILE

Legend: B batch, T time, D model width, W width of the filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_positive
from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear


@dataclass(frozen=True, kw_only=True)
class CLASSConfig(lmzoo.MixerConfig):
    """Settings of the model, beside the sizes; each is also a setting of `lmzoo train --set`."""

    width: int = 8  # number of tokens that a mixer sees, the present one included

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "width")


class CLASSMixer(Layer):
    """The mixer, which passes information between positions; norms, residuals and MLPs are around it."""

    state_growth: ClassVar[str] = "constant"  # the state has the same size after any number of tokens

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.reach = width  # how far the layer looks back; without this line: to the first token
        self.value_and_gate = Linear(d_model, 2 * d_model, bias=False)
        self.own("filter", (width, d_model), uniform_fan_in(), role="vector")
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns the state before the first token (B, W - 1, D): the inputs that the next token will need."""
        width, d_model = self.filter.shape
        return like.new_zeros(batch_size, width - 1, d_model)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        """Returns the output and the next state; in training `state` is None, and so is the next one."""
        value_BTD, gate_BTD = self.value_and_gate(x_BTD).chunk(2, dim=-1)
        past = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        seen = torch.cat([past, value_BTD], dim=1)
        T = x_BTD.shape[1]
        y_BTD = sum(weight_D * seen[:, w : w + T] for w, weight_D in enumerate(self.filter))
        return self.out(F.silu(gate_BTD) * y_BTD), None if state is None else seen[:, T:]


PRESETS = {
    "family": {"train": {"learning_rate": 3e-3}},  # the recipe of all presets
    "tiny": {
        "source": "a first guess",
        "model": {"d_model": 64, "n_layers": 2, "context_length": 64},
    },
}


@lmzoo.register_model("NAME", presets=PRESETS)
class CLASS(lmzoo.MixerModel):
    """One sentence for `lmzoo list`.

    More about the idea for `lmzoo show NAME`, in Markdown.
    """

    config_class: ClassVar[type[CLASSConfig]] = CLASSConfig

    def make_mixer(self, config: CLASSConfig, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return CLASSMixer(config.d_model, config.width)
'''


def file_name(name: str) -> str:
    """Return the name of the file for a model: a Python module."""
    return f"{name.replace('-', '_')}.py"


def skeleton(name: str, file: str) -> str:
    """Return the text of a Python file that registers the model `name`; its docstring calls it `file`."""
    words = [word for word in name.replace("_", "-").split("-") if word]
    class_name = "".join(word[:1].upper() + word[1:] for word in words)
    if class_name[0].isdigit():  # a name may begin with a digit, a class may not
        class_name = f"Model{class_name}"
    return _TEMPLATE.replace("CLASS", class_name).replace("NAME", name).replace("FILE", file)
