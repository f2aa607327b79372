"""The options of a call, checked and in the order in which attune._core takes them."""

from __future__ import annotations

from typing import Any

MASKS = {
    None: (False, False),
    "none": (False, False),
    "causal": (True, False),
    "causal-bottom-right": (True, False),
    "causal-top-left": (True, True),
}
LAYOUTS = {"bshd": False, "bhsd": True}
DROPOUT_STREAMS = {"curand": False, "fa2": True}

# What stands where in the tuple, tensors first.
TENSORS = ("bias", "alibi_slopes", "sink", "key_lengths", "cu_seqlens_q", "cu_seqlens_k", "page_table",
           "dropout_state", "q_scale", "k_scale", "v_scale")  # fmt: skip
NAMES = (*TENSORS, "max_seqlen_q", "max_seqlen_k", "scale", "softcap", "dropout", "dropout_seed",
         "dropout_offset", "fa2_dropout", "causal", "top_left", "offset", "left", "right",
         "deterministic", "heads_first", "threads", "stream")  # fmt: skip
# Positions, for those who look at one value or change it.
BIAS, ALIBI_SLOPES, SINK = (NAMES.index(n) for n in ("bias", "alibi_slopes", "sink"))
CU_SEQLENS_Q, CU_SEQLENS_K = NAMES.index("cu_seqlens_q"), NAMES.index("cu_seqlens_k")
PAGE_TABLE, DROPOUT_STATE = NAMES.index("page_table"), NAMES.index("dropout_state")
Q_SCALE, K_SCALE, V_SCALE = (NAMES.index(n) for n in ("q_scale", "k_scale", "v_scale"))
DROPOUT, HEADS_FIRST, STREAM = (NAMES.index(n) for n in ("dropout", "heads_first", "stream"))


def one_of(what: str, value: Any, known: dict) -> Any:
    try:
        return known[value]
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in known)
        raise ValueError(f"{what} = {value!r} is none of {names}") from None


# Arguments are called by name; a `*` in front would have Python look up each default in a dictionary.
def pack(
    mask=None,
    window=(-1, -1),
    diagonal="bottom-right",
    offset=0,
    scale=None,
    softcap=0.0,
    bias=None,
    alibi_slopes=None,
    sink=None,
    dropout=0.0,
    dropout_stream="curand",
    dropout_seed=None,
    dropout_offset=0,
    dropout_state=None,
    key_lengths=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    page_table=None,
    deterministic=False,
    layout="bshd",
    threads=0,
    stream=None,
    q_scale=None,
    k_scale=None,
    v_scale=None,
) -> tuple:
    """The tuple that _core.forward and _core.backward take; arguments as attune.attention's.

    Errors: ValueError for a word that is none of those known, for a mask and a bias at once, and
    for dropout without a seed.
    """
    if mask is not None and not isinstance(mask, str):
        if bias is not None:
            raise ValueError("mask and bias are both arrays; add them up, or leave one out")
        bias, mask = mask, None
    causal, top_left = MASKS[mask] if mask in MASKS else one_of("mask", mask, MASKS)
    if diagonal != "bottom-right":
        if causal and not top_left:
            raise ValueError(
                f"mask = {mask!r} says where its diagonal lies; diagonal = {diagonal!r} is not needed"
            )
        top_left = one_of("diagonal", diagonal, {"bottom-right": False, "top-left": True})
    if dropout > 0 and dropout_seed is None and dropout_state is None:
        raise ValueError(
            f"dropout = {dropout} needs dropout_seed, a number, for arrays whose framework has no generator"
        )
    fa2_dropout = one_of("dropout_stream", dropout_stream, DROPOUT_STREAMS)
    left, right = window
    return (
        bias,
        alibi_slopes,
        sink,
        key_lengths,
        cu_seqlens_q,
        cu_seqlens_k,
        page_table,
        dropout_state,
        q_scale,
        k_scale,
        v_scale,
        max_seqlen_q,
        max_seqlen_k,
        scale,
        softcap,
        dropout,
        dropout_seed or 0,
        dropout_offset,
        fa2_dropout,
        causal,
        top_left,
        offset,
        left,
        right,
        deterministic,
        LAYOUTS[layout] if layout in LAYOUTS else one_of("layout", layout, LAYOUTS),
        threads,
        -1 if stream is None else stream,
    )


def simple(
    scale,
    causal,
    top_left,
    left,
    right,
    softcap=0.0,
    slopes=None,
    deterministic=False,
    bias=None,
    heads_first=False,
) -> tuple:
    """of_call() for what most calls say, by position: in half the time."""
    return (
        bias, slopes, None, None, None, None, None, None, None, None, None, None, None, scale,
        softcap, 0.0, 0, 0, False, causal, top_left, 0, left, right, deterministic,
        heads_first, 0, -1,
    )  # fmt: skip


def of_call(
    bias=None,
    alibi_slopes=None,
    sink=None,
    key_lengths=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    page_table=None,
    dropout_state=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    scale=None,
    softcap=0.0,
    dropout=0.0,
    fa2_dropout=False,
    causal=False,
    top_left=False,
    offset=0,
    left=-1,
    right=-1,
    deterministic=False,
    heads_first=False,
) -> tuple:
    """pack() for attune.compat, which has nothing to check or to translate."""
    return (
        bias,
        alibi_slopes,
        sink,
        key_lengths,
        cu_seqlens_q,
        cu_seqlens_k,
        page_table,
        dropout_state,
        None,
        None,
        None,
        max_seqlen_q,
        max_seqlen_k,
        scale,
        softcap,
        dropout,
        0,
        0,
        fa2_dropout,
        causal,
        top_left,
        offset,
        left,
        right,
        deterministic,
        heads_first,
        0,
        -1,
    )
