"""Makes the optimizer from the parameter groups of the model; saves and restores its state by parameter name."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lmzoo.distributed.parallel import like
from lmzoo.model import LanguageModel
from lmzoo.train.adamw import AdamW
from lmzoo.train.config import TrainConfig
from lmzoo.train.muon import Muon


def make_optimizer(model: LanguageModel, config: TrainConfig) -> Optimizer:
    """Make `AdamW` or `Muon`; no weight decay for biases and norm weights.

    Uses torch's fused kernel: on CPUs it takes half to a third of the time of the `foreach` implementation.
    """
    kind = Muon if config.optimizer == "muon" else AdamW
    groups = model.parameter_groups(config.weight_decay) or [{"params": []}]  # a fitted model has none to optimize
    return kind(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def optimizer_tensors(model: LanguageModel, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer state by `parameter name/kind`, as a checkpoint stores it."""
    return {
        f"{name}/{kind}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: LanguageModel, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned into `optimizer`; the tensors are copied."""
    parameters = dict(model.named_parameters())
    for key, saved in tensors.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][kind] = like(parameter, saved)
