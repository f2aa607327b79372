"""Attention over a cache of keys and values, which may grow in the same call."""

from __future__ import annotations

import torch

from ._common import run
from ._rotary import rotate


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    rotary_cos: torch.Tensor | None = None,
    rotary_sin: torch.Tensor | None = None,
    cache_seqlens: int | torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: torch.Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor | tuple:
    """Writes k and v, if any, into the cache behind what is there, then attends to all of it.

    Shapes:
        q: [batch, seqlen_q, nheads, headdim]
        k_cache, v_cache: [batch_cache, seqlen_cache, nheads_k, headdim], or with block_table
            [num_blocks, page_block_size, nheads_k, headdim], pages of any size; written in place
        k, v: [batch, seqlen_new, nheads_k, headdim]
        rotary_cos, rotary_sin: [longest, rotary_dim / 2]: turn k by its positions in the cache, and q
            by the same when causal or with a window, else by the position cache_seqlens
        cache_seqlens: a number or int32 [batch]: keys in the cache before this call; None: all
        cache_batch_idx: int32 [batch], the row of the cache for each sequence
        cache_leftpad: int32 [batch], the first key of the cache that counts
        block_table: int32 [batch, max_num_blocks_per_seq]
        num_splits: taken, and left to Attune
        returns out [batch, seqlen_q, nheads, headdim_v]; with return_softmax_lse
            (out, softmax_lse float32 [batch, nheads, seqlen_q])

    No gradient. Errors: ValueError, TypeError; IndexError on the CPU when the cache is too short.
    """
    if (k is None) != (v is None):
        raise ValueError("k and v are given both or neither")
    if k is not None and cache_seqlens is None:
        raise ValueError("k and v are appended at cache_seqlens, which is missing")
    if block_table is not None and (cache_batch_idx is not None or cache_leftpad is not None):
        raise ValueError("block_table excludes cache_batch_idx and cache_leftpad")
    if rotary_cos is not None and k is None:
        raise ValueError("rotary_cos turns new keys, but there is no k")
    batch = q.shape[0]
    with torch.no_grad():
        lengths = _lengths(cache_seqlens, batch, q.device)
        if rotary_cos is not None:
            sides = tuple(window_size)
            q = _turn_queries(
                q, rotary_cos, rotary_sin, lengths, causal or sides != (-1, -1), rotary_interleaved
            )
            k = rotate(k, rotary_cos, rotary_sin, _positions(lengths, k), rotary_interleaved)
        if k is not None:
            at = _places(lengths, k, k_cache, cache_batch_idx, block_table)
            k_cache[at] = k
            v_cache[at] = v
            lengths = lengths + k.shape[1]
        rest = {}
        if block_table is not None:
            rest["page_table"] = block_table
        elif cache_batch_idx is not None:  # each row of the cache is a page
            rest["page_table"] = cache_batch_idx.to(torch.int32)[:, None]
        elif k_cache.shape[0] != batch:
            k_cache, v_cache = k_cache[:batch], v_cache[:batch]
        if lengths is not None:
            rest["key_lengths"] = lengths.to(torch.int32)
        if cache_leftpad is not None:
            # Diagonals, windows and slopes count from the end, so what is in front may be masked.
            keys = torch.arange(k_cache.shape[1], device=q.device)
            rest["bias"] = (keys >= cache_leftpad[:, None])[:, None, None]
        return run(
            q,
            k_cache,
            v_cache,
            softmax_scale=softmax_scale,
            causal=causal,
            window_size=window_size,
            softcap=softcap,
            alibi_slopes=alibi_slopes,
            returns_lse=return_softmax_lse,
            **rest,
        )


def _lengths(cache_seqlens, batch: int, device):
    """int64 [batch], or None."""
    if cache_seqlens is None:
        return None
    if isinstance(cache_seqlens, int):
        return torch.full((batch,), cache_seqlens, dtype=torch.int64, device=device)
    return cache_seqlens.to(torch.int64)


def _positions(lengths, new):
    """int64 [batch, seqlen_new]: where new keys go."""
    return lengths[:, None] + torch.arange(new.shape[1], device=new.device)


def _turn_queries(q, cos, sin, lengths, follows: bool, interleaved: bool):
    positions = _positions(lengths, q) if follows else lengths[:, None].expand(-1, q.shape[1])
    return rotate(q, cos, sin, positions, interleaved)


def _places(lengths, new, cache, cache_batch_idx, block_table) -> tuple:
    """Indices of new keys in the first two dimensions of the cache."""
    positions = _positions(lengths, new)
    if block_table is not None:
        page = cache.shape[1]
        return block_table.to(torch.int64).gather(1, positions // page), positions % page
    rows = (
        torch.arange(new.shape[0], device=new.device)
        if cache_batch_idx is None
        else cache_batch_idx
    )
    return rows.to(torch.int64)[:, None], positions
