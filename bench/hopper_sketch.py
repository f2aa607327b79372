#!/usr/bin/env python3
"""Runs cubins of kernel/forward_hopper.cuh by the driver alone: errors against float64, then TFLOP/s
beside PyTorch's backends. A stopgap until the family is a part of the table.

usage: hopper_sketch.py CUBIN:D:QUERIES:KEYS:STAGES ... [--lengths 1024,4096,16384]
"""

import argparse
import ctypes
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

c, cuda = ctypes, ctypes.CDLL("libcuda.so.1")
I64, INT, FLOAT, PTR, U32, U64 = c.c_longlong, c.c_int, c.c_float, c.c_void_p, c.c_uint32, c.c_uint64


class Operand(c.Structure):
    _fields_ = [("data", PTR), ("b", I64), ("s", I64), ("h", I64), ("d", I64)]


class Indices(c.Structure):
    _fields_ = [("data", PTR), ("stride", I64), ("inner", I64)]


class Bias(c.Structure):
    _fields_ = [("data", PTR), ("b", I64), ("h", I64), ("q", I64), ("k", I64), ("kind", INT),
                ("element", INT)]


class Dropout(c.Structure):
    _fields_ = [("seed", U64), ("offset", U64), ("state", PTR), ("keep_from", U32),
                ("keep_none", INT), ("keep_scale", FLOAT), ("round_keys", U32 * 20)]


class Lse(c.Structure):
    _fields_ = [("data", PTR), ("b", I64), ("h", I64), ("s", I64), ("padded", INT), ("packed", INT)]


class Forward(c.Structure):
    _fields_ = [("q", Operand), ("k", Operand), ("v", Operand), ("o", Operand),
                ("b", INT), ("hq", INT), ("hkv", INT), ("group", INT), ("sq", INT), ("sk", INT),
                ("d", INT), ("dv", INT), ("total_q", INT), ("total_k", INT), ("scale", FLOAT),
                ("softcap", FLOAT), ("scale_log2", FLOAT), ("mask_low", I64), ("mask_high", I64),
                ("bottom_right", INT), ("page_size", INT), ("pages", INT), ("key_lengths", Indices),
                ("cu_q", Indices), ("cu_k", Indices), ("page_table", Indices), ("bias", Bias),
                ("alibi", PTR), ("alibi_b", I64), ("alibi_h", I64), ("sink", PTR), ("sink_s", I64),
                ("dropout", Dropout), ("lse", Lse), ("query_blocks", INT), ("heads_a_slice", INT),
                ("tiles", I64), ("accumulator", PTR)]


def check(code, what):
    if code:
        name = c.c_char_p()
        cuda.cuGetErrorName(code, c.byref(name))
        raise RuntimeError(f"{what}: {name.value}")


MAP_AT = (c.sizeof(Forward) + 63) // 64 * 64
FAR = 1 << 41


class Kernel:
    def __init__(self, text):
        path, self.d, self.queries, self.keys, self.stages = text.split(":")
        self.d, self.queries, self.keys, self.stages = map(
            int, (self.d, self.queries, self.keys, self.stages))
        self.name = f"q{self.queries}k{self.keys}s{self.stages}"
        module, self.function = PTR(), PTR()
        check(cuda.cuModuleLoad(c.byref(module), path.encode()), path)
        check(cuda.cuModuleGetFunction(c.byref(self.function), module, b"attune_kernel"), path)
        row = self.d * 2
        self.shared = (self.queries + 2 * self.stages * self.keys) * row + (1 + 4 * self.stages) * 8
        check(cuda.cuFuncSetAttribute(self.function, 8, self.shared), "shared memory")

    def tensor_map(self, x, rows):
        """(d, h, s, b) boxes of 64 x 1 x rows x 1 of [B, S, H, D]."""
        out = (U64 * 17)()
        base = c.addressof(out)
        aligned = (base + 63) // 64 * 64
        b, s, h, d = x.shape
        sizes = (U64 * 4)(d, h, s, b)
        strides = (U64 * 3)(x.stride(2) * 2, x.stride(1) * 2, x.stride(0) * 2)
        box, steps = (U32 * 4)(64, 1, rows, 1), (U32 * 4)(1, 1, 1, 1)
        kind = 9 if x.dtype == torch.bfloat16 else 6
        space = (c.c_char * 256)()
        aligned = (c.addressof(space) + 63) // 64 * 64
        check(cuda.cuTensorMapEncodeTiled(PTR(aligned), kind, 4, PTR(x.data_ptr()), sizes, strides,
                                          box, steps, 0, 3, 2, 0), "cuTensorMapEncodeTiled")
        return c.string_at(aligned, 128)

    def params(self, q, k, v, o, lse=None, causal=False, slice_heads=None):
        b, sq, hq, d = q.shape
        sk, hkv = k.shape[1:3]
        f = Forward()
        for name, x in (("q", q), ("k", k), ("v", v), ("o", o)):
            setattr(f, name, Operand(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2), 1))
        f.b, f.hq, f.hkv, f.group, f.sq, f.sk, f.d, f.dv = b, hq, hkv, hq // hkv, sq, sk, d, d
        f.scale = d ** -0.5
        f.scale_log2 = f.scale / math.log(2)
        f.mask_low, f.mask_high = -FAR, 1 if causal else FAR
        if lse is not None:
            f.lse = Lse(lse.data_ptr(), lse.stride(0), lse.stride(1), lse.stride(2), 0, 0)
        f.query_blocks = -(-sq // self.queries)
        f.heads_a_slice = min(b * hq, slice_heads or max(1, (24 << 20) // (sk * d * 4)))
        f.tiles = f.query_blocks * hq * b
        raw = bytes(f).ljust(MAP_AT, b"\0")
        raw += self.tensor_map(q, self.queries) + self.tensor_map(k, self.keys) + self.tensor_map(v, self.keys)
        return raw, f.tiles

    def launch(self, raw, tiles):
        space = c.create_string_buffer(raw, len(raw))
        at = (PTR * 1)(c.addressof(space))
        check(cuda.cuLaunchKernel(self.function, tiles, 1, 1, (self.queries // 64 + 1) * 128, 1, 1,
                                  self.shared, PTR(torch.cuda.current_stream().cuda_stream), at, None),
              "cuLaunchKernel")


def reference(q, k, v, causal):
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -math.inf)
    return (s.softmax(-1) @ v).transpose(1, 2), s.logsumexp(-1)


def errors(kernel):
    for b, sq, sk, hq, hkv, causal in ((2, 256, 256, 2, 2, False), (1, 333, 417, 4, 2, False),
                                       (2, 300, 300, 2, 1, True), (1, 1000, 700, 2, 2, True),
                                       (1, 129, 1, 1, 1, False)):
        q = torch.randn(b, sq, hq, kernel.d, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(b, sk, hkv, kernel.d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        o = torch.full_like(q, math.nan)
        lse = torch.full((b, hq, sq), math.nan, device="cuda")
        kernel.launch(*kernel.params(q, k, v, o, lse, causal))
        torch.cuda.synchronize()
        want, want_lse = reference(q, k, v, causal)
        print(kernel.d, kernel.name, (b, sq, sk, hq, hkv, causal),
              f"o {(o.double() - want).abs().max().item():.2e}",
              f"lse {(lse.double() - want_lse).abs().max().item():.2e}", flush=True)


def seconds(function, calls):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / calls


def race(kernels, lengths):
    for d in sorted({kernel.d for kernel in kernels}):
        for s in lengths:
            for causal in (False, True):
                b, h = 16384 // s, 2048 // d
                q, k, v = (torch.randn(b, s, h, d, device="cuda", dtype=torch.bfloat16) for _ in range(3))
                o = torch.empty_like(q)
                work = 4 * b * h * s * s * d * (0.5 if causal else 1)

                def peer(backend):
                    with sdpa_kernel(backend):
                        F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal)

                ways = {"FA2": lambda: peer(SDPBackend.FLASH_ATTENTION),
                        "cuDNN": lambda: peer(SDPBackend.CUDNN_ATTENTION)}
                for kernel in kernels:
                    if kernel.d == d:
                        packed = kernel.params(q, k, v, o, causal=causal)
                        ways[kernel.name] = lambda kernel=kernel, packed=packed: kernel.launch(*packed)
                times = {name: [] for name in ways}
                for way in ways.values():
                    seconds(way, 3)
                for _ in range(5):
                    for name, way in ways.items():
                        times[name].append(seconds(way, 5))
                print(f"d{d} S{s} {'causal' if causal else 'full'}:",
                      {name: round(work / sorted(t)[2] * 1e-12) for name, t in times.items()}, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kernels", nargs="+")
    parser.add_argument("--lengths", default="1024,4096,16384")
    options = parser.parse_args()
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    kernels = [Kernel(text) for text in options.kernels]
    for kernel in kernels:
        errors(kernel)
    race(kernels, [int(s) for s in options.lengths.split(",")])


if __name__ == "__main__":
    main()
