#!/usr/bin/env python3
"""Times Attune's CUDA kernels beside the backends of PyTorch's scaled_dot_product_attention.

All run in one process on the same tensors, [B, S, H, D] in memory, on PyTorch's stream: Attune through
the C ABI of libattune.so, mem-eff, FA2 and cuDNN by torch.nn.attention.sdpa_kernel. They take turns
(A B C D A B C D ...), each turn is timed by CUDA events, and medians are compared, so that what the
clocks do meanwhile hits all. Inputs are random normal, B S = 16,384 tokens, H D = 2,048.

TFLOP/s count the matrix products: 4 B H S^2 D, half of it when causal. The error ratio is of the same
kernel on a small problem of the same kind (two heads, S at most 384), judged by Attune's float64
oracle: the share of what the tolerance rule of docs/architecture.md allows, so at most 1 is fine.

usage: gpu_peers.py [--groups forward,f32,bias,dropout] [--dims 64,128] [--lengths 1024,4096]
                    [--masks full,causal] [--time-limit SECONDS] [--lib libattune.so] [-o OUT.json]
"""

import argparse
import contextlib
import ctypes
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
import warnings

from attune_abi import ROOT, Arguments, Doubles, Library, OracleResult, Plan, commit, view

TOKENS, WIDTH = 16384, 2048
PEERS = {"mem-eff": "EFFICIENT_ATTENTION", "FA2": "FLASH_ATTENTION", "cuDNN": "CUDNN_ATTENTION"}
SEED, OFFSET = 20, 4


def rows_of(group):
    """The rows of a group: dtype, d, S, mask, bias, dropout."""
    both = ("full", "causal")
    if group == "forward":
        return [("bf16", d, s, mask, None, 0.0) for d in (64, 128, 256) for mask in both
                for s in (512, 1024, 2048, 4096, 8192, 16384)]
    if group == "f16":
        return [("f16", d, s, mask, None, 0.0) for d in (64, 128) for mask in both
                for s in (1024, 4096)]
    if group == "f32":
        return [("f32", d, s, mask, None, 0.0) for d in (64, 128) for s in (1024, 4096)
                for mask in both]
    if group == "bias":
        return [("bf16", d, s, "full", bias, 0.0) for d in (64, 128) for s in (1024, 4096)
                for bias in ("bhqk", "1hqk")]
    return [("bf16", d, s, mask, None, 0.125) for d in (64, 128) for s in (1024, 4096)
            for mask in both]


GROUPS = ("forward", "f16", "f32", "bias", "dropout")


def torch_dtype(torch, name):
    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[name]


def problem_text(row, device):
    text = (f"forward dtype={row['dtype']} b={row['b']} hq={row['h']} hkv={row['h']} sq={row['s']} "
            f"sk={row['s']} d={row['d']}")
    if row["mask"] == "causal":
        text += " mask=causal-top-left"
    if row["bias"]:
        text += f" bias={row['dtype']}" + ("" if row["bias"] == "bhqk" else f":{row['bias']}")
    if row["dropout"]:
        text += f" dropout={row['dropout']}"
    return f"{text} device={device}"


class Case:
    """The tensors of a row on the GPU, and each way to compute it."""

    def __init__(self, torch, library, row):
        self.torch, self.row = torch, row
        kind = torch_dtype(torch, row["dtype"])
        shape = (row["b"], row["s"], row["h"], row["d"])
        generator = torch.Generator("cuda").manual_seed(SEED)
        self.q, self.k, self.v = (
            torch.randn(shape, device="cuda", dtype=kind, generator=generator) for _ in range(3))
        self.o = torch.empty_like(self.q)
        self.bias = None
        if row["bias"]:
            b = row["b"] if row["bias"] == "bhqk" else 1
            self.bias = torch.randn((b, row["h"], row["s"], row["s"]), device="cuda", dtype=kind,
                                    generator=generator)
        self.plan = Plan(library, problem_text(row, "cuda"))
        self.plan.prepare()
        self.arguments = Arguments(struct_size=ctypes.sizeof(Arguments), dropout_seed=SEED,
                                   dropout_offset=OFFSET)
        for name in ("q", "k", "v", "o"):
            setattr(self.arguments, name, view(getattr(self, name), row["dtype"]))
        if row["bias"]:
            self.arguments.bias = view(self.bias, row["dtype"])
        self.arguments.stream = torch.cuda.current_stream().cuda_stream
        self.workspace = torch.empty(max(1, self.plan.workspace_bytes), dtype=torch.uint8,
                                     device="cuda")

    def attune(self):
        self.plan.run(self.arguments, self.workspace.data_ptr())

    def peer(self, name):
        """A function that computes it by one of PyTorch's backends."""
        functional, attention = self.torch.nn.functional, self.torch.nn.attention
        backend = getattr(attention.SDPBackend, PEERS[name])
        q, k, v = (x.transpose(1, 2) for x in (self.q, self.k, self.v))
        bias = self.bias
        if bias is not None:
            bias = bias.expand(self.row["b"], -1, -1, -1)
        causal, dropout = self.row["mask"] == "causal", self.row["dropout"]

        def run():
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias,
                                                           dropout_p=dropout, is_causal=causal)

        return run, lambda: attention.sdpa_kernel([backend])


def events(torch, function, calls):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / calls


def take_turns(torch, functions, rounds, turn):
    """Median seconds a call of each. `functions`: {name: (function, context)}. Each turn lasts about
    `turn` seconds."""
    calls = {}
    for name, (function, context) in functions.items():
        with context():
            events(torch, function, 2)
            calls[name] = max(1, math.ceil(turn / events(torch, function, 3)))
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, (function, context) in functions.items():
            with context():
                seconds[name].append(events(torch, function, calls[name]))
    return {name: statistics.median(times) for name, times in seconds.items()}


def first_line(error):
    return str(error).strip().splitlines()[0][:120]


def usable_peers(case):
    """The backends that compute this row, and why the others don't."""
    usable, refused = {}, {}
    for name in PEERS:
        function, context = case.peer(name)
        try:
            with context():
                function()
            case.torch.cuda.synchronize()
            usable[name] = (function, context)
        except RuntimeError as error:
            refused[name] = first_line(error)
    return usable, refused


def oracle(torch, library, case, rounding):
    """What float64 (rounding 0) or the textbook in the row's dtype (1) makes of it."""
    row = case.row
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments), dropout_seed=SEED,
                          dropout_offset=OFFSET)
    inputs = {name: getattr(case, name).cpu() for name in ("q", "k", "v")}
    if row["bias"]:
        inputs["bias"] = case.bias.cpu()
    for name, tensor in inputs.items():
        setattr(arguments, name, view(tensor, row["dtype"]))
    o = torch.empty(case.o.shape, dtype=torch.float64)
    room = OracleResult(struct_size=ctypes.sizeof(OracleResult), o=Doubles(o.data_ptr(), o.numel()))
    library.check(library.c.attune_oracle_run(problem_text(row, "cpu").encode(), arguments, rounding,
                                              room))
    return o


def error_ratio(torch, got, exact, plain):
    error, yardstick = (got.double().cpu() - exact).abs(), (plain - exact).abs()
    floor = exact.abs().max().item() * torch.finfo(got.dtype).eps
    return max(error.max().item() / (2 * yardstick.max().item() + floor),
               error.square().mean().sqrt().item()
               / (1.5 * yardstick.square().mean().sqrt().item() + floor))


def judge(torch, library, row, known):
    """The error ratios of Attune and its peers on a small problem of the row's kind. Peers draw
    dropout masks of their own, which no oracle knows."""
    small = {**row, "b": 1, "h": 2, "s": min(row["s"], 384)}
    key = problem_text(small, "cuda")
    if key not in known:
        case = Case(torch, library, small)
        case.attune()
        torch.cuda.synchronize()
        exact, plain = (oracle(torch, library, case, rounding) for rounding in (0, 1))
        known[key] = {"attune": error_ratio(torch, case.o, exact, plain)}
        if not row["dropout"]:
            for name, (function, context) in usable_peers(case)[0].items():
                with context():
                    known[key][name] = error_ratio(torch, function().transpose(1, 2), exact, plain)
    return known[key]


def measure(torch, library, row, arguments, known):
    case = Case(torch, library, row)
    row["problem"] = problem_text(row, "cuda")
    row["kernel"] = case.plan.kernel
    case.attune()
    torch.cuda.synchronize()
    peers, row["refused"] = usable_peers(case)
    peers = {name: peer for name, peer in peers.items() if name in arguments.peers}
    seconds = take_turns(torch, {"attune": (case.attune, contextlib.nullcontext), **peers},
                         arguments.rounds, arguments.turn)
    work = 4 * row["b"] * row["h"] * row["s"] ** 2 * row["d"] * 1e-12
    if row["mask"] == "causal":
        work /= 2
    row["seconds"] = seconds
    row["tflops"] = {name: work / t for name, t in seconds.items()}
    row["ratio"] = {name: seconds[name] / seconds["attune"] for name in peers}
    if not arguments.no_check:
        row["error_ratio"] = judge(torch, library, row, known)


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
        for dtype, d, s, mask, bias, dropout in rows_of(group):
            if arguments.dims and d not in arguments.dims:
                continue
            if arguments.lengths and s not in arguments.lengths:
                continue
            if mask not in arguments.masks:
                continue
            yield {"group": group, "dtype": dtype, "mask": mask, "bias": bias, "dropout": dropout,
                   "b": TOKENS // s, "h": WIDTH // d, "s": s, "d": d}


def say_row(row):
    name = row["group"] if not row["bias"] else f"bias {row['bias']}"
    numbers = "".join(f"{row['tflops'][p]:9.0f}" if p in row["tflops"] else f"{'-':>9}"
                      for p in ("attune", *PEERS))
    ratios = "".join(f"{row['ratio'][p]:9.2f}" if p in row["ratio"] else f"{'-':>9}" for p in PEERS)
    error = f"{row['error_ratio']['attune']:7.2f}" if "error_ratio" in row else f"{'-':>7}"
    return (f"{name:10} {row['dtype']:5} {row['mask']:6} {row['d']:4} {row['s']:6}{numbers}"
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

    def save():
        if arguments.output:
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")

    print(f"{report['device']}, driver {report['driver']}; PyTorch {report['torch']}, cuDNN "
          f"{report['cudnn']}; Attune {report['version']} ({report['commit']}), TFLOP/s")
    print(f"{'row':10} {'dtype':5} {'mask':6} {'D':>4} {'S':>6}{'Attune':>9}"
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
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
