"""A call of attune.attention, or of attune.compat, as a step of a program."""

from __future__ import annotations

import sympy
import torch

from .. import _options
from ._errors import TraceError
from ._recording import Attention, View, row_major


def step(recorder, inputs, places, options) -> Attention:
    """`inputs`: q, k, v; `places`: o and the LSE, or None; `options` as _options.pack() orders
    them."""
    given = dict(zip(_options.NAMES, options))
    words = "forward" + _words(recorder.name, given)
    tensors: dict[str, View] = {}
    for name, tensor in zip(("q", "k", "v", "o"), (*inputs, places[0])):
        paged = given["page_table"] is not None and name in "kv"
        view = recorder.view(tensor)
        if len(view.shape) == 3:
            view = _padded(view, 4)
        elif given["heads_first"] and not paged:
            view = _swapped(view)
        tensors[name] = view
    recorder.writable(tensors["o"], "attention")
    if places[1] is not None:
        tensors["lse"] = recorder.writable(recorder.view(places[1]), "attention")
        if given["cu_seqlens_q"] is None and len(tensors["lse"].shape) == 2:
            tensors["lse"] = _padded(tensors["lse"], 3)
    for name in _options.TENSORS:
        if given[name] is not None:
            view = recorder.view(given[name])
            tensors[name] = _padded(view, 4) if name == "bias" else view
    numbers = {name: given[name] for name in ("dropout_seed", "dropout_offset") if given["dropout"]}
    for side, lengths in (("q", "cu_seqlens_q"), ("k", "cu_seqlens_k")):
        longest = given[f"max_seqlen_{side}"]
        pages = side == "k" and given["page_table"] is not None
        if longest is None and pages:
            longest = given["page_table"].shape[1] * inputs[1].shape[1]
        if given[lengths] is None and not pages:
            continue
        if longest is None:
            raise TraceError(
                f"{recorder.name}: attention on packed tensors needs max_seqlen_{side}"
            )
        numbers[f"max_seqlen_{side}"] = recorder.symbols.expression(longest)
    return Attention(words, tensors, numbers)


def _words(name: str, given: dict) -> str:
    for key in ("scale", "softcap", "dropout", "offset", "left", "right"):
        if isinstance(given[key], (torch.SymInt, torch.SymFloat)):
            raise TraceError(
                f"{name}: attention: {key} = {given[key]} depends on the sizes; a program's "
                "attention has it fixed"
            )
    text = ""
    if given["causal"]:
        text += f" mask=causal-{'top-left' if given['top_left'] else 'bottom-right'}"
    elif given["top_left"] and (given["left"], given["right"], given["offset"]) != (-1, -1, 0):
        text += " diagonal=top-left"
    if given["offset"]:
        text += f" offset={given['offset']}"
    if (given["left"], given["right"]) != (-1, -1):
        text += f" window={given['left']},{given['right']}"
    for key in ("softcap", "dropout"):
        if given[key]:
            text += f" {key}={given[key]!r}"
    if given["dropout"] and given["fa2_dropout"]:
        text += " dropout_stream=fa2"
    if given["scale"] is not None:
        text += f" scale={float(given['scale'])!r}"
    return text + (" deterministic" if given["deterministic"] else "")


def _padded(view: View, rank: int) -> View:
    """With dimensions of 1 in front."""
    more = rank - len(view.shape)
    shape = [sympy.Integer(1)] * more + view.shape
    strides = row_major(shape)[:more] + view.strides
    return View(view.storage, view.dtype, shape, strides, view.offset)


def _swapped(view: View) -> View:
    """[B, H, S, D] as [B, S, H, D]."""
    (b, h, s, d), (i, j, k, m) = view.shape, view.strides
    return View(view.storage, view.dtype, [b, s, h, d], [i, k, j, m], view.offset)
