"""The architectures of transformers that lmzoo loads, by their model type; a module of `lmzoo.hf` describes each."""

from __future__ import annotations

from collections.abc import Mapping

from lmzoo.errors import CheckpointError
from lmzoo.hf.alibi import BLOOM, MPT
from lmzoo.hf.architecture import Architecture, Config, refused
from lmzoo.hf.bamba import BAMBA
from lmzoo.hf.deepseek import DEEPSEEK_V2, DEEPSEEK_V3
from lmzoo.hf.deepseek_relatives import GLM4_MOE_LITE, YOUTU
from lmzoo.hf.diff import DIFFLLAMA
from lmzoo.hf.ernie4_5_moe import ERNIE4_5_MOE
from lmzoo.hf.falcon_h1 import FALCON_H1
from lmzoo.hf.gemma3 import GEMMA, GEMMA2, GEMMA3_TEXT, VAULTGEMMA
from lmzoo.hf.gpt2 import GPT2, OPT
from lmzoo.hf.gpt_neo import BIOGPT, GPT_BIGCODE, GPT_NEO, OPENAI_GPT, XGLM
from lmzoo.hf.gpt_neox import GPT_NEOX, STARCODER2
from lmzoo.hf.gpt_oss import GPT_OSS
from lmzoo.hf.gptj import COHERE, COHERE2, GPTJ, PHI, STABLELM
from lmzoo.hf.gptj_relatives import CODEGEN, FALCON, JAIS2, NEMOTRON, OLMO, PERSIMMON
from lmzoo.hf.granite import GRANITE, GRANITEMOE, GRANITEMOEHYBRID, GRANITEMOESHARED, HYPERCLOVAX
from lmzoo.hf.griffin import RECURRENT_GEMMA
from lmzoo.hf.grouped import DOTS1, GLM4_MOE, MINIMAX_M2, SOLAR_OPEN
from lmzoo.hf.grouped_relatives import EXAONE_MOE, HUNYUAN_V1_MOE, HY_V3
from lmzoo.hf.hunyuan import HUNYUAN_V1_DENSE
from lmzoo.hf.jamba import JAMBA
from lmzoo.hf.kimi_linear import KIMI_LINEAR
from lmzoo.hf.lfm2 import LFM2
from lmzoo.hf.lfm2_moe import LFM2_MOE
from lmzoo.hf.llama import LLAMA, MISTRAL, PHI3, QWEN2, QWEN3, SMOLLM3
from lmzoo.hf.llama_relatives import APERTUS, ARCEE, CWM, INTERNLM3, IQUESTCODER, MINISTRAL, MINISTRAL3, SEED_OSS
from lmzoo.hf.mamba import FALCON_MAMBA, MAMBA
from lmzoo.hf.mamba2 import MAMBA2
from lmzoo.hf.mellum import MELLUM
from lmzoo.hf.minicpm3 import MINICPM3
from lmzoo.hf.minimax import MINIMAX
from lmzoo.hf.mixtral import FLEX_OLMO, MIXTRAL, OLMOE, QWEN3_MOE
from lmzoo.hf.nanochat import NANOCHAT
from lmzoo.hf.neighbors import ERNIE4_5, GLM, GLM4, HELIUM
from lmzoo.hf.nemotron_h import NEMOTRON_H
from lmzoo.hf.olmo2 import EXAONE4, OLMO2, OLMO3
from lmzoo.hf.olmo_hybrid import OLMO_HYBRID
from lmzoo.hf.qwen2_moe import QWEN2_MOE
from lmzoo.hf.qwen3_next import QWEN3_5_MOE_TEXT, QWEN3_5_TEXT, QWEN3_NEXT
from lmzoo.hf.windowed_experts import AFMOE, FLINT, KOLIBRI1
from lmzoo.hf.xlstm import XLSTM
from lmzoo.hf.zamba2 import ZAMBA2
from lmzoo.suggestions import suggest

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.model_type: architecture
    for architecture in (
        *(GPT2, OPT, BLOOM, MPT, GPT_NEO, GPT_BIGCODE, BIOGPT, XGLM, OPENAI_GPT, GPT_NEOX, STARCODER2),
        *(GPTJ, CODEGEN, PHI, COHERE, COHERE2, STABLELM, FALCON, OLMO, JAIS2, NEMOTRON, PERSIMMON),
        *(LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, PHI3, MINISTRAL, MINISTRAL3, SEED_OSS, APERTUS),
        *(ARCEE, CWM, INTERNLM3, IQUESTCODER, HELIUM, GLM, GLM4, ERNIE4_5, HUNYUAN_V1_DENSE, NANOCHAT),
        *(OLMO2, OLMO3, EXAONE4, OLMO_HYBRID),
        *(GRANITE, GRANITEMOE, GRANITEMOESHARED, GRANITEMOEHYBRID, HYPERCLOVAX, MINICPM3),
        *(GEMMA, GEMMA2, VAULTGEMMA, GEMMA3_TEXT, DIFFLLAMA),
        *(MIXTRAL, QWEN2_MOE, QWEN3_MOE, OLMOE, FLEX_OLMO, MELLUM, GPT_OSS),
        *(DEEPSEEK_V2, DEEPSEEK_V3, GLM4_MOE_LITE, YOUTU, KIMI_LINEAR),
        *(GLM4_MOE, DOTS1, SOLAR_OPEN, MINIMAX_M2, ERNIE4_5_MOE, HY_V3, HUNYUAN_V1_MOE, EXAONE_MOE),
        *(FLINT, KOLIBRI1, AFMOE),
        *(MAMBA, FALCON_MAMBA, MAMBA2, RECURRENT_GEMMA, XLSTM),
        *(QWEN3_NEXT, QWEN3_5_TEXT, QWEN3_5_MOE_TEXT),
        *(LFM2, LFM2_MOE, MINIMAX, BAMBA, JAMBA, FALCON_H1, NEMOTRON_H, ZAMBA2),
    )
}


def architecture_of(config: Config, known: Mapping[str, Architecture] = ARCHITECTURES) -> Architecture:
    """Returns the architecture of a config.json, of those that are `known` by their model type.

    Raises `CheckpointError` for a model type that lmzoo does not know, naming the nearest that it knows, and for a
    model that is no causal language model.
    """
    model_type = config.value("model_type", "")
    if not model_type:
        raise CheckpointError("model_type must be given")
    if model_type not in known:
        raise refused("model_type", model_type, f"is not one that lmzoo loads{suggest(model_type, known)}")
    architecture = known[model_type]
    classes = config.value("architectures", list[object](), list)
    if classes and not {*architecture.classes} & {name for name in classes if isinstance(name, str)}:
        raise refused("architectures", classes, f"must have {' or '.join(architecture.classes)}")
    return architecture
