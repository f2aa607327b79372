"""What attune.compat.xformers has beyond the grid: masks as tensors, the LSE, backward by itself."""

import pytest
import torch

import attune.compat.xformers as xf


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    """Biases are made on the GPU where there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def random(*shapes):
    return [torch.randn(shape) for shape in shapes]


# Pictures of documented masks; queries go down, keys to the right.
PICTURES = {
    "1000 1100 1110": lambda: xf.LowerTriangularMask(),
    "1100 1110 1111": lambda: xf.LowerTriangularFromBottomRightMask(),
    "1100 0110 0011": lambda: xf.LowerTriangularFromBottomRightLocalAttentionMask(2),
    "1110 0111 0011": lambda: xf.LocalAttentionFromBottomRightMask(1, 1),
    "1100 1100 0011": lambda: xf.BlockDiagonalMask.from_seqlens([2, 1], [2, 2]),
    "1000 1100 0010": lambda: xf.BlockDiagonalMask.from_seqlens([2, 1], [2, 2]).make_causal(),
    "1000 1100 0011": lambda: xf.BlockDiagonalMask.from_seqlens(
        [2, 1], [2, 2]
    ).make_causal_from_bottomright(),
    "1000 0100 0010": lambda: xf.BlockDiagonalMask.from_seqlens(
        [2, 1], [2, 2]
    ).make_local_attention(1),
    "1000 0100 0001": lambda: xf.BlockDiagonalMask.from_seqlens(
        [2, 1], [2, 2]
    ).make_local_attention_from_bottomright(1),
    "1000 1000 0011": lambda: xf.BlockDiagonalPaddedKeysMask.from_seqlens([2, 1], 2, [1, 2]),
    "0000 1000 0010": lambda: xf.BlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
        [2, 1], 2, [1, 1]
    ),
    "0110 0110 0001": lambda: xf.BlockDiagonalGappyKeysMask.from_seqlens([2, 1], [1, 3, 4], [2, 1]),
    "0010 0011 1100": lambda: xf.PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
        [2, 1], [2, 2], torch.tensor([[1], [0]], dtype=torch.int32), 2
    ),
    "0001 0001 0100": lambda: xf.PagedBlockDiagonalGappyKeysMask.from_seqlens(
        [2, 1], [1, 1], [1, 1], torch.tensor([[1], [0]], dtype=torch.int32), 2
    ),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_masks_as_tensors(picture):
    rows = [[float(cell) for cell in row] for row in picture.split()]
    bias = PICTURES[picture]().to("cpu")
    tensor = bias.materialize((2, 3, 4))
    assert torch.equal(tensor.exp(), torch.tensor(rows).expand(2, 3, 4))
    q, k, v = random((1, 3, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8))
    got = xf.memory_efficient_attention(q, k, v, bias)
    want = xf.memory_efficient_attention(q, k, v, tensor[:1, None].expand(1, 2, 3, 4))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("heads", [(), (2,), (2, 3)])
@pytest.mark.parametrize("packed", [False, True])
def test_forward_and_backward_by_themselves(heads, packed):
    b = 1 if packed else 2
    q, k, v = (
        t.requires_grad_() for t in random((b, 5, *heads, 8), (b, 7, *heads, 8), (b, 7, *heads, 8))
    )
    bias = xf.LowerTriangularMask()
    if packed:
        bias = xf.BlockDiagonalMask.from_seqlens([2, 3], [3, 4]).make_causal_from_bottomright()
    want = xf.memory_efficient_attention(q, k, v, bias)
    grad = torch.randn_like(want)
    grads = torch.autograd.grad(want, (q, k, v), grad)
    with torch.no_grad():
        out, lse = xf.memory_efficient_attention_forward_requires_grad(q, k, v, bias)
        assert lse.shape == (b, *(heads or (1,)), 5)
        mine = xf.memory_efficient_attention_backward(grad, out, lse, q, k, v, bias)
        assert torch.equal(xf.memory_efficient_attention_forward(q, k, v, bias), want)
    assert torch.equal(out, want)
    for a, b in zip(mine, grads):
        torch.testing.assert_close(a, b)


def test_backward_of_shared_keys():
    q, k, v = random((2, 5, 2, 3, 8), (2, 7, 2, 1, 8), (2, 7, 2, 1, 8))
    wide = [t.expand(-1, -1, -1, 3, -1) for t in (k, v)]
    out, lse = xf.memory_efficient_attention_forward_requires_grad(q, *wide)
    grad = torch.randn_like(out)
    _, dk, dv = xf.memory_efficient_attention_backward(grad, out, lse, q, *wide)
    full = [t.contiguous() for t in wide]
    _, want_k, want_v = xf.memory_efficient_attention_backward(grad, out, lse, q, *full)
    assert dk.shape == want_k.shape
    torch.testing.assert_close(dk.sum(3), want_k.sum(3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dv.sum(3), want_v.sum(3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [(2,), (2, 3)])
def test_parts_merge(heads):
    q, k, v = random((2, 5, *heads, 8), (2, 9, *heads, 8), (2, 9, *heads, 8))
    want, want_lse = xf.memory_efficient_attention_partial(q, k, v)
    parts = [xf.memory_efficient_attention_partial(q, k[:, at], v[:, at])
             for at in (slice(0, 2), slice(2, 9), slice(0, 0))]  # fmt: skip
    out, lse = xf.merge_attentions(*zip(*parts))
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(lse, want_lse)
    none, no_lse = xf.merge_attentions(*zip(*parts[2:]), write_lse=False)
    assert (none == 0).all() and no_lse is None


def test_lists_of_tensors():
    tensors = random((1, 3, 1, 8), (2, 6, 1, 8))
    bias, packed = xf.BlockDiagonalMask.from_tensor_list(tensors)
    assert packed.shape == (1, 15, 1, 8)
    parts = bias.split(xf.memory_efficient_attention(packed, packed, packed, bias))
    for part, tensor in zip(parts, tensors):
        torch.testing.assert_close(part, xf.memory_efficient_attention(tensor, tensor, tensor))
    keys = random((1, 4, 1, 8), (2, 5, 1, 8))
    bias, q, k, v = xf.BlockDiagonalMask.from_tensor_lists_qkv(tensors, keys, keys)
    out = bias.split_queries(xf.memory_efficient_attention(q, k, v, bias))
    torch.testing.assert_close(out[1], xf.memory_efficient_attention(tensors[1], keys[1], keys[1]))
    assert [part.shape for part in bias.split_kv(k)] == [t.shape for t in keys]
    with pytest.raises(ValueError, match="lengths of their own"):
        bias.split(out[0])


def test_lengths_change_in_place():
    bias = xf.BlockDiagonalPaddedKeysMask.from_seqlens([1, 1], 5, [5, 3])
    q, k = random((1, 2, 2, 8), (1, 10, 2, 8))
    seqlen = bias.k_seqinfo.seqlen
    bias.k_seqinfo.from_seqlens_padded_inplace([2, 4])
    assert bias.k_seqinfo.seqlen is seqlen
    fresh = xf.BlockDiagonalPaddedKeysMask.from_seqlens([1, 1], 5, [2, 4])
    assert torch.equal(
        xf.memory_efficient_attention(q, k, k, bias), xf.memory_efficient_attention(q, k, k, fresh)
    )
    with pytest.raises(ValueError, match="3 sequences can't replace 2"):
        bias.k_seqinfo.from_seqlens_padded_inplace([1, 1, 1])
    info = xf.BlockDiagonalMask.from_seqlens([3, 2]).q_seqinfo
    info.from_seqlens_inplace([1, 3])
    assert info.seqstart.tolist() == [0, 1, 4]
    with pytest.raises(ValueError, match="longer than max_seqlen = 3"):
        info.from_seqlens_inplace([4, 1])


def test_output_dtype():
    q = torch.randn(1, 3, 2, 8, dtype=torch.bfloat16)
    out = xf.memory_efficient_attention(q, q, q, output_dtype=torch.float32)
    assert out.dtype == torch.float32


def test_compile():
    q = torch.randn(2, 5, 2, 8)
    f = torch.compile(
        lambda q: xf.memory_efficient_attention(q, q, q, xf.LowerTriangularMask()),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    want = xf.memory_efficient_attention(q, q, q, xf.LowerTriangularMask())
    torch.testing.assert_close(f(q), want)


def test_refusals():
    q = torch.randn(1, 3, 2, 8)
    with pytest.raises(ValueError, match=r"all take \[B, M, K\]"):
        xf.memory_efficient_attention(q, q[0], q)
    with pytest.raises(TypeError, match="attn_bias is a str"):
        xf.memory_efficient_attention(q, q, q, "causal")
    with pytest.raises(NotImplementedError, match="dropout"):
        xf.memory_efficient_attention_forward_requires_grad(q, q, q, p=0.1)
    with pytest.raises(ValueError, match="sequence 0 has 3 queries, more than its 2 keys"):
        xf.BlockDiagonalMask.from_seqlens([3], [2]).make_causal_from_bottomright()
    with pytest.raises(ValueError, match="window_size = 0"):
        xf.LowerTriangularFromBottomRightLocalAttentionMask(0)
    with pytest.raises(ValueError, match="longer than the padding, 2"):
        xf.BlockDiagonalPaddedKeysMask.from_seqlens([1], 2, [3])
