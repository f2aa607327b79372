#!/usr/bin/env python3
"""Times the first call of a Problem on a GPU: from its text to the end of its kernel.

Three ways, each in a new process whose CUDA context exists already: `cold` compiles the kernel,
`disk` finds it in the disk cache, `bundle` in a bundle of the whole table. `warm` is the host's time of
a later call through the C ABI, Python's share included.

usage: gpu_first_call.py [--lib libattune.so] [--attune attune] [-o OUT.json]
"""

import argparse
import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from attune_abi import ROOT, Arguments, Library, Plan, commit, view

SHAPE = "b=2 hq=8 hkv=8 sq=1024 sk=1024"
PROBLEMS = [f"forward dtype={dtype} {SHAPE} d={d}{rest} device=cuda"
            for dtype, d, rest in (("bf16", 64, ""), ("bf16", 128, " dropout=0.1 alibi=head"),
                                   ("f16", 128, ""), ("f32", 64, " dropout=0.1 alibi=head"))]


def measure_one(path, problem):
    """The seconds of a first call and of later ones, in this process."""
    import torch
    kind, d = problem.split("dtype=")[1].split()[0], int(problem.split(" d=")[1].split()[0])
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    tensors = {name: torch.randn((2, 1024, 8, d), device="cuda").to(dtype) for name in "qkvo"}
    slopes = torch.full((8,), 0.1, device="cuda")
    torch.cuda.synchronize()
    library = Library(path)
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments), dropout_seed=1)
    for name, tensor in tensors.items():
        setattr(arguments, name, view(tensor, kind))
    if "alibi" in problem:
        arguments.alibi_slopes = view(slopes, "f32")
    arguments.stream = torch.cuda.current_stream().cuda_stream
    start = time.perf_counter()
    plan = Plan(library, problem)
    plan.run(arguments)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    warm = []
    for _ in range(200):
        start = time.perf_counter()
        plan.run(arguments)
        warm.append(time.perf_counter() - start)
        torch.cuda.synchronize()
    print(json.dumps({"kernel": plan.kernel, "first": first, "warm": statistics.median(warm)}))


def in_new_process(path, problem, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
    # NVRTC keeps a cache of its own where there is a driver; without it, cold is cold.
    environment.update(variables, CUDA_CACHE_DISABLE="1")
    done = subprocess.run([sys.executable, __file__, "--lib", str(path), "--one", problem],
                          env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{problem}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", type=pathlib.Path, default=ROOT / "build" / "src" / "libattune.so")
    parser.add_argument("--attune", type=pathlib.Path, default=ROOT / "build" / "src" / "attune")
    parser.add_argument("--arch", default="sm_90", help="of this GPU; default %(default)s")
    parser.add_argument("--commit", help="of the library, where this is no checkout")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=pathlib.Path, help="write JSON here")
    options = parser.parse_args()
    if options.one:
        measure_one(options.lib, options.one)
        return 0
    library, rows = Library(options.lib), []
    print(f"{'cold':>9}{'disk':>9}{'bundle':>9}{'warm':>9}")
    with tempfile.TemporaryDirectory() as folder:
        cache, bundle = f"{folder}/cache", f"{folder}/kernels.attune"
        made = subprocess.run([options.attune, "compile", "--all", "--arch", options.arch, "--json", "-o",
                               bundle], capture_output=True, text=True, check=True,
                              env=dict(os.environ, ATTUNE_CACHE_LIMIT="0", CUDA_CACHE_DISABLE="1"))
        catalogue = json.loads(made.stdout)
        for problem in PROBLEMS:
            row = {"problem": problem}
            for way, variables in (("cold", {"ATTUNE_CACHE_DIR": cache}),
                                   ("disk", {"ATTUNE_CACHE_DIR": cache, "ATTUNE_JIT": "off"}),
                                   ("bundle", {"ATTUNE_BUNDLE": bundle, "ATTUNE_JIT": "off",
                                               "ATTUNE_CACHE_DIR": f"{folder}/none"})):
                seconds = in_new_process(options.lib, problem, **variables)
                row["kernel"] = seconds["kernel"]
                row[f"{way}_seconds"], row["warm_seconds"] = seconds["first"], seconds["warm"]
            rows.append(row)
            print(f"{row['cold_seconds'] * 1e3:6.0f} ms{row['disk_seconds'] * 1e3:6.1f} ms"
                  f"{row['bundle_seconds'] * 1e3:6.1f} ms{row['warm_seconds'] * 1e6:6.1f} us"
                  f"  {row['kernel']}", flush=True)
        compiled = [kernel["compile_seconds"] for kernel in catalogue["kernels"]]
        report = {"compiler": library.compiler(), "version": library.version(),
                  "commit": options.commit or commit(), "first_calls": rows,
                  "catalogue": {"kernels": len(compiled), "cores": os.cpu_count(),
                                "wall_seconds": catalogue.get("seconds"),
                                "median_compile_seconds": statistics.median(compiled),
                                "longest_compile_seconds": max(compiled),
                                "bundle_bytes": os.path.getsize(bundle)}}
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
