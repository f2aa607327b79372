#!/usr/bin/env python3
"""Attune's dropout mask on the GPU against PyTorch's own, bit for bit.

PyTorch's memory-efficient attention shows its uniform numbers through
torch._fill_mem_eff_dropout_mask_; Attune's mask is read out of o: with v the identity, o[i, j] is
P_ij / (1 - p) where element (i, j) is kept and 0 where it is not. Skips (exit status 77) without
PyTorch or a GPU.

usage: gpu_dropout_torch.py SOURCE_DIR LIBATTUNE.SO
"""

import ctypes
import pathlib
import sys

SKIPPED = 77


def compare(torch, abi, library, dtype, p, seed, offset, state, keys):
    """How many of the mask's elements differ, of how many."""
    b, h, queries = 2, 3, 77
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    generator = torch.Generator("cuda").manual_seed(1)
    q, k = (torch.randn((b, s, h, 64), device="cuda", generator=generator).to(kind)
            for s in (queries, keys))
    v = torch.eye(keys, device="cuda", dtype=kind).view(1, keys, 1, keys).expand(b, keys, h, keys)
    v = v.contiguous()
    o = torch.empty((b, queries, h, keys), device="cuda", dtype=kind)
    plan = abi.Plan(library, f"forward dtype={dtype} b={b} hq={h} hkv={h} sq={queries} sk={keys} "
                             f"d=64 dv={keys} dropout={p} device=cuda")
    arguments = abi.Arguments(struct_size=ctypes.sizeof(abi.Arguments))
    for name, tensor in {"q": q, "k": k, "v": v, "o": o}.items():
        setattr(arguments, name, abi.view(tensor, dtype))
    if state:
        numbers = torch.tensor([seed, offset], dtype=torch.int64, device="cuda")
        arguments.dropout_state = abi.view(numbers, "i64")
    else:
        arguments.dropout_seed, arguments.dropout_offset = seed, offset
    arguments.stream = torch.cuda.current_stream().cuda_stream
    plan.run(arguments)
    uniform = torch.empty((b, h, queries, keys), device="cuda", dtype=torch.float32)
    uniform = torch._fill_mem_eff_dropout_mask_(uniform, p, seed, offset)
    kept = o.transpose(1, 2) != 0
    return (kept != (uniform > p)).sum().item(), kept.numel()


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
    for dtype in ("f32", "f16", "bf16"):
        for p in (0.1, 0.125, 0.5, 0.9):
            for seed, offset in ((0, 0), (42, 4), (123456789123, 8), (7, 1 << 34)):
                for state in (False, True):
                    for keys in (64, 100, 128):
                        bad, of = compare(torch, abi, library, dtype, p, seed, offset, state, keys)
                        wrong += bad > 0
                        if bad:
                            print(f"{dtype} p={p} seed={seed} offset={offset} state={state} "
                                  f"keys={keys}: {bad} of {of} elements differ")
    print("FAIL" if wrong else "every mask equals PyTorch's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
