#!/usr/bin/env python3
"""Times Attune's CPU kernels beside PyTorch's scaled_dot_product_attention, in one process.

Both get the same numbers: Attune through the C ABI of libattune.so as [B, S, H, D], PyTorch as the
[B, H, S, D] that it prefers. They take turns with torch.mm (A B C A B C ...) and the medians are
compared, so that what the machine does meanwhile hits all three. The matrix product, of the size
that is fastest here, is what the machine can do at most: float32 for f32 and f16 inputs, bfloat16
for bf16.

Rates count the products of attention only: 4 B H S^2 D forward (half when causal), 2.5 times that
backward. When all is timed, one head of every result is judged by Attune's float64 oracle: the
error ratio is the share of what the tolerance rule of docs/architecture.md allows, so at most 1 is
fine.

usage: cpu_peers.py [--threads 1,2] [--dtypes f32,bf16,f16] [--quick] [--lib libattune.so] [-o OUT]
"""

import argparse
import concurrent.futures
import ctypes
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time

from attune_abi import ROOT, Arguments, Doubles, Library, OracleResult, Plan, commit, view

FLOATS = ["f32", "f16", "bf16"]
SHAPES = [(8, 512, 64), (8, 2048, 64), (8, 2048, 128),
          (16, 1024, 64), (16, 1024, 128), (16, 4096, 64), (16, 4096, 128)]  # heads, S, D
QUICK_SHAPES = [(8, 512, 64), (8, 1024, 128)]


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def seconds_of(function, calls):
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def take_turns(functions, budget):
    """Median seconds a call of each function. Each turn lasts at least 20 ms and comes after a
    pause in which the other one's threads stop looking for work."""
    calls = []
    for function in functions:
        function()
        calls.append(max(1, math.ceil(0.02 / max(seconds_of(function, 1), 1e-7))))
    seconds = [[] for _ in functions]
    start = time.perf_counter()
    while len(seconds[0]) < 3 or (time.perf_counter() - start < budget and len(seconds[0]) < 50):
        for index, function in enumerate(functions):
            time.sleep(0.01)
            seconds[index].append(seconds_of(function, calls[index]))
    return [statistics.median(times) for times in seconds]


class MatrixProduct:
    """torch.mm of the size at which it is fastest."""

    def __init__(self, torch, dtype, quick):
        self.torch = torch
        self.gflops = 0.0
        for size in (1024, 2048) if quick else (1024, 2048, 4096):
            operands = [torch.randn(size, size).to(dtype) for _ in range(3)]
            start, least = time.perf_counter(), math.inf
            while time.perf_counter() - start < (0.3 if quick else 1.0):
                least = min(least, seconds_of(lambda: self.multiply(operands), 1))
            if 2 * size**3 / least * 1e-9 > self.gflops:
                self.gflops = 2 * size**3 / least * 1e-9
                self.size, self.operands = size, operands

    def multiply(self, operands):
        self.torch.mm(operands[0], operands[1], out=operands[2])

    def __call__(self):
        self.multiply(self.operands)

    def rate(self, seconds):
        return 2 * self.size**3 / seconds * 1e-9


def problem_text(row, heads):
    mask = " mask=causal-top-left" if row["mask"] == "causal" else ""
    lse = " lse" if row["direction"] == "backward" else ""
    return (f"{row['direction']} dtype={row['dtype']} b=1 hq={heads} hkv={heads} sq={row['s']} "
            f"sk={row['s']} d={row['d']}{mask}{lse} device=cpu")


def oracle(torch, library, row, inputs, rounding):
    """What float64 (rounding 0) or the textbook in the row's dtype (1) makes of one head."""
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments))
    room = OracleResult(struct_size=ctypes.sizeof(OracleResult))
    results = {}
    for name, tensor in inputs.items():
        setattr(arguments, name, view(tensor, row["dtype"]))
    names = ("grad_q", "grad_k", "grad_v") if "grad_o" in inputs else ("o",)
    for name in names:
        results[name] = torch.empty(inputs["q"].shape, dtype=torch.float64)
        setattr(room, name, Doubles(results[name].data_ptr(), results[name].numel()))
    library.check(library.c.attune_oracle_run(problem_text(row, 1).encode(), arguments, rounding,
                                              room))
    return results


def error_ratio(torch, results, exact, plain):
    """The largest share of the tolerance that any result takes."""
    worst = 0.0
    for name, result in results.items():
        want = exact[name]
        got = (result.double() - want).abs()
        yardstick = (plain[name] - want).abs()
        floor = want.abs().max().item() * torch.finfo(result.dtype).eps
        worst = max(worst, got.max().item() / (2 * yardstick.max().item() + floor),
                    got.square().mean().sqrt().item()
                    / (1.5 * yardstick.square().mean().sqrt().item() + floor))
    return worst


def judge(torch, library, measured):
    """Adds the error ratio to rows, each given with its inputs and results of one head. The inputs
    depend on the problem alone, and so the oracle runs once for all numbers of threads."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {}
        for row, inputs, _ in measured:
            key = problem_text(row, row["h"])
            if key not in jobs:
                jobs[key] = [pool.submit(oracle, torch, library, row, inputs, rounding)
                             for rounding in (0, 1)]
        for row, _, results in measured:
            exact, plain = (job.result() for job in jobs[problem_text(row, row["h"])])
            row["error_ratio"] = error_ratio(torch, results, exact, plain)


def measure(torch, library, row, product, budget):
    """Fills a row with what both did. Returns the inputs and results of one head."""
    h, s, d, threads = row["h"], row["s"], row["d"], row["threads"]
    causal, backward = row["mask"] == "causal", row["direction"] == "backward"
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[row["dtype"]]
    torch.manual_seed(20)
    q, k, v, grad = (torch.randn(1, s, h, d).to(kind) for _ in range(4))
    o = torch.empty_like(q)
    lse = torch.empty(1, h, s)
    inputs = {"q": q, "k": k, "v": v}
    results = {"o": o}

    arguments = Arguments(struct_size=ctypes.sizeof(Arguments))
    for name, tensor in {**inputs, **results}.items():
        setattr(arguments, name, view(tensor, row["dtype"]))
    if backward:
        arguments.lse = view(lse, "f32")
        forward = problem_text({**row, "direction": "forward"}, h).replace(" device", " lse device")
        Plan(library, forward, threads).run(arguments)
        inputs["grad_o"] = grad
        results = {name: torch.empty_like(q) for name in ("grad_q", "grad_k", "grad_v")}
        for name, tensor in {"grad_o": grad, **results}.items():
            setattr(arguments, name, view(tensor, row["dtype"]))
    row["problem"] = problem_text(row, h)
    plan = Plan(library, row["problem"], threads)
    row["attune_kernel"] = plan.kernel
    row["workspace_bytes"] = plan.workspace_bytes

    leaves = [x.transpose(1, 2).contiguous().requires_grad_(backward) for x in (q, k, v)]
    outer = grad.transpose(1, 2).contiguous()
    attention = torch.nn.functional.scaled_dot_product_attention
    torch.set_num_threads(threads)

    workspace = ctypes.create_string_buffer(max(1, plan.workspace_bytes))

    def ours():
        plan.run(arguments, workspace)

    if backward:
        theirs_o = attention(*leaves, is_causal=causal)

        def theirs():
            torch.autograd.grad(theirs_o, leaves, outer, retain_graph=True)
    else:

        def theirs():
            attention(*leaves, is_causal=causal)

    *times, product_seconds = take_turns([ours, theirs, product], budget)
    work = 4 * h * s * s * d * (0.5 if causal else 1) * (2.5 if backward else 1) * 1e-9
    row["attune_seconds"], row["torch_seconds"] = times
    row["attune_gflops"], row["torch_gflops"] = (work / t for t in times)
    row["ratio"] = row["attune_gflops"] / row["torch_gflops"]
    row["matrix_rate_gflops"] = product.rate(product_seconds)
    row["fraction_of_matrix_rate"] = row["attune_gflops"] / row["matrix_rate_gflops"]

    def first_head(tensors):
        return {name: tensor[:, :, :1].contiguous() for name, tensor in tensors.items()}

    return first_head(inputs), first_head(results)


def shapes_from(text):
    return [tuple(int(n) for n in part.split("x")) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="example: cpu_peers.py --threads 1,2 --lib build/src/libattune.so -o bench.json")
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))), metavar="N,...",
                        type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--dtypes", default=FLOATS, metavar="DTYPE,...",
                        type=lambda text: text.split(","))
    parser.add_argument("--shapes", type=shapes_from, metavar="HxSxD,...",
                        help="heads, queries (and keys) and head dim, instead of the standard list")
    parser.add_argument("--masks", default=["full", "causal"], type=lambda text: text.split(","))
    parser.add_argument("--directions", default=["forward", "backward"],
                        type=lambda text: text.split(","))
    parser.add_argument("--commit", help="of the library, where this is no checkout")
    parser.add_argument("--no-check", action="store_true", help="leave out the error ratios")
    parser.add_argument("--quick", action="store_true", help="two small shapes, short measurements")
    parser.add_argument("--lib", type=pathlib.Path, default=ROOT / "build" / "src" / "libattune.so",
                        help="libattune.so; default %(default)s")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="write JSON here, row by row")
    arguments = parser.parse_args()
    for dtype in arguments.dtypes:
        if dtype not in FLOATS:
            parser.error(f"--dtypes: {dtype} is none of {', '.join(FLOATS)}")
    if not arguments.lib.is_file():
        parser.error(f"{arguments.lib} is not there; build it, or say where it is with --lib")
    return arguments


def main():
    arguments = parse_arguments()
    try:
        import torch
    except ImportError:
        sys.exit("cpu_peers.py needs PyTorch: pip install torch")
    library = Library(arguments.lib)
    report = {"machine": cpu_model(), "cores": len(os.sched_getaffinity(0)),
              "torch": torch.__version__, "compiler": library.compiler(),
              "version": library.version(), "commit": arguments.commit or commit(),
              "matrix_rates": [], "rows": []}

    def save():
        if arguments.output:
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")

    print(f"{report['machine']}, {report['cores']} cores; PyTorch {report['torch']}; Attune "
          f"{report['version']} ({report['commit']}), {report['compiler']}")
    print(f"{'direction':9} {'dtype':5} {'mask':6} {'H':>3} {'S':>5} {'D':>4} {'thr':>3} "
          f"{'Attune':>8} {'PyTorch':>8} {'ratio':>6} {'of mm':>6}  kernel")
    failed = False
    measured = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        products = {}
        for dtype in arguments.dtypes:
            kind = "bf16" if dtype == "bf16" else "f32"
            if kind not in products:
                products[kind] = MatrixProduct(
                    torch, torch.bfloat16 if kind == "bf16" else torch.float32, arguments.quick)
                report["matrix_rates"].append({"threads": threads, "dtype": kind,
                                               "size": products[kind].size,
                                               "gflops": products[kind].gflops})
                print(f"matrix product {kind}, {threads} threads: {products[kind].gflops:.0f} "
                      f"GFLOP/s at best, at {products[kind].size}^3")
        shapes = arguments.shapes or (QUICK_SHAPES if arguments.quick else SHAPES)
        rows = [(dtype, direction, h, s, d, mask) for dtype in arguments.dtypes
                for direction in arguments.directions for h, s, d in shapes
                for mask in arguments.masks]
        for dtype, direction, h, s, d, mask in rows:
            row = {"direction": direction, "dtype": dtype, "mask": mask, "b": 1, "h": h, "s": s,
                   "d": d, "threads": threads}
            product = products["bf16" if dtype == "bf16" else "f32"]
            try:
                heads = measure(torch, library, row, product, 0.3 if arguments.quick else 1.5)
            except RuntimeError as error:
                failed = True
                print(f"{direction} {dtype} {mask} {h}x{s}x{d}: {error}", file=sys.stderr)
                continue
            report["rows"].append(row)
            measured.append((row, *heads))
            save()
            print(f"{direction:9} {dtype:5} {mask:6} {h:3} {s:5} {d:4} {threads:3} "
                  f"{row['attune_gflops']:8.0f} {row['torch_gflops']:8.0f} {row['ratio']:6.2f} "
                  f"{row['fraction_of_matrix_rate']:6.2f}  {row['attune_kernel']}", flush=True)
    if measured and not arguments.no_check:
        judge(torch, library, measured)
        worst = max(report["rows"], key=lambda row: row["error_ratio"])
        failed = failed or worst["error_ratio"] > 1
        print(f"errors: at most {worst['error_ratio']:.2f} of what is allowed ({worst['problem']})")
    save()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
