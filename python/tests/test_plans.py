"""plan(), explain() and list_kernels()."""

import numpy
import pytest

import attune
from dense64 import assert_close, attention

PROBLEM = "forward dtype=f32 b=2 hq=4 hkv=4 sq=5 sk=5 d=8 lse"


def test_a_plan_computes():
    rng = numpy.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 5, 4, 8), dtype="f4") for _ in range(3))
    o, lse = numpy.empty_like(q), numpy.empty((2, 4, 5), "f4")
    plan = attune.plan(PROBLEM, threads=1)
    assert plan.kernel.startswith("fwd.cpu.f32.") and plan.threads == 1 and plan.device_index == -1
    workspace = numpy.empty(plan.workspace_bytes, "u1")
    for scratch in (None, workspace):
        o[:] = lse[:] = numpy.nan
        plan.run(q=q, k=k, v=v, o=o, lse=lse, workspace=scratch)
        want, want_lse = attention(q, k, v)
        assert_close(o, want)
        assert_close(lse, want_lse)
    with pytest.raises(ValueError, match="the workspace has 1 bytes"):
        plan.run(q=q, k=k, v=v, o=o, lse=lse, workspace=numpy.empty(1, "u1"))
    with pytest.raises(TypeError, match="no tensor 'query'"):
        plan.run(q=q, query=q)
    plan.prepare()
    assert plan.kernel in plan.explain() and plan.kernel in repr(plan)


def test_a_plan_draws_the_problems_stream():
    rng = numpy.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, 40, 4, 8), dtype="f4") for _ in range(3))
    o = numpy.empty_like(q)
    options = {"dropout": 0.5, "dropout_stream": "fa2"}
    plan = attune.plan(q, k, v, **options)
    assert "dropout=0.5 dropout_stream=fa2" in plan.problem
    plan.run(q=q, k=k, v=v, o=o, dropout_seed=3, dropout_offset=64)
    want = attune.attention(q, k, v, dropout_seed=3, dropout_offset=64, **options)
    numpy.testing.assert_array_equal(o, want)


def test_problems_of_arrays():
    q, k = numpy.zeros((2, 9, 6, 16), "f4"), numpy.zeros((2, 13, 3, 16), "f4")
    shape = "dtype=f32 b=2 hq=6 hkv=3 sq=9 sk=13 d=16"
    assert attune.problem_text(q, k, k, dropout=0.1) == f"forward {shape} dropout=0.1 device=cpu"
    text = attune.problem_text(q, k, k, dropout=0.125, dropout_stream="fa2", backward=True)
    assert text == f"backward {shape} dropout=0.125 dropout_stream=fa2 lse device=cpu"
    assert attune.explain(q, k, k, dropout=0.125, dropout_stream="fa2").kernel.startswith("fwd.cpu")
    assert "dropout" not in attune.problem_text(q, k, k, dropout_stream="fa2")
    strided = k[:, ::2]
    text = attune.problem_text(q, strided, strided, mask="causal", lse=True)
    assert "sk=7" in text and "k_strides=624,96,16,1" in text and " lse" in text
    bias = numpy.zeros((6, 1, 13), "f4")
    text = attune.problem_text(q, k, k, bias=bias, backward=("bias",))
    assert text == f"backward {shape} bias=f32:1h1k bias_grad lse device=cpu"
    assert attune.explain(q, k, k, bias=bias, backward=True).kernel.startswith("bwd.cpu.f32")
    o = numpy.empty_like(q)
    attune.plan(q, k, k, window=(3, -1)).run(q=q, k=k, v=k, o=o)
    with pytest.raises(ValueError, match="no gradient of"):
        attune.problem_text(q, k, k, backward=("scale",))
    with pytest.raises(TypeError, match="nothing beside it"):
        attune.explain(PROBLEM, mask="causal")


def test_plans_refuse():
    with pytest.raises(ValueError, match="heads"):
        attune.plan("forward dtype=f32 heads=3")
    with pytest.raises(ValueError, match="no kernel is called 'fast'"):
        attune.plan(PROBLEM, kernel="fast")
    with pytest.raises(attune.UnsupportedError, match="refused"):
        attune.plan(PROBLEM, kernel="fwd.cpu.bf16.generic")
    assert issubclass(attune.UnsupportedError, NotImplementedError)


def test_explanations_are_objects():
    explained = attune.explain(PROBLEM)
    chosen = [c for c in explained.candidates if c.chosen]
    assert [c.kernel for c in chosen] == [explained.kernel] and chosen[0].reasons == []
    assert explained.kernel in str(explained) and "candidates, in order" in str(explained)
    forced = attune.explain(PROBLEM, kernel="fwd.cpu.f32.generic")
    assert forced.kernel == "fwd.cpu.f32.generic"
    assert all(c.reasons for c in forced.candidates if not c.chosen)
    assert min(explained.tile) > 0


def test_explanations_for_a_gpu_that_is_not_here():
    problem = "forward dtype=bf16 b=1 hq=8 hkv=8 sq=4096 sk=4096 d=128 device=cuda"
    explained = attune.explain(problem, arch="sm_90")
    assert explained.kernel.startswith("fwd.hopper.sm90a.bf16.d128")
    queries, keys = explained.tile
    assert f"q{queries}k{keys}" in explained.kernel
    explained = attune.explain(problem, arch="sm_80")
    assert explained.kernel.startswith("fwd.portable.sm80.bf16.d128")
    with pytest.raises(ValueError, match="sm_1"):
        attune.explain(problem, arch="sm_1")


@pytest.mark.parametrize(
    ("mask", "sees"),
    [
        ("", lambda i, j: True),
        (" mask=causal-bottom-right", lambda i, j: j <= i + 64),
        (" mask=causal-top-left", lambda i, j: j <= i),
        (" window=40,8", lambda i, j: i + 64 - 40 <= j <= i + 64 + 8),
        (" diagonal=top-left window=40,-1", lambda i, j: i - 40 <= j),
        (" mask=causal-bottom-right offset=-70 window=10,-1", lambda i, j: i - 16 <= j <= i - 6),
    ],
)
def test_block_maps_say_what_the_mask_does(mask, sees):
    from attune import _blockmap

    tile = (16, 24)
    rows = _blockmap.blocks(f"forward dtype=f32 b=1 hq=1 hkv=1 sq=100 sk=164 d=64{mask}", tile)
    assert len(rows) == 7 and {len(row) for row in rows} == {7}
    for y, row in enumerate(rows):
        for x, kind in enumerate(row):
            seen = {
                sees(i, j)
                for i in range(y * 16, min(100, y * 16 + 16))
                for j in range(x * 24, min(164, x * 24 + 24))
            }
            assert seen == {"skipped": {False}, "free": {True}, "masked": {True, False}}[kind]


def test_notebooks_get_a_picture():
    page = attune.explain(PROBLEM + " mask=causal-bottom-right")._repr_html_()
    assert page.startswith("<pre>forward") and "<svg" in page and "masked" in page
    long = attune.explain("forward dtype=f32 sq=100000 sk=100000 d=64").svg()
    assert long.count("<rect") <= 64 * 64


def test_kernels():
    kernels = attune.list_kernels()
    ids = [kernel.id for kernel in kernels]
    assert len(set(ids)) == len(ids) > 100
    generic = next(kernel for kernel in kernels if kernel.id == "fwd.cpu.f32.generic")
    assert generic.available and generic.isa == "generic" and generic.dtype == "f32"
    portable = [kernel for kernel in kernels if kernel.family == "portable"]
    assert {kernel.arch_begin for kernel in portable} == {75, 80, 100}
    assert {kernel.kind for kernel in portable} == {"forward", "backward"}
