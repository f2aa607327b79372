"""Small Triton kernels and functions that launch them, for the tests of attune.wrap."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed, whose kernels are traced")
wrap = pytest.importorskip("attune.wrap")
tl = triton.language

from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

ARCHS = ["sm_90"]


@triton.jit
def scale(x, out, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) * factor, mask=i < n)


@triton.jit
def rows(x, out, stride, columns, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    at = tl.program_id(0) * stride + i
    tl.store(out + at, tl.load(x + at, mask=i < columns), mask=i < columns)


tuned = triton.autotune(
    [triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 1024}, num_warps=8)], key=["n"]
)(scale)


def scaled(x, factor=2.0):
    out = torch.empty_like(x)
    n = x.numel()
    scale[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n, factor, BLOCK=256)
    return out


def of(program, kind):
    return [
        step[kind] if kind != "kernel" else step for step in program.json["steps"] if kind in step
    ]


def trace(function, shape=(64,), words=("N",), **options):
    options.setdefault("archs", ARCHS)
    return wrap.trace(function, {"x": torch.zeros(shape)}, shapes={"x": words}, **options)


@triton.jit
def blocks(source, target, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS
    target.store([row, 0], source.load([row, 0]))


def half_of(x):
    out = torch.empty_like(x)
    half = TensorDescriptor.from_tensor(x[:, 32:], [16, 32])
    blocks[(triton.cdiv(x.shape[0], 16),)](half, TensorDescriptor.from_tensor(out, [16, 32]), 16)
    return out
