#!/usr/bin/env python3
"""Attune's dropout mask on the GPU against PyTorch's own, bit for bit.

PyTorch's memory-efficient attention shows its uniform numbers through
torch._fill_mem_eff_dropout_mask_; Attune's mask is read out of o: with v the identity, o[i, j] is
P_ij / (1 - p) where element (i, j) is kept and 0 where it is not. So is that of PyTorch's
FlashAttention-2, which the stream fa2 has to equal. Skips (exit status 77) without PyTorch or a GPU.

usage: gpu_dropout_torch.py SOURCE_DIR LIBATTUNE.SO
"""

import ctypes
import pathlib
import sys

SKIPPED = 77


def run(torch, abi, library, text, tensors, dtype, rng, state):
    """Runs a plan for the Problem `text`; rng: seed and offset, in device memory if `state`."""
    plan = abi.Plan(library, text)
    arguments = abi.Arguments(struct_size=ctypes.sizeof(abi.Arguments))
    for name, tensor in tensors.items():
        setattr(arguments, name, abi.view(tensor, dtype))
    if state:
        numbers = torch.tensor(rng, dtype=torch.int64, device="cuda")
        arguments.dropout_state = abi.view(numbers, "i64")
    else:
        arguments.dropout_seed, arguments.dropout_offset = rng
    arguments.stream = torch.cuda.current_stream().cuda_stream
    plan.run(arguments)
    torch.cuda.synchronize()


def type_of(torch, dtype):
    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]


def compare(torch, abi, library, dtype, p, seed, offset, state, keys):
    """How many of the mask's elements differ from memory-efficient attention's, of how many."""
    b, h, queries = 2, 3, 77
    kind = type_of(torch, dtype)
    generator = torch.Generator("cuda").manual_seed(1)
    q, k = (torch.randn((b, s, h, 64), device="cuda", generator=generator).to(kind)
            for s in (queries, keys))
    v = torch.eye(keys, device="cuda", dtype=kind).view(1, keys, 1, keys).expand(b, keys, h, keys)
    v = v.contiguous()
    o = torch.empty((b, queries, h, keys), device="cuda", dtype=kind)
    run(torch, abi, library,
        f"forward dtype={dtype} b={b} hq={h} hkv={h} sq={queries} sk={keys} d=64 dv={keys} dropout={p} "
        "device=cuda", {"q": q, "k": k, "v": v, "o": o}, dtype, (seed, offset), state)
    uniform = torch.empty((b, h, queries, keys), device="cuda", dtype=torch.float32)
    uniform = torch._fill_mem_eff_dropout_mask_(uniform, p, seed, offset)
    kept = o.transpose(1, 2) != 0
    return (kept != (uniform > p)).sum().item(), kept.numel()


def compare_fa2(torch, abi, library, dtype, p, seed, state, d, keys):
    """The same with the stream fa2 and PyTorch's FlashAttention-2, whose mask is read out of its o likewise: with
    slices of the identity as v, since there it has as many columns as q. It says where its numbers begin."""
    b, h, queries = 2, 3, 141
    kind = type_of(torch, dtype)
    generator = torch.Generator("cuda").manual_seed(1)
    q, k = (torch.randn((b, s, h, d), device="cuda", generator=generator).to(kind)
            for s in (queries, keys))
    differ = total = 0
    for first in range(0, keys, d):
        v = torch.eye(keys, device="cuda", dtype=kind)[:, first:first + d]
        v = torch.nn.functional.pad(v, (0, d - v.shape[1]))
        v = v.view(1, keys, 1, d).expand(b, keys, h, d).contiguous()
        torch.cuda.manual_seed(seed)
        theirs, *_, rng, _, _ = torch.ops.aten._scaled_dot_product_flash_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), p, False, False)
        o = torch.empty_like(q)
        run(torch, abi, library,
            f"forward dtype={dtype} b={b} hq={h} hkv={h} sq={queries} sk={keys} d={d} dropout={p} "
            "dropout_stream=fa2 device=cuda", {"q": q, "k": k, "v": v, "o": o}, dtype,
            [int(n) for n in rng.flatten().tolist()], state)
        used = slice(0, min(d, keys - first))
        kept = o.transpose(1, 2)[..., used] != 0
        differ += (kept != (theirs[..., used] != 0)).sum().item()
        total += kept.numel()
    return differ, total


def every_comparison(torch, abi, library):
    """(what, how many elements differ, of how many)"""
    for p in (0.1, 0.125, 0.5, 0.9):
        for state in (False, True):
            for dtype in ("f32", "f16", "bf16"):
                for seed, offset in ((0, 0), (42, 4), (123456789123, 8), (7, 1 << 34)):
                    for keys in (64, 100, 128):
                        yield (f"{dtype} p={p} seed={seed} offset={offset} state={state} keys={keys}",
                               *compare(torch, abi, library, dtype, p, seed, offset, state, keys))
            for dtype in ("f16", "bf16"):
                for seed in (0, 42, 123456789123):
                    for d, keys in ((64, 64), (64, 300), (96, 100), (128, 256), (192, 200), (256, 333)):
                        yield (f"fa2 {dtype} p={p} seed={seed} state={state} d={d} keys={keys}",
                               *compare_fa2(torch, abi, library, dtype, p, seed, state, d, keys))


def main():
    source, path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    sys.path.insert(0, str(source / "bench"))
    import attune_abi as abi

    try:
        import torch
    except ImportError:
        print("skipped: there is no PyTorch")
        return SKIPPED
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        return SKIPPED
    library = abi.Library(path)
    wrong = 0
    for what, bad, of in every_comparison(torch, abi, library):
        wrong += bad > 0
        if bad:
            print(f"{what}: {bad} of {of} elements differ")
    print("FAIL" if wrong else "every mask equals PyTorch's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
