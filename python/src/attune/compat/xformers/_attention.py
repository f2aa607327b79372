"""memory_efficient_attention() and its kinds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ... import _options, _torch
from ._dense import AttentionBias


def _merge_groups(tensor, grouped_heads: int):
    """[B, M, G, H, K] -> [B, M, G · H, K], or [B, M, G, K] where heads of a group share theirs."""
    if grouped_heads > 1 and (tensor.shape[3] == 1 or tensor.stride(3) == 0):
        return tensor.select(3, 0)
    return tensor.flatten(2, 3)


def _prepare(query, key, value, attn_bias, p: float, scale) -> tuple:
    """query, key and value as [B, M, H, K], the packed options, and the shape of the result, None where
    it is right as it comes."""
    rank = query.dim()
    if not (3 <= rank <= 5 and key.dim() == rank and value.dim() == rank):
        raise ValueError(
            f"query has shape {tuple(query.shape)}, key {tuple(key.shape)}, value "
            f"{tuple(value.shape)}; all take [B, M, K], [B, M, H, K] or [B, M, G, H, K]"
        )
    if rank == 4 and attn_bias is None and p == 0:
        return query, key, value, _options.simple(scale, False, False, -1, -1), None
    shape = None if rank == 4 else (*query.shape[:-1], value.shape[-1])
    if attn_bias is None:
        options = {}
    elif isinstance(attn_bias, AttentionBias):
        options = attn_bias.options()
    elif isinstance(attn_bias, torch.Tensor):
        options = {"bias": attn_bias}
    else:
        raise TypeError(
            f"attn_bias is a {type(attn_bias).__name__}; it takes a tensor or an AttentionBias"
        )
    bias = options.get("bias")
    if rank == 3:
        query, key, value = (t.unsqueeze(2) for t in (query, key, value))
        if bias is not None and bias.dim() == 3:
            options["bias"] = bias.unsqueeze(1)
    elif rank == 5:
        shared = (key.shape[3] == 1 or key.stride(3) == 0) and (
            value.shape[3] == 1 or value.stride(3) == 0
        )
        key, value = (_merge_groups(t, query.shape[3] if shared else 1) for t in (key, value))
        query = query.flatten(2, 3)
        if bias is not None and bias.dim() == 5:
            options["bias"] = bias.flatten(1, 2)
    if "page_table" in options:
        size = attn_bias.page_size
        key, value = (t.reshape(-1, size, *t.shape[2:]) for t in (key, value))
    if p > 0:
        options["dropout_state"] = _torch.dropout_state(query.device)
    return query, key, value, _options.of_call(scale=scale, dropout=p, **options), shape


def _is_packed(options: tuple) -> bool:
    return options[_options.CU_SEQLENS_Q] is not None


def _lse_outside(options: tuple, heads: tuple, lse):
    """[B, H, M] or [H, total] as [B, heads ..., M], with B = 1 when packed. heads: the extents that
    heads have in the caller's shapes: (), (H,) or (G, H)."""
    lse = lse.unsqueeze(0) if _is_packed(options) else lse
    return lse.reshape(lse.shape[0], *(heads or (1,)), lse.shape[-1])


def _lse_inside(options: tuple, lse):
    lse = lse.reshape(lse.shape[0], -1, lse.shape[-1])
    return lse.squeeze(0) if _is_packed(options) else lse


def memory_efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | AttentionBias | None = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: object = None,
    output_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """softmax(scale · query keyᵀ + attn_bias) value, with gradients, the bias tensor's included.

    Shapes:
        query: [B, Mq, H, K]; key: [B, Mkv, H, K]; value: [B, Mkv, H, Kv], any strides; or without H
            (one head); or [B, M, G, H, K], heads in groups, where key and value may have 1 in
            place of H or be expanded to it: then they are read once a group
        attn_bias: a tensor [B, H, Mq, Mkv] ([B, Mq, Mkv] without H, [B, G, H, Mq, Mkv] with groups),
            each of the first may be 1; or one of the classes of attn_bias
        returns [B, Mq, H, Kv], in the shape of query

    p: dropout's probability; scale: default 1 / sqrt(K); op: taken, and left to Attune;
    output_dtype: the result, rounded to query's dtype, as this one

    Errors: ValueError, TypeError.
    """
    query, key, value, options, shape = _prepare(query, key, value, attn_bias, p, scale)
    out = _torch.run(query, key, value, options)
    if shape is not None:
        out = out.reshape(shape)
    return out if output_dtype is None else out.to(output_dtype)


memory_efficient_attention_forward = memory_efficient_attention


def _refuse_dropout(p: float) -> None:
    if p != 0:
        raise NotImplementedError(
            f"p = {p}: dropout needs its state in the backward pass; call memory_efficient_attention"
        )


def memory_efficient_attention_forward_requires_grad(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | AttentionBias | None = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: object = None,
    output_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, lse) for memory_efficient_attention_backward(), or over some of the keys for
    merge_attentions(). Differentiable. lse: float32 [B, H, Mq], with groups [B, G, H, Mq], with packed
    queries [1, H, total]. Arguments as memory_efficient_attention(), without dropout."""
    _refuse_dropout(p)
    heads = tuple(query.shape[2:-1])
    query, key, value, options, shape = _prepare(query, key, value, attn_bias, p, scale)
    out, lse = _torch.run(query, key, value, options, lse=True)
    if shape is not None:
        out = out.reshape(shape)
    lse = _lse_outside(options, heads, lse)
    return out if output_dtype is None else out.to(output_dtype), lse


memory_efficient_attention_partial = memory_efficient_attention_forward_requires_grad


def memory_efficient_attention_backward(
    grad: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | AttentionBias | None = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: object = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dq, dk, dv), each in the shape of its input; output and lse are those of
    memory_efficient_attention_forward_requires_grad(), grad is the gradient of output."""
    _refuse_dropout(p)
    q, k, v, options, _ = _prepare(query, key, value, attn_bias, p, scale)
    rows = (*q.shape[:-1], v.shape[-1])
    grads = torch.ops.attune.attention_backward(
        grad.reshape(rows), None, q, k, v, output.reshape(rows), _lse_inside(options, lse),
        False, False, False, *options,
    )  # fmt: skip
    dq, dk, dv = grads[:3]
    if query.dim() == 5 and dk.shape[2] != query.shape[2] * query.shape[3]:
        dk, dv = (_spread(g, t) for g, t in ((dk, key), (dv, value)))
    return dq.reshape(query.shape), dk.reshape(key.shape), dv.reshape(value.shape)


def _spread(grad, like):
    """The gradient of a group as one of its expanded heads, whose sum is what counts: the first has
    all of it."""
    if like.shape[3] == 1:
        return grad
    spread = grad.new_zeros(like.shape)
    spread.select(3, 0).copy_(grad.reshape(*like.shape[:3], like.shape[4]))
    return spread


def merge_attentions(
    attn_split: torch.Tensor | Sequence[torch.Tensor],
    lse_split: torch.Tensor | Sequence[torch.Tensor],
    write_lse: bool = True,
    output_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention over all keys, from attention over parts of them: (output, lse or None).

    attn_split: parts [B, M, H, K] (or [B, M, G, H, K]), a list or stacked in front; lse_split
    likewise, [B, H, M] (or [B, G, H, M]). A query that sees nothing anywhere gives 0. Differentiable.
    """
    attn = attn_split if isinstance(attn_split, torch.Tensor) else torch.stack(list(attn_split))
    lses = lse_split if isinstance(lse_split, torch.Tensor) else torch.stack(list(lse_split))
    if attn.dim() != lses.dim() + 1 or attn.shape[0] != lses.shape[0]:
        raise ValueError(f"parts {tuple(attn.shape)} do not fit their lse {tuple(lses.shape)}")
    lse = torch.logsumexp(lses, dim=0)
    weight = torch.where(lses == float("-inf"), 0.0, torch.exp(lses - lse.nan_to_num(neginf=0.0)))
    out = (attn.float() * weight.movedim(-1, 2).unsqueeze(-1)).sum(0)
    return out.to(output_dtype or attn.dtype), lse if write_lse else None
