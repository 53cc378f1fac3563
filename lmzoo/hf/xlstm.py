"""xLSTM 7B in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Config, Only, Same, Settings, To, Together, Unread
from lmzoo.hf.keys import SIZES, unread, unused
from lmzoo.hf.layouts import Rows
from lmzoo.hf.names import frame
from lmzoo.hf.weights import Weights

_MIXER, _MLP = "backbone.blocks.{i}.mlstm_layer.", "backbone.blocks.{i}.ffn."
KERNELS = tuple(f"{form}--native_{way}" for form in ("chunkwise", "parallel") for way in ("autograd", "custbw"))
OTHER_KERNELS = (
    *(f"chunkwise--triton_{name}_chunk" for name in ("limit", "xl")),
    *("parallel--native_stablef_autograd", "parallel--native_stablef_custbw", "parallel--triton_limit_headdim"),
)


WEIGHTS: Weights = {
    **frame("backbone.embeddings", "backbone.out_norm", head="head.linear"),
    "blocks.{i}.0.before.weight": "backbone.blocks.{i}.norm_mlstm.weight",
    "blocks.{i}.0.inner.qkv.weight": Rows(
        tuple(f"{_MIXER}{part}.weight" for part in "qkv"), shares=("qk_dim", "qk_dim", "v_dim")
    ),
    "blocks.{i}.0.inner.gates.weight": Rows(tuple(f"{_MIXER}{gate}gate_preact.weight" for gate in "if")),
    "blocks.{i}.0.inner.gate_bias": Rows(tuple(f"{_MIXER}{gate}gate_preact.bias" for gate in "if")),
    "blocks.{i}.0.inner.output_gate.weight": f"{_MIXER}ogate_preact.weight",
    "blocks.{i}.0.inner.norm.weight": f"{_MIXER}multihead_norm.weight",
    "blocks.{i}.0.inner.out.weight": f"{_MIXER}out_proj.weight",
    "blocks.{i}.1.before.weight": "backbone.blocks.{i}.norm_ffn.weight",
    "blocks.{i}.1.inner.up.weight": Rows((f"{_MLP}proj_up_gate.weight", f"{_MLP}proj_up.weight")),
    "blocks.{i}.1.inner.down.weight": f"{_MLP}proj_down.weight",
}


def _sizes(config: Config) -> dict[str, int]:
    """Returns the widths, which are the model's times a factor; the last one is rounded up."""
    width, multiple = config.value("hidden_size", 4096), config.at_least("ffn_round_up_to_multiple_of", 64)
    return {
        "qk_dim": int(width * config.value("qk_dim_factor", 0.5, float)),
        "v_dim": int(width * config.value("v_dim_factor", 1.0, float)),
        "d_ff": int((width * config.value("ffn_proj_factor", 2.667, float) + multiple - 1) // multiple * multiple),
    }


def _sizes_keys(ours: Settings) -> dict[str, float]:
    """Returns factors between those of this width and the next one, since they are rounded down."""
    factors = {key: (ours[size] + 0.5) / ours["d_model"] for key, size in _FACTORS.items()}
    return {**factors, "ffn_round_up_to_multiple_of": 1}


_FACTORS = {"qk_dim_factor": "qk_dim", "v_dim_factor": "v_dim", "ffn_proj_factor": "d_ff"}
XLSTM = Architecture(
    model_type="xlstm",
    classes=("xLSTMForCausalLM",),
    family="xlstm_large",
    weights=WEIGHTS,
    keys={
        **SIZES,
        "hidden_size": To("d_model", 4096),
        "embedding_dim": Same("hidden_size", 4096),
        "num_hidden_layers": To("n_layers", 32),
        "num_blocks": Same("num_hidden_layers", 32),
        "num_heads": To("n_heads", 8),
        "max_position_embeddings": To("context_length", 256),  # of lmzoo: transformers has no such key here
        "norm_eps": To("norm_eps", 1e-6),
        "gate_soft_cap": To("gate_cap", 15.0),
        "output_logit_soft_cap": To("logit_cap", 30.0),
        "weight_mode": Only("single"),  # transformers cannot make a fused one
        "chunkwise_kernel": Only(KERNELS[0], (*KERNELS[1:], *OTHER_KERNELS)),  # not those with sigmoid input gates
        "eps": Only(1e-6),
        "use_bias": Only(False),
        "add_out_norm": Only(True),
        "tie_word_embeddings": Only(False),
        **unused("sequence_kernel", "step_kernel", "autocast_kernel_dtype", "inference_state_dtype", "mode"),
        **unused("chunk_size", "max_inference_chunksize", "return_last_states", "norm_reduction_force_float32"),
        **unread(False, "add_embedding_dropout", "add_post_norm", "add_qk_norm"),
        "add_post_blocks_norm": Unread(True),
        "cell_norm_eps": Unread(1e-6),
        **unused("add_forward_backend_padding", "force_bos_token_insert", "igate_bias_init_range", "head_dim"),
        **unused("mlstm_round_up_to_multiple_of"),
    },
    together=(Together((*_FACTORS, "ffn_round_up_to_multiple_of"), _sizes, _sizes_keys),),
    prefix="backbone.",
)
