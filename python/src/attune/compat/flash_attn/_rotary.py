"""Rotary position embeddings, after Su et al., "RoFormer", 2021 (arXiv:2104.09864)."""

from __future__ import annotations

import torch


def rotate(x, cos, sin, positions, interleaved: bool):
    """x [batch, seqlen, heads, headdim] turned by the angles of its positions.

    cos, sin: [longest, rotary_dim / 2]; positions: int64 [batch, seqlen]. The first rotary_dim
    columns turn: pairs of neighbours (2n, 2n + 1) when interleaved, else (n, n + rotary_dim / 2).
    Computed in float32, returned in x's dtype.
    """
    half = cos.shape[-1]
    if sin.shape != cos.shape or 2 * half > x.shape[-1]:
        raise ValueError(
            f"rotary_cos has shape {tuple(cos.shape)} and rotary_sin {tuple(sin.shape)}; they take "
            f"the same, [longest, rotary_dim / 2] with rotary_dim at most headdim = {x.shape[-1]}"
        )
    cos, sin = (table[positions].float()[:, :, None] for table in (cos, sin))
    turned, rest = x[..., : 2 * half].float(), x[..., 2 * half :]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., :half], turned[..., half:]
    parts = (first * cos - second * sin, first * sin + second * cos)
    turned = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    return torch.cat((turned.to(x.dtype), rest), -1)
