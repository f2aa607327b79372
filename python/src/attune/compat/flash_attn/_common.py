"""What the functions of flash-attn share."""

from __future__ import annotations

from ... import _options, _torch

# What flash-attn's own random bytes can drop; other probabilities get the general stream.
FEWEST, MOST = 1 / 256, 255 / 256


def run(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    returns_lse=False,
    alibi_slopes=None,
    deterministic=False,
    **rest,
):
    """o, and the LSE behind it with returns_lse; `rest` are options of Attune's."""
    left, right = window_size
    left, right = -1 if left < 0 else left, -1 if right < 0 else right
    if dropout_p == 0 and not rest:
        options = _options.simple(
            softmax_scale, causal, False, left, right, softcap, alibi_slopes, deterministic
        )
    else:
        options = _options.of_call(
            dropout_state=_torch.dropout_state(q.device) if dropout_p > 0 else None,
            scale=softmax_scale,
            softcap=softcap,
            dropout=dropout_p,
            fa2_dropout=FEWEST <= dropout_p <= MOST,
            causal=causal,
            left=left,
            right=right,
            alibi_slopes=alibi_slopes,
            deterministic=deterministic,
            **rest,
        )
    return _torch.run(q, k, v, options, lse=returns_lse)


def with_probs(result, return_attn_probs: bool):
    """(out, softmax_lse, None) when probabilities are asked for."""
    return (*result, None) if return_attn_probs else result


def check_packed(what: str, tensor, at: int, count: int) -> None:
    if tensor.dim() > -at and tensor.shape[at] == count:
        return
    raise ValueError(f"{what} has shape {tuple(tensor.shape)}; dimension {at} takes {count}")
