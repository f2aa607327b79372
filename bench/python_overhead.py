#!/usr/bin/env python3
"""Times what a call costs the host from Python, on a problem so small that little else is left, beside
PyTorch's scaled_dot_product_attention: [1, 1, 8, 8], float32 on the CPU (one thread), bfloat16 with
head dim 64 on a GPU.

All take turns (A B C A B C ...); the least of the turns counts, for what the machine does meanwhile
only adds. On a GPU calls are queued in turns of 100, with a wait between them that is not timed. The
attune that python3 imports is measured; run it from outside python/.

usage: python_overhead.py [--device cpu|cuda] [--turns 60] [-o OUT]
"""

import argparse
import json
import pathlib
import platform
import sys
import time

import attune
import torch
from attune.compat.flash_attn import flash_attn_func
from attune.compat.torch import scaled_dot_product_attention
from attune.compat.xformers import memory_efficient_attention
from cpu_peers import commit, cpu_model
from torch.nn.functional import scaled_dot_product_attention as peer

REFERENCE = "torch.nn.functional.scaled_dot_product_attention"


def calls_of(shape, dtype, device, grads):
    heads_first = [torch.randn(shape, dtype=dtype, device=device) for _ in range(3)]
    # Copies, for autograd takes longer over views, which contiguous() may give.
    sequence_first = [
        t.transpose(1, 2).clone(memory_format=torch.contiguous_format) for t in heads_first
    ]
    for t in heads_first + sequence_first:
        t.requires_grad_(grads)
    calls = {
        REFERENCE: lambda: peer(*heads_first),
        "attune.compat.torch.scaled_dot_product_attention": (
            lambda: scaled_dot_product_attention(*heads_first)
        ),
        "attune.attention": lambda: attune.attention(*sequence_first),
        "attune.compat.flash_attn.flash_attn_func": lambda: flash_attn_func(*sequence_first),
        "attune.compat.xformers.memory_efficient_attention": (
            lambda: memory_efficient_attention(*sequence_first)
        ),
    }
    if device == "cpu" and not grads:
        arrays = [t.numpy() for t in sequence_first]
        calls["attune.attention, NumPy"] = lambda: attune.attention(*arrays, threads=1)
    return calls


def measure(calls, turns, each, wait):
    """The least microseconds a call of each."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            call()
            wait()
            start = time.perf_counter()
            for _ in range(each):
                call()
            least[name] = min(least[name], (time.perf_counter() - start) / each * 1e6)
            wait()
    return least


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--commit", help="of the package, where this is no checkout")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="write JSON here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cuda = options.device == "cuda"
    shape, dtype = ((1, 1, 8, 64), torch.bfloat16) if cuda else ((1, 1, 8, 8), torch.float32)
    wait = torch.cuda.synchronize if cuda else lambda: None
    rows = []
    for grads in (False, True):
        calls = calls_of(shape, dtype, options.device, grads)
        least = measure(calls, options.turns, 100, wait)
        for name, microseconds in least.items():
            ratio = microseconds / least[REFERENCE]
            what = "records gradients" if grads else "no gradients"
            rows.append({"call": name, "gradients": grads, "microseconds": round(microseconds, 2),
                         "ratio": round(ratio, 2)})
            print(f"{microseconds:8.2f} us {ratio:6.2f}  {name} ({what})")
    report = {
        "device": torch.cuda.get_device_name() if cuda else cpu_model(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "attune": attune.__version__,
        "commit": options.commit or commit(),
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "turns": options.turns,
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
