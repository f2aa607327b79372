"""torch.nn.functional.scaled_dot_product_attention, computed by Attune.

https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

from __future__ import annotations

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant

from .. import _options, _torch

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As PyTorch's: softmax(scale · query keyᵀ + attn_mask) value.

    Shapes:
        query: [..., Hq, L, E], key: [..., H, S, E], value: [..., H, S, Ev], float32, float16 or
            bfloat16; dimensions in front broadcast; 2 and 3 dimensions will do
        returns [..., Hq, L, Ev]

    attn_mask: bool (True takes part) or a float to be added, broadcastable to [..., Hq, L, S]; its
        gradient is computed when it requires one; or a torch.nn.attention.bias.CausalBias
    is_causal: query i sees the keys up to i (the diagonal starts at the top left)
    dropout_p: applied whenever it is not 0, as there; drawn from PyTorch's generator
    enable_gqa: Hq may be a multiple of H

    Rows whose keys are all masked out are 0, as PyTorch's since 2.5. float64 is refused.
    Errors: ValueError (shapes; attn_mask together with is_causal), TypeError (dtypes).
    """
    if (
        dropout_p == 0
        and (attn_mask is None or (not is_causal and type(attn_mask) is torch.Tensor))
        and not _torch._is_autocast_enabled()
    ):
        options = _options.simple(scale, is_causal, True, -1, -1, bias=attn_mask, heads_first=True)
        try:
            result = _torch.run_bhsd(query, key, value, options, not enable_gqa)
        except ValueError:
            result = NotImplemented  # batches that broadcast; else the same error comes again below
        if result is not NotImplemented:
            return result
    query, key, value = _torch.autocast((query, key, value), query.device)
    top_left = True
    if attn_mask is not None:
        if is_causal:
            raise ValueError("attn_mask and is_causal=True exclude each other")
        if isinstance(attn_mask, CausalBias):
            is_causal = True
            top_left = attn_mask.variant == CausalVariant.UPPER_LEFT
            attn_mask = None
    shape = None
    if query.dim() != 4 or key.dim() != 4 or value.dim() != 4 or _broadcasts(query, key, value):
        shape, query, key, value, attn_mask = _four_dimensions(query, key, value, attn_mask)
    heads, kv_heads = query.shape[1], key.shape[1]
    if heads != kv_heads and kv_heads != 1 and not enable_gqa:
        raise ValueError(
            f"query has {heads} heads and key {kv_heads}; for grouped heads say enable_gqa=True"
        )
    options = _options.of_call(
        bias=attn_mask,
        dropout_state=_torch.dropout_state(query.device) if dropout_p > 0 else None,
        scale=scale,
        dropout=dropout_p,
        causal=is_causal,
        top_left=top_left,
        heads_first=True,
    )
    out = _torch.run(query, key, value, options)
    return out if shape is None else out.reshape(shape)


def _broadcasts(query, key, value) -> bool:
    """Whether 4-dimensional inputs are of unlike batches, or of heads that GQA does not cover."""
    return (
        query.shape[0] != key.shape[0]
        or key.shape[:2] != value.shape[:2]
        or (query.shape[1] == 1 and key.shape[1] != 1)
    )


def _four_dimensions(query, key, value, mask):
    """[B, H, S, D] of each, and the shape of the result."""
    rank = max(t.dim() for t in (query, key, value))
    if min(t.dim() for t in (query, key, value)) < 2:
        raise ValueError("query, key and value take at least 2 dimensions, [L, E]")
    leading = max(rank - 3, 1)

    def padded(tensor):
        return tensor[(None,) * (leading + 3 - tensor.dim())]

    query, key, value = padded(query), padded(key), padded(value)
    batch = torch.broadcast_shapes(*(t.shape[:leading] for t in (query, key, value)))
    heads = max(key.shape[leading], value.shape[leading])
    q_heads = heads if query.shape[leading] == 1 else query.shape[leading]

    def joined(tensor, count):
        tensor = tensor.expand(*batch, count, *tensor.shape[-2:])
        return tensor.reshape(-1, *tensor.shape[-3:])

    shape = (*batch, q_heads, query.shape[-2], value.shape[-1])
    shape = shape[leading + 3 - rank :] if rank < 4 else shape
    if mask is not None and leading > 1 and mask.dim() > 3:
        mask = padded(mask)
        if any(extent != 1 for extent in mask.shape[:leading]):
            mask = mask.expand(*batch, *mask.shape[-3:])
        mask = mask.reshape(-1, *mask.shape[-3:])
    return shape, joined(query, q_heads), joined(key, heads), joined(value, heads), mask
