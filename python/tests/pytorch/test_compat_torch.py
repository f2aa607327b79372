"""What attune.compat.torch takes beyond the grid: shapes, biases as classes, refusals."""

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right, causal_upper_left
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attune.compat.torch import scaled_dot_product_attention

SHAPES = [
    ((5, 8), (7, 8), (7, 6), None),
    ((4, 5, 8), (4, 7, 8), (4, 7, 6), (5, 7)),
    ((4, 5, 8), (4, 7, 8), (4, 7, 6), (4, 5, 7)),
    ((3, 2, 4, 5, 8), (3, 2, 4, 7, 8), (3, 2, 4, 7, 6), (3, 1, 1, 5, 7)),
    ((3, 2, 4, 5, 8), (3, 2, 4, 7, 8), (3, 2, 4, 7, 6), (5, 7)),
    ((3, 2, 4, 5, 8), (1, 2, 4, 7, 8), (3, 1, 4, 7, 6), (2, 4, 5, 7)),
    ((2, 4, 5, 8), (1, 4, 7, 8), (2, 4, 7, 6), (2, 1, 1, 7)),
    ((2, 1, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6), (4, 5, 7)),
    ((2, 4, 5, 8), (2, 1, 7, 8), (2, 1, 7, 6), None),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_shapes_broadcast_as_there(shapes):
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes[:3]]
    if shapes[3] is not None:
        inputs.append(torch.randn(shapes[3], requires_grad=True))
    got, want = scaled_dot_product_attention(*inputs), sdpa(*inputs)
    torch.testing.assert_close(got, want)
    grad = torch.randn_like(want)
    for mine, theirs in zip(
        torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad)
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_causal_biases():
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8)
    for make in (causal_upper_left, causal_lower_right):
        mask = make(5, 7)
        torch.testing.assert_close(
            scaled_dot_product_attention(q, k, k, mask), sdpa(q, k, k, attn_mask=mask)
        )


def test_rows_that_see_nothing_are_zero():
    q = torch.randn(1, 2, 3, 8, requires_grad=True)
    mask = torch.ones(3, 3, dtype=torch.bool).tril(-1)
    out = scaled_dot_product_attention(q, q, q, mask)
    torch.testing.assert_close(out, sdpa(q, q, q, mask))
    assert (out[:, :, 0] == 0).all()
    out.sum().backward()
    assert torch.isfinite(q.grad).all()


def test_dropout_is_always_applied():
    q = torch.randn(1, 2, 30, 8)
    with torch.no_grad():
        torch.manual_seed(1)
        first = scaled_dot_product_attention(q, q, q, dropout_p=0.5)
        torch.manual_seed(1)
        again = scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    assert torch.equal(first, again)
    assert not torch.allclose(first, scaled_dot_product_attention(q, q, q))


def test_autocast():
    q = torch.randn(1, 2, 3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scaled_dot_product_attention(q, q, q).dtype == sdpa(q, q, q).dtype


def test_tensors_without_data():
    q = torch.randn(1, 2, 3, 8, device="meta")
    assert scaled_dot_product_attention(q, q, q).shape == sdpa(q, q, q).shape


def test_compile():
    q, mask = torch.randn(2, 4, 9, 8), torch.rand(9, 9) < 0.7
    f = torch.compile(scaled_dot_product_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(f(q, q, q, mask), sdpa(q, q, q, mask))
    torch.testing.assert_close(f(q, q, q, is_causal=True), sdpa(q, q, q, is_causal=True))


def test_refusals():
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="enable_gqa"):
        scaled_dot_product_attention(q, k, k)
    with pytest.raises(ValueError, match="exclude each other"):
        scaled_dot_product_attention(q, q, q, torch.ones(3, 3), is_causal=True)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        scaled_dot_product_attention(q[0, 0, 0], q, q)
    with pytest.raises(ValueError, match="bias has shape"):
        scaled_dot_product_attention(q, q, q, torch.ones(3, 4))
