"""Which causal LMs are known to give transformers' own numbers here.

A model with LLaMA's interface need not work like LLaMA: it may count positions
by itself, remember by recurrence, look no further back than a window. So each
of transformers' families is tried, small and random (``test_families.py``):
`EmotionLLaMA.loss` and `EmotionLLaMA.score` must equal the model's own plain
forward. Those that do are listed here, all others are refused by name.
"""

import math

from speechbrain_mser.errors import InputError

# Attention that obeys a mask and positions from outside in all layers: the
# candidates are scored as a tree, in one pass. Not doge: transformers up to
# 5.12 let its words see those that come after.
AS_TREE = frozenset(
    """
    afmoe apertus arcee aria_text axk1 beam bitnet cohere cohere2
    cohere2_moe cwm deepseek_v2 deepseek_v3 diffllama dots1 ernie4_5
    ernie4_5_moe exaone exaone4 exaone_moe flex_olmo flint gemma gemma2
    gemma3_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt_oss
    granite granite_swa granitemoe granitemoe_swa granitemoeshared helium
    hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax internlm3
    iquestcoder jais2 jetmoe kolibri1 laguna llama llama4_text mellum
    mimo_v2_flash minicpm3 minimax_m2 minimax_m3_vl_text ministral
    ministral3 mistral mixtral nanochat nemotron olmo olmo2 olmo3 olmoe opt
    persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe sarvam_mla
    sarvam_moe seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma
    youtu
    """.split()  # noqa: SIM905
)
# Recurrence, convolutions or positions of their own: one candidate after the
# other, each with the whole prefix.
IN_TURN = frozenset(
    """
    bailing_hybrid granitemoehybrid inkling_text jamba lara_mini lfm2 lfm3
    minimax olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next
    recurrent_gemma xglm
    """.split()  # noqa: SIM905
)
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def require_family(config, source):
    """Refuse an LLM of a family that is not known to work.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        The LLM's.
    source : str
        Its name, for the message.

    Raises
    ------
    InputError
        It is of another family.

    Example
    -------
    >>> from transformers import GPT2Config
    >>> require_family(GPT2Config(), "openai-community/gpt2")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: the LLM openai-community/gpt2 is ...
    """
    if config.model_type not in AS_TREE | IN_TURN:
        raise InputError(
            f"the LLM {source} is a {config.model_type}, which has not LLaMA's "
            "interface, or was not shown to give its own numbers through it; "
            "choose one of another family, such as llama, qwen3, gemma3_text "
            "or mistral (llama_hub)"
        )


def longest_tree(config):
    """The longest sequence whose end may be a tree of candidates.

    A mask from outside takes the place of a layer's own, and with it that of
    the window; as long as a sequence fits the window both are the same.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        That of an LLM that `require_family` lets pass.

    Returns
    -------
    int or float
        In tokens; 0 for none, infinity for any.

    Example
    -------
    >>> from transformers import MistralConfig
    >>> longest_tree(MistralConfig(sliding_window=4096))
    4096
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if config.model_type in IN_TURN or kinds - _ATTENTION:
        return 0
    windows = (
        getattr(config, "sliding_window", None),
        getattr(config, "attention_chunk_size", None),
    )
    return min((w for w in windows if w is not None), default=math.inf)
