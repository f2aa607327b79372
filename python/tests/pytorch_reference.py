"""Attention by PyTorch's math backend, and the project's tolerance rule over it.

A case is a list of sequences, each with its own dense mask; inputs are any tensors from which those
are sliced. The same code computes the truth (float64) and the plain computation (the inputs' dtype).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

F32 = 2.0**-23
UNIT = {torch.float32: F32, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@dataclass
class Sequence:
    """q [Sq, Hq, D], k [Sk, Hkv, D], v [Sk, Hkv, Dv], views of the inputs; bias is added to the
    scores, broadcastable to [Hq, Sq, Sk], with -inf for what is masked out."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float | None = None
    softcap: float = 0.0
    bias_leaf: torch.Tensor | None = None  # the part of the input "bias" that is in bias

    def effective_scale(self) -> float:
        return self.q.shape[-1] ** -0.5 if self.scale is None else self.scale


def part_for(leaf: torch.Tensor, n: int) -> torch.Tensor:
    """Of a bias, [B or 1, Hq or 1, Sq, Sk] or [Sq, Sk], what batch n sees."""
    return leaf if leaf.dim() < 4 else leaf[n if leaf.shape[0] > 1 else 0]


@dataclass
class Case:
    """inputs: named leaves. call: Attune's result, of inputs. sequences: what it means, of inputs.
    parts: the result's part for each sequence, [Sq, Hq, Dv]."""

    name: str
    inputs: dict[str, torch.Tensor]
    call: Callable[[dict], torch.Tensor]
    sequences: Callable[[dict], list[Sequence]]
    parts: Callable[[torch.Tensor], list[torch.Tensor]]
    differentiable: bool = True


def attend(s: Sequence) -> torch.Tensor:
    """[Sq, Hq, Dv]"""
    q, k, v = (t.transpose(0, 1)[None] for t in (s.q, s.k, s.v))
    bias = None if s.bias is None else s.bias.to(q.dtype)
    if not s.softcap:
        with sdpa_kernel(SDPBackend.MATH):
            out = sdpa(q, k, v, attn_mask=bias, scale=s.scale, enable_gqa=True)
    else:  # which no backend of PyTorch's takes
        group = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(group, 1) for t in (k, v))
        scores = s.softcap * torch.tanh(q @ k.mT * s.effective_scale() / s.softcap)
        scores = scores if bias is None else scores + bias
        blind = (scores == float("-inf")).all(-1, keepdim=True)
        out = torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0) @ v
    return out[0].transpose(0, 1)


def terms(s: Sequence, grad_o: torch.Tensor, dtype) -> dict[str, torch.Tensor]:
    """What float32 arithmetic may lose in each element, as include/attune/oracle.hpp counts it: the
    roundings of each term, added as independent errors are, and what the rounding of a saved o to
    dtype does to delta. Inputs and results are float64."""
    group = s.q.shape[1] // s.k.shape[1]
    q = s.q.transpose(0, 1)
    k, v = (t.transpose(0, 1).repeat_interleave(group, 0) for t in (s.k, s.v))
    do = grad_o.transpose(0, 1)
    scale = s.effective_scale()
    scores = q @ k.mT * scale
    capped = s.softcap * torch.tanh(scores / s.softcap) if s.softcap else scores
    biased = capped if s.bias is None else capped + s.bias
    lse = torch.logsumexp(biased, -1, keepdim=True)
    seen = torch.isfinite(biased)
    p = torch.where(seen, torch.exp(biased - lse), 0.0)
    size = 1 + lse.abs().nan_to_num(posinf=0.0) + abs(scale) * (q.abs() @ k.abs().mT)
    if s.bias is not None:
        size = size + torch.where(seen, s.bias, 0.0).abs()
    o = p @ v
    dp, delta = do @ v.mT, (do * o).sum(-1, keepdim=True)
    loss = p * (
        size * (dp - delta).abs() + do.abs() @ v.abs().mT + (do * o).abs().sum(-1, keepdim=True)
    )
    if dtype != torch.float32:
        loss = loss + p * UNIT[dtype] / 2 / F32 * (do * o).square().sum(-1, keepdim=True).sqrt()
    square = loss**2

    def grouped(t):  # [Hq, Sk, D] -> [Sk, Hkv, D]
        return t.unflatten(0, (-1, group)).sum(1).transpose(0, 1)

    found = {
        "o": (((p * size) ** 2) @ v**2).transpose(0, 1),
        "q": (scale**2 * (square @ k**2)).transpose(0, 1),
        "k": grouped(scale**2 * (square.mT @ q**2)),
        "v": grouped(((p * size) ** 2).mT @ do**2),
    }
    return {name: F32 * t.sqrt() for name, t in found.items()} | {"bias": F32 * loss}


def evaluate(case: Case, dtype, grad_o):
    """The result and the gradients of the inputs, computed in dtype."""
    leaves = {name: t.detach().to(dtype).requires_grad_() for name, t in case.inputs.items()}
    outs = [attend(s) for s in case.sequences(leaves)]
    loss = sum((o * g.to(dtype)).sum() for o, g in zip(outs, case.parts(grad_o)))
    loss.backward()
    return outs, {name: leaf.grad for name, leaf in leaves.items()}


def allowed_rounding(case: Case, dtype, grad_o) -> tuple[list, dict]:
    """terms() of all sequences, in the places of the results and the inputs."""
    leaves = {name: t.detach().double() for name, t in case.inputs.items()}
    places = {name: torch.zeros_like(t) for name, t in leaves.items()}
    outs = []
    targets = case.sequences(places)
    for s, target, part in zip(case.sequences(leaves), targets, case.parts(grad_o.double())):
        found = terms(s, part, dtype)
        outs.append(found["o"])
        for name in "qkv":
            getattr(target, name).add_(found[name])
        if target.bias_leaf is not None:
            target.bias_leaf.add_(found["bias"].sum_to_size(target.bias_leaf.shape))
    return outs, places


def judge(what: str, got, exact, plain, rounding, dtype) -> None:
    """The rule of docs/architecture.md: at most twice the plain computation's largest error and 1.5
    times its RMS, beside the dtype's floor."""
    got, plain = got.double(), plain.double()
    assert got.shape == exact.shape, what
    assert torch.isfinite(got).all(), f"{what} is not finite"
    if exact.numel() == 0:
        return
    error, plain_error = (got - exact).abs(), (plain - exact).abs()
    plain_max, plain_rms = plain_error.max(), plain_error.square().mean().sqrt()
    unit = UNIT[dtype] * exact.abs().max()
    floor = unit + (rounding.max() - 2 * plain_max).clamp(min=0)
    rms_floor = unit + (rounding.square().mean().sqrt() - 1.5 * plain_rms).clamp(min=0)
    worst, rms = error.max(), error.square().mean().sqrt()
    assert worst <= 2 * plain_max + floor, f"{what}: error {worst:.3g}, plain {plain_max:.3g}"
    assert rms <= 1.5 * plain_rms + rms_floor, f"{what}: RMS error {rms:.3g}, plain {plain_rms:.3g}"


def check(case: Case) -> None:
    """Forward and backward of a case against float64."""
    dtype = next(iter(case.inputs.values())).dtype
    leaves = {
        name: t.detach().clone().requires_grad_(case.differentiable)
        for name, t in case.inputs.items()
    }
    got = case.call(leaves)
    grad_o = torch.randn_like(got)
    exact, exact_grads = evaluate(case, torch.float64, grad_o)
    plain, plain_grads = evaluate(case, dtype, grad_o)
    rounding, rounding_grads = allowed_rounding(case, dtype, grad_o)
    for part, e, p, r in zip(case.parts(got.detach()), exact, plain, rounding):
        judge(f"{case.name}: o", part, e, p, r, dtype)
    if not case.differentiable:
        return
    got.backward(grad_o)
    for name, leaf in leaves.items():
        judge(
            f"{case.name}: gradient of {name}",
            leaf.grad, exact_grads[name], plain_grads[name], rounding_grads[name], dtype,
        )  # fmt: skip


def bias_of(visible: torch.Tensor, more: torch.Tensor | float = 0.0) -> torch.Tensor:
    """float64: `more` where visible, else -inf."""
    more = torch.as_tensor(more, dtype=torch.float64)
    return torch.where(visible, more, float("-inf"))


def distance(queries: int, keys: int) -> torch.Tensor:
    """i + keys - queries - j: 0 on the diagonal from the bottom right."""
    return torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)


def band(queries, keys, *, causal=False, top_left=False, left=-1, right=-1) -> torch.Tensor:
    """bool [queries, keys], by the words of the libraries' documentation."""
    d = distance(queries, keys) - (keys - queries if top_left else 0)
    seen = torch.ones_like(d, dtype=torch.bool)
    if causal:
        seen &= d >= 0
    if left >= 0:
        seen &= d <= left
    if right >= 0:
        seen &= d >= -right
    return seen
