"""attention() on PyTorch tensors: autograd, compile, export, autocast, checkpointing, torch.func."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils.checkpoint import checkpoint

import attune
from attune import _torch_ops
from pytorch_reference import Case, Sequence, band, bias_of, check


@pytest.fixture
def qkv():
    return [torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3)]


def attend(q, k, v, **options):
    return attune.attention(q, k, v, layout="bhsd", **options)


def gradients(out, inputs):
    torch.manual_seed(11)
    return torch.autograd.grad(out, inputs, torch.randn_like(out))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_gradient(dtype):
    """Those of bias, slopes, sinks and a gradient of the LSE too, against float64 eager."""
    b, s, h = 2, 7, 4
    q, k, v = (torch.randn(b, s, n, 8).to(dtype).requires_grad_() for n in (h, 2, 2))
    bias = torch.randn(h, s, s).to(dtype).requires_grad_()
    slopes, sink = torch.rand(h, requires_grad=True), torch.randn(h, requires_grad=True)
    inputs = (q, k, v, bias, slopes, sink)
    o, lse = attune.attention(
        q, k, v, mask="causal", bias=bias, alibi_slopes=slopes, sink=sink, lse=True
    )
    grad_o, grad_lse = torch.randn_like(o), torch.randn_like(lse)
    got = torch.autograd.grad((o, lse), inputs, (grad_o, grad_lse))

    def eager(q, k, v, bias, slopes, sink):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        d = torch.arange(s)[:, None] - torch.arange(s)
        scores = q @ k.mT * 8**-0.5 + bias - slopes[:, None, None] * d.abs()
        scores = scores.masked_fill(d < 0, float("-inf"))
        scores = torch.cat((sink[None, :, None, None].expand(b, h, s, 1), scores), -1)
        lse = torch.logsumexp(scores, -1)
        return (torch.softmax(scores, -1)[..., 1:] @ v).transpose(1, 2), lse

    def results(kind):
        leaves = [t.detach().to(kind).requires_grad_() for t in inputs]
        out = eager(*leaves)
        return out, torch.autograd.grad(out, leaves, (grad_o.to(kind), grad_lse.to(kind)))

    (exact_o, exact_lse), exact = results(torch.float64)
    _, plain = results(dtype)
    unit = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(o.double(), exact_o, atol=unit, rtol=unit)
    torch.testing.assert_close(lse.double(), exact_lse, atol=2e-5, rtol=2e-6)
    names = ("q", "k", "v", "bias", "slopes", "sink")
    for name, leaf, g, e, p in zip(names, inputs, got, exact, plain):
        limit = 2 * (p.double() - e).abs().max() + 2 * unit * e.abs().max()
        assert (g.double() - e).abs().max() <= limit, name
        assert g.dtype == leaf.dtype


@pytest.mark.skipif(
    not _torch_ops.EXCHANGES, reason="before PyTorch 2.10 DLPack takes no float8 here"
)
def test_float8():
    """o is bfloat16, and scales multiply what is stored; an operator's shapes say so too."""
    heads = (4, 2, 2)
    stored = [torch.randn(2, 9, h, 16).to(torch.float8_e4m3fn) for h in heads]
    scales = [torch.rand(2, h) + 0.5 for h in heads]
    named = dict(zip(("q_scale", "k_scale", "v_scale"), scales))
    wide = [t.float() * scale[:, None, :, None] for t, scale in zip(stored, scales)]
    want, want_lse = attune.attention(*wide, mask="causal", lse=True)
    o, lse = attune.attention(*stored, mask="causal", lse=True, **named)
    assert o.dtype == torch.bfloat16
    torch.testing.assert_close(o, want.bfloat16(), atol=2**-8, rtol=2**-7)
    torch.testing.assert_close(lse, want_lse, atol=1e-5, rtol=1e-5)
    out = torch.empty_like(o)
    assert attune.attention(*stored, mask="causal", out=out, **named) is out
    assert torch.equal(out, o)
    turned = attune.attention(
        *(t.transpose(1, 2) for t in stored), layout="bhsd", mask="causal", **named
    )
    assert torch.equal(turned.transpose(1, 2), o)
    recorded = attune.attention(*(t.to("meta") for t in stored))
    assert recorded.dtype == torch.bfloat16 and recorded.shape == o.shape


def test_packed_gradients():
    starts = torch.tensor([0, 3, 8], dtype=torch.int32)
    case = Case(
        "packed",
        {name: torch.randn(8, heads, 8) for name, heads in (("q", 4), ("k", 2), ("v", 2))},
        lambda x: attune.attention(
            *x.values(), mask="causal", cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=5,
            max_seqlen_k=5,
        ),
        lambda x: [
            Sequence(*parts, bias_of(band(len(parts[0]), len(parts[0]), causal=True)))
            for parts in zip(*(t.split([3, 5]) for t in x.values()))
        ],
        lambda o: o.split([3, 5]),
    )  # fmt: skip
    check(case)


def test_results_are_the_same_on_every_path(qkv):
    """Straight into the extension, through the operator, and written in place."""
    with torch.no_grad():
        straight, lse = attend(*qkv, mask="causal", lse=True)
        out, out_lse = torch.empty_like(straight), torch.empty_like(lse)
        attend(*qkv, mask="causal", out=out, lse=out_lse)
    dispatched, dispatched_lse = attend(*qkv, mask="causal", lse=True)
    for o, one_lse in ((out, out_lse), (dispatched, dispatched_lse)):
        assert torch.equal(straight, o) and torch.equal(lse, one_lse)
    assert straight.stride() == dispatched.stride()
    assert not straight.requires_grad and dispatched.requires_grad


def test_gradients_are_the_same_on_every_path(qkv):
    """By the extension's own forward, and by the one that also takes parameters and gives the LSE."""
    want = gradients(attend(*qkv, mask="causal"), qkv)
    parameters = [torch.nn.Parameter(t.detach()) for t in qkv]
    for inputs, lse in ((parameters, False), (qkv, True)):
        out = attend(*inputs, mask="causal", lse=lse)
        out = out[0] if lse else out
        assert all(torch.equal(a, b) for a, b in zip(gradients(out, inputs), want))
    only_v = attend(*(t.detach() for t in qkv[:2]), qkv[2], mask="causal")
    assert torch.equal(gradients(only_v, qkv[2])[0], want[2])


def test_what_is_saved_is_seen(qkv):
    """By hooks of saved tensors, by the check for changes in place, and by a second backward pass."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = attend(*qkv)
    assert [t.shape for t in saved] == [(2, 4, 9, 8)] * 4 + [(2, 4, 9)]
    torch.autograd.grad(out.sum(), qkv)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(out.sum(), qkv)
    q = qkv[0] * 1
    out = attend(q, *qkv[1:])
    q.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        torch.autograd.grad(out.sum(), qkv)


def test_without_the_exchange_api(qkv, monkeypatch):
    """As with PyTorch before 2.10, whose tensors come by __dlpack__ alone."""
    from attune import _torch_ops

    want = attend(*qkv)
    grads = gradients(want, qkv)
    monkeypatch.setattr(_torch_ops, "EXCHANGES", False)
    for detach in (True, False):
        inputs = [t.detach() for t in qkv] if detach else qkv
        got = attend(*inputs)
        assert torch.equal(got, want)
    assert all(torch.equal(a, b) for a, b in zip(gradients(got, qkv), grads))


def test_operators_keep_their_promises(qkv):
    options = attune._options.pack(layout="bhsd", mask="causal")
    torch.library.opcheck(torch.ops.attune.attention.default, (*qkv, *options))
    out, lse = torch.ops.attune.attention(*qkv, *options)
    tensors = [t.detach() for t in (torch.randn_like(out), torch.randn_like(lse), *qkv, out, lse)]
    backward = torch.ops.attune.attention_backward.default
    torch.library.opcheck(backward, (*tensors, False, False, False, *options))
    plain = [t.detach() for t in qkv]
    place = torch.empty_like(out), torch.empty_like(lse)
    torch.library.opcheck(torch.ops.attune.attention_out.default, (*plain, *place, *options))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(qkv, dynamic):
    compiled = torch.compile(
        lambda q, k, v: attend(q * 2, k, v, mask="causal", window=(5, -1)).sin(),
        fullgraph=True, backend="aot_eager", dynamic=dynamic,
    )  # fmt: skip
    want = attend(qkv[0] * 2, *qkv[1:], mask="causal", window=(5, -1)).sin()
    got = compiled(*qkv)
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(gradients(got, qkv), gradients(want, qkv)):
        torch.testing.assert_close(mine, theirs)
    longer = [torch.randn(2, 4, 23, 8) for _ in range(3)]
    want = attend(longer[0] * 2, *longer[1:], mask="causal", window=(5, -1)).sin()
    torch.testing.assert_close(compiled(*longer), want)


def test_compiled_dropout_draws_from_the_same_generator(qkv):
    compiled = torch.compile(
        lambda *a: attend(*a, dropout=0.3), fullgraph=True, backend="aot_eager"
    )
    torch.manual_seed(5)
    want = attend(*qkv, dropout=0.3)
    torch.manual_seed(5)
    got = compiled(*qkv)
    assert torch.equal(got, want)
    assert not torch.equal(compiled(*qkv), want)


def test_compiled_out(qkv):
    compiled = torch.compile(
        lambda *a, out: attend(*a, out=out), fullgraph=True, backend="aot_eager"
    )
    with torch.no_grad():
        out = torch.zeros(2, 4, 9, 8)
        compiled(*qkv, out=out)
        assert torch.equal(out, attend(*qkv))


def test_export(qkv):
    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return attend(q, k, v, mask="causal")

    length = torch.export.Dim("length")
    plain = tuple(t.detach() for t in qkv)
    program = torch.export.export(Model(), plain, dynamic_shapes=({2: length},) * 3)
    assert any("attune.attention" in str(node.target) for node in program.graph.nodes)
    for arrays in (plain, tuple(torch.randn(2, 4, 21, 8) for _ in range(3))):
        torch.testing.assert_close(program.module()(*arrays), sdpa(*arrays, is_causal=True))


def test_fake_tensors(qkv):
    from torch._subclasses import FakeTensorMode

    plain = [t.detach() for t in qkv]
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in plain]
        out, lse = attend(*fakes, lse=True)
    assert out.shape == (2, 4, 9, 8) and lse.shape == (2, 4, 9) and lse.dtype == torch.float32


def test_tensors_without_data():
    meta = [torch.empty(2, 4, 9, 8, device="meta") for _ in range(3)]
    assert attend(*meta).shape == (2, 4, 9, 8)


def test_autocast(qkv):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(*qkv)
        compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")(*qkv)
    assert out.dtype == torch.bfloat16
    assert torch.equal(compiled, out)
    assert all(g.dtype == torch.float32 for g in gradients(out, qkv))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_draws_the_same_dropout(qkv, reentrant):
    grads = []
    for run in (lambda f, *a: f(*a), lambda f, *a: checkpoint(f, *a, use_reentrant=reentrant)):
        torch.manual_seed(3)
        out = run(lambda *a: attend(*a, dropout=0.5), *qkv)
        for t in qkv:
            t.grad = None
        out.square().sum().backward()
        grads.append([t.grad.clone() for t in qkv])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


@pytest.mark.parametrize("stream", ["curand", "fa2"])
def test_gradients_through_dropout(stream):
    """Of float32, against autograd of the mask that v = identity shows."""
    b, h, queries, keys = 2, 4, 21, 40
    q, k = (torch.randn(b, h, s, 8, requires_grad=True) for s in (queries, keys))
    v = torch.eye(keys).expand(b, h, keys, keys).clone().requires_grad_()
    options = {"dropout": 0.25, "dropout_seed": 5, "dropout_offset": 96, "dropout_stream": stream}
    out = attend(q, k, v, **options)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, (q, k, v), grad)
    z = (out.detach() != 0).double() / 0.75
    assert 0.7 < z.mean() * 0.75 < 0.8
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    p = torch.softmax(wide[0] @ wide[1].mT * 8**-0.5, -1) * z
    want = torch.autograd.grad(p @ wide[2], wide, grad.double())
    torch.testing.assert_close(out.double(), p @ wide[2], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(got, want):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)


def test_compiled_dropout_of_fa2s_stream(qkv):
    options = {"dropout": 0.3, "dropout_stream": "fa2"}
    compiled = torch.compile(lambda *a: attend(*a, **options), fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, lambda *a: attend(*a, **options)):
        torch.manual_seed(5)
        out = function(*qkv)
        results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
    assert all(torch.equal(a, b) for a, b in zip(*results))
    torch.manual_seed(5)
    assert not torch.equal(results[0][0], attend(*qkv, dropout=0.3))


def test_dropout_keeps_the_mean():
    q, k = torch.zeros(1, 1, 500, 8), torch.zeros(1, 1, 400, 8)
    out = attend(q, k, torch.ones(1, 1, 400, 8), dropout=0.25)
    assert abs(out.mean() - 1) < 0.01
    kept = out[0, 0, :, 0] * 0.75 * 400
    torch.testing.assert_close(kept, kept.round(), atol=1e-2, rtol=0)


def test_vmap():
    q, k, v = (torch.randn(3, 2, 4, 9, 8) for _ in range(3))
    torch.testing.assert_close(torch.func.vmap(attend)(q, k, v), sdpa(q, k, v))
    shared = torch.func.vmap(attend, in_dims=(1, None, None))(q.transpose(0, 1), k[0], v[0])
    torch.testing.assert_close(shared, sdpa(q, k[:1].expand_as(k), v[:1].expand_as(v)))

    def with_all(q, slopes, bias, sink):
        return attend(q, q, q, alibi_slopes=slopes, bias=bias, sink=sink)

    more = (torch.rand(3, 4), torch.randn(3, 9, 9), torch.randn(3, 4))
    for sinks, dim in ((more[2], 0), (None, None)):
        got = torch.func.vmap(with_all, in_dims=(0, 0, 0, dim))(q, *more[:2], sinks)
        for n in range(3):
            sink = None if sinks is None else sinks[n]
            torch.testing.assert_close(got[n], with_all(q[n], more[0][n], more[1][n], sink))


def test_per_sample_gradients():
    x = torch.randn(3, 2, 4, 9, 8)
    bias = torch.randn(4, 9, 9)

    def loss(attention, x, bias):
        return attention(x, bias).square().sum()

    def ours(x, bias):
        return loss(lambda x, b: attend(x, x, x, bias=b), x, bias)

    def theirs(x, bias):
        return loss(lambda x, b: sdpa(x, x, x, attn_mask=b), x, bias)

    for argnums in (0, (0, 1)):
        got, want = (
            torch.func.vmap(torch.func.grad(f, argnums), in_dims=(0, None))(x, bias)
            for f in (ours, theirs)
        )
        torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)


def test_there_is_no_second_derivative(qkv):
    grad = torch.autograd.grad(attend(*qkv).sum(), qkv[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def test_refusals(qkv):
    with pytest.raises(ValueError, match="take no part in autograd"):
        attend(*qkv, out=torch.empty(2, 4, 9, 8))
    with pytest.raises(ValueError, match="f64"):
        attend(*(t.detach().double() for t in qkv))
    with pytest.raises(ValueError, match="q has 2 dimensions"):
        attend(*(t[0, 0] for t in qkv))


def test_numpy_beside_tensors():
    numpy = pytest.importorskip("numpy")
    q = torch.randn(1, 3, 2, 8)
    lengths = numpy.array([2], numpy.int32)
    torch.testing.assert_close(
        attune.attention(q, q, q, key_lengths=lengths), attune.attention(q, q[:, :2], q[:, :2])
    )
    q.requires_grad_()
    (grad,) = torch.autograd.grad(attune.attention(q, q, q, key_lengths=lengths).sum(), q)
    (want,) = torch.autograd.grad(attune.attention(q, q[:, :2], q[:, :2]).sum(), q)
    torch.testing.assert_close(grad, want)


def test_parameters_are_tensors():
    q = torch.nn.Parameter(torch.randn(1, 3, 2, 8))
    out = attune.attention(q, q, q)
    assert out.requires_grad
    with torch.no_grad():
        assert torch.equal(attune.attention(q, q, q), out)
