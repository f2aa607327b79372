"""Batches of equally long sequences."""

from __future__ import annotations

import torch

from ._common import check_packed, run, with_probs


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | tuple:
    """Attention of q over k and v, with gradients.

    Shapes:
        q: [batch, seqlen_q, nheads, headdim]; k: [batch, seqlen_k, nheads_k, headdim];
        v: [batch, seqlen_k, nheads_k, headdim_v]; nheads a multiple of nheads_k
        returns out [batch, seqlen_q, nheads, headdim_v]; with return_attn_probs
            (out, softmax_lse float32 [batch, nheads, seqlen_q], None)

    dropout_p: probability to drop; 0 in evaluation. From 1/256 to 255/256 the mask is flash-attn's own of
        the same seed and offset
    softmax_scale: default 1 / sqrt(headdim)
    causal: the diagonal ends at the bottom right: the last query sees the last key
    window_size: (left, right): query i sees the keys from i + seqlen_k - seqlen_q - left to
        i + seqlen_k - seqlen_q + right, both included; -1 is unbounded
    softcap: above 0, scores become softcap · tanh(score / softcap)
    alibi_slopes: float32 [nheads] or [batch, nheads]; the bias is
        -slope · |i + seqlen_k - seqlen_q - j|
    deterministic: the backward pass gives the same bits on every run

    Errors: ValueError, TypeError.
    """
    result = run(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, return_attn_probs,
        alibi_slopes, deterministic,
    )  # fmt: skip
    return with_probs(result, return_attn_probs)


def flash_attn_qkvpacked_func(
    qkv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | tuple:
    """flash_attn_func() of qkv [batch, seqlen, 3, nheads, headdim]; nothing is copied forward, and
    the gradient has qkv's shape."""
    check_packed("qkv", qkv, -3, 3)
    q, k, v = qkv.unbind(dim=-3)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
        deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | tuple:
    """flash_attn_func() of q [batch, seqlen_q, nheads, headdim] and
    kv [batch, seqlen_k, 2, nheads_k, headdim]."""
    check_packed("kv", kv, -3, 2)
    k, v = kv.unbind(dim=-3)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
        deterministic, return_attn_probs,
    )  # fmt: skip
