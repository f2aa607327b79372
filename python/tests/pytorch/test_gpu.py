"""On an NVIDIA GPU: the framework's stream and allocator, CUDA graphs, no synchronisation."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attune
from attune import _torch_ops
from attune.compat.torch import scaled_dot_product_attention

pytestmark = pytest.mark.gpu


@pytest.fixture
def qkv():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no NVIDIA GPU here")
    return [torch.randn(2, 4, 300, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]


def attend(*tensors, **options):
    return attune.attention(*tensors, layout="bhsd", **options)


def assert_near(got, want):
    torch.testing.assert_close(got.float(), want.float(), atol=2e-2, rtol=2e-2)


def test_forward_and_backward(qkv):
    inputs = [t.requires_grad_() for t in qkv]
    bias = torch.randn(4, 300, 300, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    inputs.append(bias)
    got, want = attend(*qkv, bias=bias), sdpa(*qkv, attn_mask=bias)
    assert_near(got, want)
    grad = torch.randn_like(want)
    for mine, theirs in zip(
        torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad)
    ):
        assert_near(mine, theirs)


def test_float8(qkv):
    """Of GPUs on Hopper alone: o is bfloat16, and scales multiply what is stored."""
    if not _torch_ops.EXCHANGES:
        pytest.skip("before PyTorch 2.10 DLPack takes no float8 here")
    stored = [t.to(torch.float8_e4m3fn) for t in qkv]
    scales = [torch.rand(2, 4, device="cuda") + 0.5 for _ in range(3)]
    named = dict(zip(("q_scale", "k_scale", "v_scale"), scales))
    if torch.cuda.get_device_capability() != (9, 0):
        with pytest.raises(NotImplementedError, match="no other GPU row takes f8e4m3"):
            attend(*stored, **named)
        return
    wide = [t.float() * scale[..., None, None] for t, scale in zip(stored, scales)]
    got = attend(*stored, mask="causal", **named)
    assert got.dtype == torch.bfloat16
    want = sdpa(*wide, is_causal=True)
    torch.testing.assert_close(got.float(), want, atol=6e-2, rtol=6e-2)


def test_nothing_synchronises(qkv):
    """PyTorch's own check, and a stream that is still busy when the calls have returned."""
    inputs = [t.requires_grad_() for t in qkv]
    torch.autograd.grad(attend(*inputs, dropout=0.1).sum(), inputs)  # loads the kernels
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(500_000_000)
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = attend(*inputs, dropout=0.1)
            torch.autograd.grad(out.sum(), inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert not side.query()


def test_the_current_stream_orders_the_work(qkv):
    side = torch.cuda.Stream()
    q, k, v = qkv
    want = attend(q * 2, k, v)
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.stream(side):
        late = torch.empty_like(q)
        torch.cuda._sleep(50_000_000)
        late.copy_(q * 2)
        got = attend(late, k, v)
    side.synchronize()
    assert torch.equal(got, want)


@pytest.mark.parametrize("backward", [False, True])
def test_cuda_graphs(qkv, backward):
    """A replay reads new inputs, and draws new dropout."""
    statics = [t.detach().clone().requires_grad_(backward) for t in qkv]

    def step(dropout):
        out = attend(*statics, mask="causal", dropout=dropout)
        return (
            (out, *torch.autograd.grad(out.float().square().sum(), statics)) if backward else (out,)
        )

    for dropout in (0.0, 0.5):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(dropout)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step(dropout)
        fresh = [torch.randn_like(t) for t in statics]
        with torch.no_grad():
            for static, tensor in zip(statics, fresh):
                static.copy_(tensor)
        graph.replay()
        first = [t.clone() for t in results]
        graph.replay()
        if dropout == 0:  # dQ is summed in any order: the bits may differ
            for got, again, want in zip(first, results, step(0.0)):
                assert_near(got, want)
                assert_near(again, want)
        else:
            assert not any(torch.equal(a, b) for a, b in zip(first, results))


def test_memory_is_the_frameworks(qkv):
    inputs = [t.requires_grad_() for t in qkv]
    out = attend(*inputs)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(out.sum(), inputs)
    grads = sum(t.numel() * t.element_size() for t in inputs)
    assert torch.cuda.max_memory_allocated() - before > grads  # the workspace too


def test_compile(qkv):
    f = torch.compile(lambda *a: scaled_dot_product_attention(*a, is_causal=True), fullgraph=True)
    with torch.no_grad():
        assert_near(f(*qkv), sdpa(*qkv, is_causal=True))
        reduced = torch.compile(
            lambda *a: attend(*a, mask="causal"), mode="reduce-overhead", fullgraph=True
        )
        for _ in range(3):
            assert_near(reduced(*qkv), sdpa(*qkv, is_causal=True))


def test_second_gpu(qkv):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    there = [t.to("cuda:1") for t in qkv]
    assert_near(attend(*there).to("cuda:0"), attend(*qkv))


def test_devices_do_not_mix(qkv):
    q, k, v = qkv
    with pytest.raises(ValueError, match="k is on cpu, but q is on cuda:0"):
        attend(q, k.cpu(), v)


def test_plans_run_on_the_current_stream(qkv):
    q, k, v = (t.transpose(1, 2).contiguous() for t in qkv)
    plan = attune.plan("forward dtype=bf16 b=2 hq=4 hkv=4 sq=300 sk=300 d=64 device=cuda")
    plan.prepare()
    o = torch.empty_like(q)
    plan.run(q=q, k=k, v=v, o=o)
    assert torch.equal(o, attune.attention(q, k, v))


def test_cupy(qkv):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    arrays = [cupy.from_dlpack(t.half()) for t in qkv]
    out = attend(*arrays)
    assert isinstance(out, cupy.ndarray)
    assert_near(torch.from_dlpack(out), attend(*(t.half() for t in qkv)))
