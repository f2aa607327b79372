#!/usr/bin/env python3
"""Times Attune's CUDA kernels beside the backends of PyTorch's scaled_dot_product_attention.

All run in one process on the same tensors, [B, S, H, D] in memory, on PyTorch's stream: Attune through
the C ABI of libattune.so, mem-eff, FA2 and cuDNN by torch.nn.attention.sdpa_kernel. They take turns
(A B C D A B C D ...), each turn is timed by CUDA events, and medians are compared, so that what the
clocks do meanwhile hits all. Inputs are random normal, B S = 16,384 tokens, H D = 2,048.

`general` has ALiBi's slopes or a softcap of 30, where FlexAttention is the peer; `paged` has K and V in pages in
random order, which no peer here takes. `forward` asks for no log-sum-exp, as PyTorch's call does not where no
gradient is recorded; `lse` does.

`fp8` has q, k and v of float8 E4M3 and o of bf16; its peers compute the same in bf16.

`window` has 8 heads of keys and values for 64 (D 256: 32) of queries, a causal window of 1,024 keys and
at least one whole sequence; PyTorch's call has none to compare. `small` are causal problems of few tiles,
replayed from a CUDA graph, microseconds a call beside TFLOP/s.

TFLOP/s count the matrix products: 4 B H S^2 D forward, 2.5 times that backward, half of it when
causal, and of a window its pairs. `matrix_rate` is what torch.matmul of 8192 x 8192 matrices
reaches in the same process. Backward is timed alone, that of `bias-gradient` with the gradient of the bias in the bias's own
shape; `deterministic` asks Attune, not its peers, for the same bits every time. The error ratio is of
the same kernel on a small problem of the same kind (two heads, S at most 384), judged by Attune's
float64 oracle: the share of what the tolerance rule of docs/architecture.md allows, so at most 1 is
fine.

usage: gpu_peers.py [--groups forward,f32,backward,backward-bias] [--dims 64,128] [--lengths 1024,4096]
                    [--masks full,causal] [--time-limit SECONDS] [--lib libattune.so] [-o OUT.json] [--plot OUT.svg]
"""

import argparse
import contextlib
import json
import math
import pathlib
import subprocess
import sys
import time
import warnings

from attune_abi import ROOT, Library, commit
from gpu_case import (GRAPH_CALLS, PEERS, Case, first_line, graphed, judge, problem_text, take_turns,
                      usable_peers)
from gpu_table import draw

TOKENS, WIDTH = 16384, 2048
KINDS = ("forward", "f16", "f32", "bias", "dropout", "fa2-dropout")
ALONE = ("window", "small", "general", "paged", "lse", "fp8")  # forward alone
GROUPS = (*KINDS, *ALONE, "backward", *(f"backward-{kind}" for kind in KINDS[1:]), "bias-gradient",
          "deterministic")


SMALL = ((1, 16, 512), (1, 16, 1024), (1, 16, 2048), (2, 16, 512), (1, 32, 128), (8, 16, 128),
         (1, 8, 4096))  # B, H, S


def row_of(dtype, d, s, mask, **more):
    b, h = max(1, TOKENS // s), WIDTH // d
    row = {"dtype": dtype, "d": d, "s": s, "mask": mask, "bias": None, "dropout": 0.0,
           "dropout_stream": None, "b": b, "h": h, "window": 0, "softcap": 0.0, "alibi": False,
           "page_size": 0, "lse": False, **more}
    return {"hkv": row["h"], **row}


def rows_of(group):
    both = ("full", "causal")
    group = group.removeprefix("backward-")
    if group == "deterministic":
        return [row_of("bf16", d, s, mask) for d in (64, 128, 256) for mask in both
                for s in (1024, 8192)]
    if group in ("forward", "backward"):
        return [row_of("bf16", d, s, mask) for d in (64, 128, 256) for mask in both
                for s in (512, 1024, 2048, 4096, 8192, 16384)]
    if group == "window":
        return [row_of("bf16", d, s, "causal", window=1024, h=64 if d < 256 else 32, hkv=8)
                for d in (64, 128, 256) for s in (8192, 16384, 32768)]
    if group == "small":
        return [row_of("bf16", d, s, "causal", b=b, h=h) for d in (64, 128) for b, h, s in SMALL]
    if group == "general":
        return [row_of("bf16", d, s, mask, **more) for d in (64, 128) for s in (1024, 4096)
                for mask, more in (("full", {"alibi": True}), ("causal", {"alibi": True}),
                                   ("causal", {"softcap": 30.0}))]
    if group == "paged":
        return [row_of("bf16", d, s, "causal", page_size=page) for d in (64, 128) for s in (1024, 4096)
                for page in (16, 64, 256)]
    if group == "lse":
        return [row_of("bf16", d, s, mask, lse=True) for d in (64, 128) for s in (1024, 4096)
                for mask in both]
    if group == "fp8":
        return [row_of("f8e4m3", d, s, mask) for d in (64, 128, 256) for mask in both
                for s in (512, 1024, 2048, 4096, 8192, 16384)]
    if group == "f16":
        return [row_of("f16", d, s, mask) for d in (64, 128) for mask in both for s in (1024, 4096)]
    if group == "f32":
        return [row_of("f32", d, s, mask) for d in (64, 128) for s in (1024, 4096) for mask in both]
    if group in ("bias", "bias-gradient"):
        return [row_of("bf16", d, s, "full", bias=bias) for d in (64, 128) for s in (1024, 4096)
                for bias in ("bhqk", "1hqk")]
    dropout = {"dropout": 0.125, "dropout_stream": "fa2" if group == "fa2-dropout" else None}
    return [row_of("bf16", d, s, mask, **dropout) for d in (64, 128, 256) for s in (1024, 4096)
            for mask in both]


def pairs_of(row):
    """Of queries and keys, a head."""
    s, window = row["s"], row["window"]
    if window:
        return window * s - window * (window - 1) // 2
    return s * s / (2 if row["mask"] == "causal" else 1)


def measure(torch, library, row, arguments, known):
    case = Case(torch, library, row)
    row["problem"] = problem_text(row, "cuda")
    row["kernel"] = case.plan.kernel
    case.attune()
    torch.cuda.synchronize()
    peers, row["refused"] = usable_peers(case, arguments.peers)
    functions = {"attune": (case.attune, contextlib.nullcontext), **peers}
    calls = 1
    if row["group"] == "small":
        functions, calls = graphed(torch, case, functions), GRAPH_CALLS
    seconds = {name: t / calls for name, t in
               take_turns(torch, functions, arguments.rounds, arguments.turn).items()}
    work = 4 * row["b"] * row["h"] * pairs_of(row) * row["d"] * 1e-12
    if row["direction"] == "backward":
        work *= 2.5
    row["workspace_bytes"] = case.plan.workspace_bytes
    row["seconds"] = seconds
    row["tflops"] = {name: work / t for name, t in seconds.items()}
    row["ratio"] = {name: seconds[name] / seconds["attune"] for name in peers}
    if not arguments.no_check:
        row["error_ratio"] = judge(torch, library, row, known)


def matrix_rate(torch):
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    multiply = {"matmul": (lambda: torch.matmul(a, b), contextlib.nullcontext)}
    return 2e-12 * n**3 / take_turns(torch, multiply, 9, 0.02)["matmul"]


def driver_version():
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              check=True, capture_output=True,
                              text=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def parse_arguments():
    def words(text):
        return text.split(",")

    def numbers(text):
        return [int(n) for n in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="example: gpu_peers.py --groups forward --dims 128 --lib build/src/libattune.so")
    parser.add_argument("--groups", default=list(GROUPS), type=words, metavar="GROUP,...",
                        help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--dims", type=numbers, metavar="D,...", help="only these head dims")
    parser.add_argument("--lengths", type=numbers, metavar="S,...", help="only these lengths")
    parser.add_argument("--masks", default=["full", "causal"], type=words, metavar="MASK,...")
    parser.add_argument("--peers", default=list(PEERS), type=words, metavar="NAME,...")
    parser.add_argument("--rounds", default=9, type=int, help="turns of each; default %(default)s")
    parser.add_argument("--turn", default=0.01, type=float, help="seconds a turn")
    parser.add_argument("--time-limit", default=math.inf, type=float, metavar="SECONDS",
                        help="start no row after this")
    parser.add_argument("--commit", help="of the library, where this is no checkout")
    parser.add_argument("--no-check", action="store_true", help="leave out the error ratios")
    parser.add_argument("--lib", type=pathlib.Path, default=ROOT / "build" / "src" / "libattune.so",
                        help="libattune.so; default %(default)s")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="write JSON here, row by row")
    parser.add_argument("--plot", type=pathlib.Path, action="append", default=[], metavar="OUT",
                        help="draw TFLOP/s over S here (.svg, .png); may be given again")
    arguments = parser.parse_args()
    for group in arguments.groups:
        if group not in GROUPS:
            parser.error(f"--groups: {group} is none of {', '.join(GROUPS)}")
    for name in arguments.peers:
        if name not in PEERS:
            parser.error(f"--peers: {name} is none of {', '.join(PEERS)}")
    if not arguments.lib.is_file():
        parser.error(f"{arguments.lib} is not there; build it, or say where it is with --lib")
    return arguments


def chosen_rows(arguments):
    for group in arguments.groups:
        for row in rows_of(group):
            if arguments.dims and row["d"] not in arguments.dims:
                continue
            if arguments.lengths and row["s"] not in arguments.lengths:
                continue
            if row["mask"] not in arguments.masks:
                continue
            forward = group in (*KINDS, *ALONE)
            yield {"group": group, "direction": "forward" if forward else "backward",
                   "deterministic": group == "deterministic",
                   "bias_grad": group == "bias-gradient", **row}


def say_row(row):
    name = row["group"] + (f" {row['bias']}" if row["bias"] else "")
    numbers = "".join(f"{row['tflops'][p]:9.0f}" if p in row["tflops"] else f"{'-':>9}"
                      for p in ("attune", *PEERS))
    ratios = "".join(f"{row['ratio'][p]:9.2f}" if p in row["ratio"] else f"{'-':>9}" for p in PEERS)
    error = f"{row['error_ratio']['attune']:7.2f}" if "error_ratio" in row else f"{'-':>7}"
    if row["group"] == "small":
        name += f" B{row['b']} H{row['h']} {row['seconds']['attune'] * 1e6:.1f} us"
    return (f"{name:25} {row['dtype']:6} {row['mask']:6} {row['d']:4} {row['s']:6}{numbers}"
            f"{ratios}{error}  {row['kernel']}")


def main():
    arguments = parse_arguments()
    try:
        import torch
        import torch.nn.attention
    except ImportError:
        sys.exit("gpu_peers.py needs PyTorch: pip install torch")
    if not torch.cuda.is_available():
        sys.exit("gpu_peers.py needs a GPU that PyTorch sees; torch.cuda.is_available() is false")
    torch.set_grad_enabled(False)
    # PyTorch warns of every backend that refuses a row; the JSON has the reasons.
    warnings.filterwarnings("ignore")
    library = Library(arguments.lib)
    report = {"device": torch.cuda.get_device_name(), "driver": driver_version(),
              "torch": torch.__version__, "cuda": torch.version.cuda,
              "cudnn": torch.backends.cudnn.version(), "compiler": library.compiler(),
              "version": library.version(), "commit": arguments.commit or commit(), "rows": []}

    report["matrix_rate_tflops"] = matrix_rate(torch)

    def save():
        if arguments.output:
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")

    print(f"{report['device']}, driver {report['driver']}; PyTorch {report['torch']}, cuDNN "
          f"{report['cudnn']}; Attune {report['version']} ({report['commit']}), TFLOP/s")
    print(f"{'row':25} {'dtype':6} {'mask':6} {'D':>4} {'S':>6}{'Attune':>9}"
          + "".join(f"{p:>9}" for p in PEERS) + "".join(f"{'/' + p:>9}" for p in PEERS)
          + f"{'error':>7}  kernel")
    start, failed, known = time.monotonic(), False, {}
    for row in chosen_rows(arguments):
        if time.monotonic() - start > arguments.time_limit:
            print(f"stopped after {arguments.time_limit:.0f} s (--time-limit)", file=sys.stderr)
            break
        try:
            measure(torch, library, row, arguments, known)
        except RuntimeError as error:
            failed = True
            print(f"{problem_text(row, 'cuda')}: {first_line(error)}", file=sys.stderr)
            continue
        report["rows"].append(row)
        failed = failed or row.get("error_ratio", {}).get("attune", 0) > 1
        save()
        print(say_row(row), flush=True)
    save()
    for output in arguments.plot:
        draw(report, output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
