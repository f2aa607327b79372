"""Attune as an attention implementation of Hugging Face transformers.

import attune.compat.transformers
attune.compat.transformers.register()
model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="attune")
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .. import _options, _torch

__all__ = ["attention_forward", "register"]


def register(name: str = "attune") -> None:
    """Makes attn_implementation=name run any model that looks its attention up in
    AttentionInterface, prefill and generation, with its caches and padding masks. Masks are made as
    for "sdpa": none where causality says it all, else booleans."""
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, sdpa_mask)


def attention_forward(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    is_causal=None,
    position_bias=None,
    softcap=None,
    s_aux=None,
    **kwargs,
):
    """What transformers calls in each attention layer.

    Shapes:
        query: [B, Hq, Sq, D]; key: [B, Hkv, Sk, D]; value: [B, Hkv, Sk, Dv], grouped heads as they are
        attention_mask: None, or bool or additive, broadcastable to [B, Hq, Sq, Sk]
        position_bias: added to the scores, [B or 1, Hq, Sq, Sk]; its gradient is computed
        softcap: of the scores; s_aux: [Hq], sink logits
        returns ([B, Sq, Hq, Dv], None): there are no attention weights to return
    """
    cache = kwargs.pop("cache", None)
    if cache is not None:  # pages of continuous batching, which the layer leaves to its attention
        key, value = cache.update(
            key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
        )
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    # One query is the last one and sees all. With a longer, still empty static cache behind them,
    # queries start at the first key: the diagonal is the top left's.
    causal = bool(is_causal and attention_mask is None and query.shape[2] > 1)
    if attention_mask is not None and attention_mask.shape[-1] > key.shape[2]:
        attention_mask = attention_mask[..., : key.shape[2]]
    query, key, value = _torch.autocast((query, key, value), query.device)
    options = _options.of_call(
        bias=_bias(attention_mask, position_bias, key.shape[2]),
        sink=None if s_aux is None else s_aux.float(),
        dropout_state=_torch.dropout_state(query.device) if dropout > 0 else None,
        scale=scaling,
        softcap=softcap or 0.0,
        dropout=dropout,
        causal=causal,
        top_left=True,
        heads_first=True,
    )
    # [B, H, S, D] as it is returned lies in memory as [B, S, H, D].
    return _torch.run(query, key, value, options).transpose(1, 2), None


def _bias(mask, position_bias, keys: int):
    """Both in one tensor."""
    if position_bias is None:
        return mask
    position_bias = position_bias[..., :keys]
    if mask is None:
        return position_bias
    if mask.dtype == torch.bool:
        return torch.where(mask, position_bias, float("-inf"))
    return position_bias + mask
