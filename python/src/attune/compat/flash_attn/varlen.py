"""Sequences of different lengths, packed behind each other."""

from __future__ import annotations

import torch

from ._common import check_packed, run, with_probs


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor | tuple:
    """flash_attn_func() of packed sequences, each over its own keys.

    Shapes:
        q: [total_q, nheads, headdim]; k, v: [total_k, nheads_k, headdim], or with block_table
            [num_blocks, page_block_size, nheads_k, headdim]
        cu_seqlens_q, cu_seqlens_k: int32 [batch + 1], where each sequence begins and the last ends
        max_seqlen_q, max_seqlen_k: the longest lengths, as numbers
        block_table: int32 [batch, max_num_blocks_per_seq]; pages have no gradient on GPUs
        returns out [total_q, nheads, headdim_v]; with return_attn_probs
            (out, softmax_lse float32 [nheads, total_q], None)

    The other arguments, and errors: as flash_attn_func(). Diagonals are each sequence's own.
    """
    if block_table is None:
        keys = {"cu_seqlens_k": cu_seqlens_k}
    else:
        keys = {"page_table": block_table, "key_lengths": cu_seqlens_k[1:] - cu_seqlens_k[:-1]}
    result = run(
        q,
        k,
        v,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        deterministic=deterministic,
        returns_lse=return_attn_probs,
        cu_seqlens_q=cu_seqlens_q,
        max_seqlen_q=int(max_seqlen_q),
        max_seqlen_k=int(max_seqlen_k),
        **keys,
    )
    return with_probs(result, return_attn_probs)


def flash_attn_varlen_qkvpacked_func(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | tuple:
    """flash_attn_varlen_func() of qkv [total, 3, nheads, headdim]."""
    check_packed("qkv", qkv, -3, 3)
    q, k, v = qkv.unbind(dim=-3)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p, softmax_scale, causal,
        window_size, softcap, alibi_slopes, deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_varlen_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor | tuple:
    """flash_attn_varlen_func() of q [total_q, nheads, headdim] and
    kv [total_k, 2, nheads_k, headdim]."""
    check_packed("kv", kv, -3, 2)
    k, v = kv.unbind(dim=-3)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
        causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs,
    )  # fmt: skip
