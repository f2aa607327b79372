#!/usr/bin/env python3
"""Compiles the Triton kernels in tests/wrap/data/: for sm_80 and sm_90, without a GPU. They are kept in
the repository, so that the tests need no Triton; run this only to make them anew.

usage: make_kernels.py FOLDER        (with a Python that imports triton 3.6)
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()
os.environ["TRITON_DISABLE_LINE_INFO"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def scale(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * factor, mask=i < n)


@triton.jit
def tiles(source, target, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK
    target.store([row, 0], source.load([row, 0]))


@triton.jit
def everything(x_ptr, flag, small, large, half, wide, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = wide.to(tl.float32) + half.to(tl.float32) + small + large.to(tl.float32)
    tl.store(x_ptr + i, tl.where(flag, value, 0.0))


def keep(folder, stem, function, signature, constants, divisible=(), arch=90, **options):
    names = list(signature)
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in divisible}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attrs)
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    metadata = kernel.metadata._asdict()
    metadata["target"] = dict(backend="cuda", arch=arch, warp_size=32)
    for noise in ("extern_libs", "hash"):
        metadata.pop(noise, None)
    cubin = folder / f"{stem}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    (folder / f"{stem}.json").write_text(json.dumps(metadata, sort_keys=True) + "\n")
    print(stem, cubin.stat().st_size)


def main():
    folder = pathlib.Path(sys.argv[1])
    plain = {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32", "factor": "fp32", "BLOCK": "constexpr"}
    for arch in (80, 90):
        keep(folder, f"scale_even.sm{arch}", scale, plain, {"BLOCK": 1024}, ("x_ptr", "y_ptr", "n"), arch)
        keep(folder, f"scale_any.sm{arch}", scale, plain, {"BLOCK": 256}, (), arch)
    keep(folder, "cluster.sm90", scale, plain, {"BLOCK": 512}, (), 90, num_ctas=2, launch_pdl=True,
         launch_cooperative_grid=True)
    keep(folder, "tiles.sm90", tiles,
         {"source": "tensordesc<fp16[32, 64]>", "target": "tensordesc<fp16[32, 64]>", "BLOCK": "constexpr"},
         {"BLOCK": 32}, (), 90)
    keep(folder, "everything.sm90", everything,
         {"x_ptr": "*fp32", "flag": "i1", "small": "i8", "large": "i64", "half": "fp16", "wide": "fp64",
          "BLOCK": "constexpr"}, {"BLOCK": 128}, (), 90)
    shutil.rmtree(os.environ["TRITON_CACHE_DIR"], ignore_errors=True)


if __name__ == "__main__":
    main()
