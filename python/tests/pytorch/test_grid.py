"""Seeded random calls of every function of attune.compat.torch, .flash_attn and .xformers, forward
and backward, each against PyTorch's math backend in float64.

A failure prints its seed; `pytest -k "seed-123"` repeats it.
"""

import random

import pytest
import torch

from attune.compat import flash_attn, xformers
from attune.compat.torch import scaled_dot_product_attention
from pytorch_reference import Case, Sequence, band, bias_of, check, distance, part_for

COUNT = 1200


class Draw:
    """A case's random choices."""

    def __init__(self, seed: int, device: str):
        self.device = device
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = self.pick(torch.float32, torch.float32, torch.float16, torch.bfloat16)
        self.d = self.pick(4, 8, 12, 16, 17)
        self.dv = self.pick(self.d, self.d, 8)
        self.heads_k = self.pick(1, 2)
        self.heads = self.heads_k * self.pick(1, 1, 2, 3)

    def pick(self, *of):
        return self.rng.choice(of)

    def up_to(self, most: int, least: int = 1) -> int:
        return self.rng.randint(least, most)

    def normal(self, *shape) -> torch.Tensor:
        numbers = torch.randn(shape, generator=self.generator, device="cpu")
        return numbers.to(self.device, self.dtype)

    def visible(self, *shape) -> torch.Tensor:
        return self.uniform(*shape) < 0.7

    def uniform(self, *shape) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator, device="cpu").to(self.device)

    def permutation(self, count: int) -> torch.Tensor:
        order = torch.randperm(count, generator=self.generator, device="cpu")
        return order.to(self.device)

    def scale(self):
        return self.pick(None, None, 0.2)


# ---- PyTorch ------------------------------------------------------------------------------------


def torch_sdpa(d: Draw) -> Case:
    b, sq, sk = d.up_to(3), d.up_to(20), d.up_to(20)
    gqa = d.pick(True, False)
    heads_k = d.heads_k if gqa else d.heads
    inputs = {
        "q": d.normal(b, d.heads, sq, d.d),
        "k": d.normal(b, heads_k, sk, d.d),
        "v": d.normal(b, heads_k, sk, d.dv),
    }
    kind = d.pick("none", "causal", "bool", "bias")
    options = {"scale": d.scale(), "enable_gqa": gqa, "is_causal": kind == "causal"}
    shape = d.pick((sq, sk), (b, 1, sq, sk), (1, d.heads, 1, sk), (b, d.heads, sq, sk))
    visible = d.visible(*shape)
    if kind == "bias":
        inputs["bias"] = d.normal(*shape)

    def call(x):
        mask = {"bool": visible, "bias": x.get("bias")}.get(kind)
        return scaled_dot_product_attention(x["q"], x["k"], x["v"], attn_mask=mask, **options)

    def bias(x, n):
        if kind == "causal":
            return bias_of(band(sq, sk, causal=True, top_left=True))
        if kind == "bool":
            return bias_of(part_for(visible, n))
        return part_for(x["bias"], n) if kind == "bias" else None

    def sequences(x):
        return [
            Sequence(
                *(x[name][n].transpose(0, 1) for name in "qkv"),
                bias(x, n),
                options["scale"],
                bias_leaf=part_for(x["bias"], n) if kind == "bias" else None,
            )
            for n in range(b)
        ]

    return Case("torch", inputs, call, sequences, lambda o: [t.transpose(0, 1) for t in o])


# ---- flash-attn ---------------------------------------------------------------------------------


def flash_options(d: Draw, batch: int):
    """Options, and the bias [batch, queries, keys] that they mean."""
    causal = d.pick(True, False)
    window = d.pick((-1, -1), (-1, -1), (d.up_to(8, 0), -1), (d.up_to(8, 0), d.up_to(8, 0)))
    slopes = d.pick(None, None, (d.heads,), (batch, d.heads))
    slopes = None if slopes is None else d.uniform(*slopes)
    options = {
        "causal": causal,
        "window_size": window,
        "alibi_slopes": slopes,
        "softmax_scale": d.scale(),
        "softcap": d.pick(0.0, 0.0, 2.0),
    }

    def bias(n: int, sq: int, sk: int):
        right = 0 if causal else window[1]
        seen = band(sq, sk, left=window[0], right=right)
        if slopes is None:
            return bias_of(seen)
        mine = slopes if slopes.dim() == 1 else slopes[n]
        return bias_of(seen, -mine.double()[:, None, None] * distance(sq, sk).abs())

    def sequence(n, q, k, v):
        return Sequence(
            q, k, v, bias(n, len(q), len(k)), options["softmax_scale"], options["softcap"]
        )

    return options, sequence


def flash_dense(d: Draw) -> Case:
    b, sq, sk = d.up_to(3), d.up_to(20), d.up_to(20)
    options, sequence = flash_options(d, b)
    options["deterministic"] = d.pick(True, False)
    inputs = {
        "q": d.normal(b, sq, d.heads, d.d),
        "k": d.normal(b, sk, d.heads_k, d.d),
        "v": d.normal(b, sk, d.heads_k, d.dv),
    }
    return Case(
        "flash_attn_func",
        inputs,
        lambda x: flash_attn.flash_attn_func(x["q"], x["k"], x["v"], **options),
        lambda x: [sequence(n, x["q"][n], x["k"][n], x["v"][n]) for n in range(b)],
        list,
    )


def flash_qkvpacked(d: Draw) -> Case:
    b, s = d.up_to(3), d.up_to(20)
    options, sequence = flash_options(d, b)
    return Case(
        "flash_attn_qkvpacked_func",
        {"qkv": d.normal(b, s, 3, d.heads, d.d)},
        lambda x: flash_attn.flash_attn_qkvpacked_func(x["qkv"], **options),
        lambda x: [sequence(n, *x["qkv"][n].unbind(1)) for n in range(b)],
        list,
    )


def flash_kvpacked(d: Draw) -> Case:
    b, sq, sk = d.up_to(3), d.up_to(20), d.up_to(20)
    options, sequence = flash_options(d, b)
    inputs = {"q": d.normal(b, sq, d.heads, d.d), "kv": d.normal(b, sk, 2, d.heads_k, d.d)}
    return Case(
        "flash_attn_kvpacked_func",
        inputs,
        lambda x: flash_attn.flash_attn_kvpacked_func(x["q"], x["kv"], **options),
        lambda x: [sequence(n, x["q"][n], *x["kv"][n].unbind(1)) for n in range(b)],
        list,
    )


def starts_of(lengths) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def flash_varlen(d: Draw) -> Case:
    b = d.up_to(3)
    lengths_q = [d.up_to(12, 0) for _ in range(b)]
    lengths_k = [d.up_to(12) for _ in range(b)]
    kind = d.pick("separate", "kv", "qkv")
    if kind == "qkv":
        lengths_k = lengths_q
    options, sequence = flash_options(d, b)
    q_starts, k_starts = starts_of(lengths_q), starts_of(lengths_k)
    cu = (q_starts, k_starts, max(lengths_q), max(lengths_k))
    total_q, total_k = sum(lengths_q), sum(lengths_k)
    if kind == "separate":
        inputs = {
            "q": d.normal(total_q, d.heads, d.d),
            "k": d.normal(total_k, d.heads_k, d.d),
            "v": d.normal(total_k, d.heads_k, d.dv),
        }
    elif kind == "kv":
        inputs = {"q": d.normal(total_q, d.heads, d.d), "kv": d.normal(total_k, 2, d.heads_k, d.d)}
    else:
        inputs = {"qkv": d.normal(total_q, 3, d.heads, d.d)}

    def call(x):
        if kind == "separate":
            return flash_attn.flash_attn_varlen_func(x["q"], x["k"], x["v"], *cu, **options)
        if kind == "kv":
            return flash_attn.flash_attn_varlen_kvpacked_func(x["q"], x["kv"], *cu, **options)
        return flash_attn.flash_attn_varlen_qkvpacked_func(x["qkv"], cu[0], cu[2], **options)

    def sequences(x):
        q, k, v = {
            "separate": lambda: (x["q"], x["k"], x["v"]),
            "kv": lambda: (x["q"], *x["kv"].unbind(1)),
            "qkv": lambda: x["qkv"].unbind(1),
        }[kind]()
        parts = zip(*(t.split(n) for t, n in ((q, lengths_q), (k, lengths_k), (v, lengths_k))))
        return [sequence(n, *part) for n, part in enumerate(parts)]

    return Case(f"flash_attn varlen, {kind}", inputs, call, sequences, lambda o: o.split(lengths_q))


def flash_paged(d: Draw) -> Case:
    """Packed queries over pages, and the cache's function over pages, rows and padding in front."""
    b, page, columns = d.up_to(3), d.pick(4, 7), d.up_to(3)
    most = page * columns
    lengths_k = [d.up_to(most) for _ in range(b)]
    options, sequence = flash_options(d, b)
    pages = b * columns + 2
    table = d.permutation(pages)[: b * columns].view(b, columns).int()
    inputs = {
        "k": d.normal(pages, page, d.heads_k, d.d),
        "v": d.normal(pages, page, d.heads_k, d.dv),
    }

    def keys_of(x, n):
        return [x[name][table[n].long()].flatten(0, 1)[: lengths_k[n]] for name in "kv"]

    if d.pick(True, False):
        lengths_q = [d.up_to(6) for _ in range(b)]
        inputs["q"] = d.normal(sum(lengths_q), d.heads, d.d)
        cu = (starts_of(lengths_q), starts_of(lengths_k), max(lengths_q), max(lengths_k))
        return Case(
            "flash_attn_varlen_func, paged",
            inputs,
            lambda x: flash_attn.flash_attn_varlen_func(
                x["q"], x["k"], x["v"], *cu, block_table=table, **options
            ),
            lambda x: [
                sequence(n, q, *keys_of(x, n)) for n, q in enumerate(x["q"].split(lengths_q))
            ],
            lambda o: o.split(lengths_q),
            differentiable=False,
        )
    inputs["q"] = d.normal(b, d.up_to(4), d.heads, d.d)
    lengths = torch.tensor(lengths_k, dtype=torch.int32)
    return Case(
        "flash_attn_with_kvcache, paged",
        inputs,
        lambda x: flash_attn.flash_attn_with_kvcache(
            x["q"], x["k"], x["v"], cache_seqlens=lengths, block_table=table, **options
        ),
        lambda x: [sequence(n, x["q"][n], *keys_of(x, n)) for n in range(b)],
        list,
        differentiable=False,
    )


# ---- xformers -----------------------------------------------------------------------------------


def xformers_dense(d: Draw) -> Case:
    b, sq, sk = d.up_to(3), d.up_to(20), d.up_to(20)
    left, right = d.up_to(8, 0), d.up_to(8, 0)
    kind = d.pick("none", "lower", "lower right", "local causal", "local", "tensor", "lower tensor")
    bias, seen = {
        "none": lambda: (None, band(sq, sk)),
        "lower": lambda: (xformers.LowerTriangularMask(), band(sq, sk, causal=True, top_left=True)),
        "lower right": lambda: (
            xformers.LowerTriangularFromBottomRightMask(),
            band(sq, sk, causal=True),
        ),
        "local causal": lambda: (
            xformers.LowerTriangularFromBottomRightMask().make_local_attention(left + 1),
            band(sq, sk, causal=True, left=left),
        ),
        "local": lambda: (
            xformers.LocalAttentionFromBottomRightMask(left, right),
            band(sq, sk, left=left, right=right),
        ),
        "tensor": lambda: (None, band(sq, sk)),
        "lower tensor": lambda: (None, band(sq, sk, causal=True, top_left=True)),
    }[kind]()
    groups = d.pick(0, 0, 2)
    heads = (groups, d.heads) if groups else (d.heads,)
    flat = groups * d.heads if groups else d.heads
    inputs = {
        "q": d.normal(b, sq, *heads, d.d),
        "k": d.normal(b, sk, *heads, d.d),
        "v": d.normal(b, sk, *heads, d.dv),
    }
    if "tensor" in kind:
        inputs["bias"] = d.normal(b, d.pick(1, flat), sq, sk)
    scale = d.scale()

    def call(x):
        given = bias
        if "tensor" in kind:
            given = x["bias"]
            if groups:
                given = given.expand(b, flat, sq, sk).unflatten(1, heads)
            given = xformers.LowerTriangularMask().add_bias(given) if "lower" in kind else given
        return xformers.memory_efficient_attention(
            x["q"], x["k"], x["v"], attn_bias=given, scale=scale
        )

    def sequences(x):
        hidden = bias_of(seen)
        return [
            Sequence(
                *(x[name][n].reshape(-1, flat, x[name].shape[-1]) for name in "qkv"),
                x["bias"][n] + hidden.to(x["bias"].dtype) if "bias" in x else hidden,
                scale,
                bias_leaf=x["bias"][n] if "bias" in x else None,
            )
            for n in range(b)
        ]

    name = f"xformers, {kind}, groups {groups}"
    return Case(name, inputs, call, sequences, lambda o: [t.reshape(sq, flat, -1) for t in o])


def xformers_grouped(d: Draw) -> Case:
    """Heads of a group that share keys, which are expanded."""
    b, sq, sk, groups, heads = d.up_to(3), d.up_to(12), d.up_to(12), d.up_to(2), d.up_to(3)
    inputs = {
        "q": d.normal(b, sq, groups, heads, d.d),
        "k": d.normal(b, sk, groups, d.d),
        "v": d.normal(b, sk, groups, d.dv),
    }
    expands = d.pick(True, False)

    def call(x):
        k, v = x["k"][:, :, :, None], x["v"][:, :, :, None]
        if expands:
            k, v = (t.expand(-1, -1, -1, heads, -1) for t in (k, v))
        return xformers.memory_efficient_attention(x["q"], k, v)

    def sequences(x):
        return [Sequence(x["q"][n].flatten(1, 2), x["k"][n], x["v"][n]) for n in range(b)]

    return Case(
        "xformers, grouped", inputs, call, sequences, lambda o: [t.flatten(1, 2) for t in o]
    )


def xformers_blocks(d: Draw) -> Case:
    b = d.up_to(3)
    q_len = [d.up_to(6) for _ in range(b)]
    k_len = [n + d.up_to(6, 0) for n in q_len]
    w, left, right = d.up_to(8), d.up_to(8, 0), d.up_to(8, 0)
    rules = {
        "full": {},
        "causal": {"causal": True, "top_left": True},
        "bottom right": {"causal": True},
        "causal local": {"causal": True, "top_left": True, "left": 5 + w},
        "bottom right local": {"causal": True, "left": w - 1},
        "padded": {},
        "padded causal": {"causal": True},
        "padded local": {"left": left, "right": right},
        "padded causal local": {"causal": True, "left": w - 1},
        "gappy": {},
        "gappy causal": {"causal": True},
        "gappy local": {"left": left, "right": right},
        "gappy out of order": {"causal": True},
    }
    kind = d.pick(*rules)
    padding = max(k_len) + d.up_to(3, 0)
    starts = [n * padding for n in range(b + 1)]
    x = xformers
    base = x.BlockDiagonalMask.from_seqlens(q_len, k_len)
    if kind.startswith("gappy"):
        gaps = [start + d.up_to(padding - n, 0) for start, n in zip(starts, k_len)]
        if kind == "gappy":
            gaps[0] = 0
        if kind == "gappy out of order":
            gaps.reverse()
            gaps = [max(0, min(gap, b * padding - n)) for gap, n in zip(gaps, k_len)]
        starts, total = gaps, b * padding
        ends = [*gaps, total]
    elif not kind.startswith("padded"):
        starts, total = starts_of(k_len).tolist(), sum(k_len)
    else:
        total = b * padding
    bias = {
        "full": lambda: base,
        "causal": lambda: base.make_causal(),
        "bottom right": lambda: base.make_causal_from_bottomright(),
        "causal local": lambda: base.make_local_attention(6 + w),
        "bottom right local": lambda: base.make_local_attention_from_bottomright(w),
        "padded": lambda: x.BlockDiagonalPaddedKeysMask.from_seqlens(q_len, padding, k_len),
        "padded causal": lambda: x.BlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            q_len, padding, k_len
        ),
        "padded local": lambda: x.BlockDiagonalLocalAttentionPaddedKeysMask.from_seqlens_local(
            q_len, padding, k_len, left, right
        ),
        "padded causal local": lambda: (
            x.BlockDiagonalCausalLocalAttentionPaddedKeysMask.from_seqlens_local(
                q_len, padding, k_len, w
            )
        ),
        "gappy": lambda: x.BlockDiagonalGappyKeysMask.from_seqlens(q_len, ends, k_len),
        "gappy causal": lambda: x.BlockDiagonalCausalWithOffsetGappyKeysMask.from_seqlens(
            q_len, ends, k_len
        ),
        "gappy local": lambda: (
            x.BlockDiagonalLocalAttentionFromBottomRightGappyKeysMask.from_seqlens_local(
                q_len, ends, k_len, left, right
            )
        ),
        "gappy out of order": lambda: x.BlockDiagonalCausalWithOffsetGappyKeysMask.from_seqlens(
            q_len, ends, k_len
        ),
    }[kind]()
    inputs = {
        "q": d.normal(1, sum(q_len), d.heads, d.d),
        "k": d.normal(1, total, d.heads, d.d),
        "v": d.normal(1, total, d.heads, d.dv),
    }
    scale = d.scale()

    def sequences(x):
        keys = [slice(start, start + n) for start, n in zip(starts, k_len)]
        return [
            Sequence(
                q,
                x["k"][0][at],
                x["v"][0][at],
                bias_of(band(len(q), n, **rules[kind])),
                scale,
            )  # fmt: skip
            for q, at, n in zip(x["q"][0].split(q_len), keys, k_len)
        ]

    return Case(
        f"xformers, {kind}",
        inputs,
        lambda x: xformers.memory_efficient_attention(x["q"], x["k"], x["v"], bias, scale=scale),
        sequences,
        lambda o: o[0].split(q_len),
    )


def xformers_paged(d: Draw) -> Case:
    b, page, columns = d.up_to(3), d.pick(4, 6), d.up_to(3)
    most = page * columns
    k_len = [d.up_to(most) for _ in range(b)]
    q_len = [d.up_to(min(n, 5)) for n in k_len]
    begins = [d.up_to(most - n, 0) for n in k_len]
    pages = b * columns
    table = d.permutation(pages).view(b, columns).int()
    w = d.up_to(8)
    x = xformers
    kind, make, rule = d.pick(
        (
            "",
            lambda: x.PagedBlockDiagonalPaddedKeysMask.from_seqlens(q_len, k_len, table, page),
            {},
        ),
        (
            "causal",
            lambda: x.PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
                q_len, k_len, table, page
            ),
            {"causal": True},
        ),
        (
            "made from padded",
            lambda: x.BlockDiagonalPaddedKeysMask.from_seqlens(q_len, most, k_len).make_paged(
                table, page, x.PagedBlockDiagonalCausalWithOffsetPaddedKeysMask
            ),
            {"causal": True},
        ),
        (
            "causal local",
            lambda: x.PagedBlockDiagonalCausalLocalPaddedKeysMask.from_seqlens_local(
                q_len, k_len, table, page, w
            ),
            {"causal": True, "left": w - 1},
        ),
        (
            "gappy",
            lambda: x.PagedBlockDiagonalGappyKeysMask.from_seqlens(
                q_len, begins, k_len, table, page
            ),
            {},
        ),
        (
            "gappy causal",
            lambda: x.PagedBlockDiagonalCausalWithOffsetGappyKeysMask.from_seqlens(
                q_len, begins, k_len, table, page
            ),
            {"causal": True},
        ),
    )
    if "gappy" not in kind:
        begins = [0] * b
    bias = make()
    inputs = {
        "q": d.normal(1, sum(q_len), d.heads, d.d),
        "k": d.normal(1, pages * page, d.heads, d.d),
        "v": d.normal(1, pages * page, d.heads, d.dv),
    }

    def sequences(x):
        found = []
        for n, q in enumerate(x["q"][0].split(q_len)):
            places = (table[n].long()[:, None] * page + torch.arange(page)).flatten()
            places = places[begins[n] : begins[n] + k_len[n]]
            mask = bias_of(band(len(q), k_len[n], **rule))
            found.append(Sequence(q, x["k"][0][places], x["v"][0][places], mask))
        return found

    return Case(
        f"xformers, paged {kind}",
        inputs,
        lambda x: xformers.memory_efficient_attention(x["q"], x["k"], x["v"], bias),
        sequences,
        lambda o: o[0].split(q_len),
        differentiable=False,
    )


MAKERS = (
    torch_sdpa,
    flash_dense,
    flash_qkvpacked,
    flash_kvpacked,
    flash_varlen,
    flash_paged,
    xformers_dense,
    xformers_grouped,
    xformers_blocks,
    xformers_paged,
)


def run(seed: int, device: str) -> None:
    torch.manual_seed(seed)
    round_, maker = divmod(seed, len(MAKERS))
    with torch.device(device):  # where masks, lengths and tables are made
        check(MAKERS[maker](Draw(round_ * 1000 + maker, device)))


@pytest.mark.parametrize("seed", range(COUNT), ids=lambda seed: f"seed-{seed}")
def test_compat(seed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # biases are made there else
    run(seed, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(COUNT // 3), ids=lambda seed: f"seed-{seed}")
def test_compat_on_a_gpu(seed):
    run(seed, "cuda")
