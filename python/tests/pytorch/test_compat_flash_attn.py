"""What attune.compat.flash_attn has beyond the grid: the LSE, dropout, and growing caches."""

import pytest
import torch

import attune
from attune.compat.flash_attn import (
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
)
from pytorch_reference import band


def lse_of(q, k, seen, scale):
    k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    scores = torch.einsum("bihd,bjhd->bhij", q.double(), k.double()) * scale
    return torch.logsumexp(scores.masked_fill(~seen, float("-inf")), -1)


def test_the_lse():
    q, k = torch.randn(2, 5, 4, 8), torch.randn(2, 7, 2, 8)
    out, lse, probs = flash_attn_func(
        q, k, k, softmax_scale=0.5, causal=True, return_attn_probs=True
    )
    assert out.shape == q.shape and probs is None
    torch.testing.assert_close(lse.double(), lse_of(q, k, band(5, 7, causal=True), 0.5))


def test_the_lse_of_packed_sequences_and_rows_that_see_nothing():
    q, k = torch.randn(8, 4, 8), torch.randn(6, 4, 8)
    cu_q, cu_k = (torch.tensor(c, dtype=torch.int32) for c in ([0, 5, 8], [0, 2, 6]))
    out, lse, _ = flash_attn_varlen_func(
        q, k, k, cu_q, cu_k, 5, 4, causal=True, return_attn_probs=True
    )
    assert lse.shape == (4, 8)
    assert (out[:3] == 0).all() and (lse[:, :3] == float("-inf")).all()
    seen = band(3, 4, causal=True)
    torch.testing.assert_close(
        lse[None, :, 5:].double(), lse_of(q[None, 5:], k[None, 2:], seen, 8**-0.5)
    )


def test_dropout():
    qkv = torch.randn(2, 50, 3, 2, 8, requires_grad=True)
    results = []
    for _ in range(2):
        torch.manual_seed(9)
        out = flash_attn_qkvpacked_func(qkv, dropout_p=0.3)
        results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert not torch.allclose(results[0][0], flash_attn_qkvpacked_func(qkv), atol=0.1)


def probabilities(dropout_p):
    """p of no scores, by v of an identity: 1 / (64 · (1 - dropout_p)) where flash_attn_func keeps."""
    q, k = torch.zeros(1, 32, 2, 8), torch.zeros(1, 64, 2, 8)
    v = torch.eye(64)[None, :, None].expand(1, 64, 2, 64)
    torch.manual_seed(4)
    return flash_attn_func(q, k, v, dropout_p=dropout_p), (q, k, v)


@pytest.mark.parametrize(
    ("dropout_p", "stream"),
    [(1 / 256, "fa2"), (0.3, "fa2"), (255 / 256, "fa2"), (0.001, "curand"), (0.999, "curand")],
)
def test_dropout_is_flash_attns_where_its_bytes_reach(dropout_p, stream):
    got, inputs = probabilities(dropout_p)
    torch.manual_seed(4)
    want = attune.attention(*inputs, dropout=dropout_p, dropout_stream=stream)
    assert torch.equal(got, want)


def test_varlen_dropout_is_flash_attns():
    q = torch.randn(80, 2, 8)
    starts = torch.tensor([0, 33, 80], dtype=torch.int32)
    torch.manual_seed(6)
    got = flash_attn_varlen_func(q, q, q, starts, starts, 47, 47, dropout_p=0.3)
    torch.manual_seed(6)
    want = attune.attention(
        q, q, q, cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=47, max_seqlen_k=47,
        dropout=0.3, dropout_stream="fa2",
    )  # fmt: skip
    assert torch.equal(got, want)


def turned(x, cos, sin, positions, interleaved):
    """Rotary embedding by complex numbers, in float64: another way than the one under test."""
    half = cos.shape[-1]
    x = x.double()
    rows = x[..., : 2 * half]
    pairs = rows.unflatten(-1, (half, 2)) if interleaved else rows.unflatten(-1, (2, half)).mT
    angle = torch.complex(cos[positions].double(), sin[positions].double())[:, :, None]
    z = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * angle)
    rows = z.flatten(-2) if interleaved else z.mT.flatten(-2)
    return torch.cat((rows, x[..., 2 * half :]), -1)


@pytest.mark.parametrize("place", ["batch", "rows", "pages"])
@pytest.mark.parametrize("rotary", [None, True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_appending(place, rotary, causal):
    batch, new, heads, heads_k, d, longest = 2, 3, 4, 2, 16, 24
    q, k, v = (torch.randn(batch, new, n, d) for n in (heads, heads_k, heads_k))
    lengths = torch.tensor([5, 12], dtype=torch.int32)
    rest = {"cache_seqlens": lengths, "causal": causal}
    pad = torch.zeros(batch, dtype=torch.int64)
    if place == "pages":
        table = torch.tensor([[7, 1, 4], [0, 6, 2]], dtype=torch.int32)
        caches = [torch.randn(8, 8, heads_k, d) for _ in range(2)]
        rest["block_table"] = table

        def rows(cache):
            return cache[table.long()].flatten(1, 2)
    else:
        caches = [torch.randn(3, longest, heads_k, d) for _ in range(2)]
        index = torch.tensor([2, 0], dtype=torch.int32)
        if place == "rows":
            pad = torch.tensor([2, 0])
            rest |= {"cache_batch_idx": index, "cache_leftpad": pad.int()}

        def rows(cache):
            return cache[index.long()] if place == "rows" else cache[:batch]

    at = lengths.long()[:, None] + torch.arange(new)
    q64, k64 = q.double(), k.double()
    if rotary is not None:
        angles = torch.rand(longest, 5) * 6
        cos, sin = angles.cos(), angles.sin()
        rest |= {"rotary_cos": cos, "rotary_sin": sin, "rotary_interleaved": rotary}
        q_at = at if causal else lengths.long()[:, None].expand(-1, new)
        q64, k64 = turned(q64, cos, sin, q_at, rotary), turned(k64, cos, sin, at, rotary)
    want_k, want_v = (rows(cache).double().clone() for cache in caches)
    for n in range(batch):
        want_k[n, at[n]], want_v[n, at[n]] = k64[n], v[n].double()

    out, lse = flash_attn_with_kvcache(q, *caches, k, v, return_softmax_lse=True, **rest)

    torch.testing.assert_close(rows(caches[0]).double(), want_k, atol=1e-5, rtol=1e-5)
    assert torch.equal(rows(caches[1]).double(), want_v)
    for n in range(batch):
        keys = slice(int(pad[n]), int(lengths[n]) + new)
        k_n, v_n = (t[n : n + 1, keys].repeat_interleave(2, 2) for t in (want_k, want_v))
        scores = torch.einsum("bihd,bjhd->bhij", q64[n : n + 1], k_n) * d**-0.5
        seen = band(new, k_n.shape[1], causal=causal)
        scores = scores.masked_fill(~seen, float("-inf"))
        want = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v_n)
        torch.testing.assert_close(out[n].double(), want[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse[n].double(), scores.logsumexp(-1)[0], atol=1e-5, rtol=1e-5)


def test_a_cache_without_lengths_counts_in_full():
    q, cache = torch.randn(2, 1, 4, 8), torch.randn(2, 9, 4, 8)
    full = flash_attn_with_kvcache(q, cache, cache)
    torch.testing.assert_close(full, flash_attn_with_kvcache(q, cache, cache, cache_seqlens=9))
    torch.testing.assert_close(full, flash_attn_func(q, cache, cache))


def test_compile():
    q = torch.randn(8, 4, 8)
    starts = torch.tensor([0, 5, 8], dtype=torch.int32)

    def attend(q):
        dense = flash_attn_func(q[None], q[None], q[None], causal=True, window_size=(3, 0))
        return dense[0] + flash_attn_varlen_func(q, q, q, starts, starts, 5, 5, causal=True)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q), attend(q))


def test_refusals():
    q, cache = torch.randn(2, 1, 4, 8), torch.randn(2, 9, 4, 8)
    with pytest.raises(ValueError, match="both or neither"):
        flash_attn_with_kvcache(q, cache, cache, q)
    with pytest.raises(ValueError, match="cache_seqlens, which is missing"):
        flash_attn_with_kvcache(q, cache, cache, q, q)
    with pytest.raises(IndexError):
        flash_attn_with_kvcache(q, cache, cache, q, q, cache_seqlens=9)
    with pytest.raises(ValueError, match="dimension -3 takes 3"):
        flash_attn_qkvpacked_func(torch.randn(2, 4, 2, 4, 8))
