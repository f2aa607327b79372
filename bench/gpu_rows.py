#!/usr/bin/env python3
"""Times every row of the kernel table that serves a problem, beside PyTorch's backends: what tiles are
chosen from. Problems, peers and counting are those of gpu_peers.py; all take turns in one process.
Results are compared with those of the first row that serves: what differs by more than 2% is marked.

usage: gpu_rows.py ATTUNE [--rows TEXT] [--groups forward] [--dims 128] [--lengths 1024,4096]
                   [--masks full,causal] [--peers cuDNN] [--lib libattune.so]
ATTUNE is the command, which lists the rows.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import time
import warnings

from attune_abi import ROOT, Library, Plan
from gpu_case import PEERS, Case, first_line, problem_text, take_turns, usable_peers
from gpu_peers import chosen_rows, pairs_of

WRONG = 0.02  # relative error in norm


def parse_arguments():
    def words(text):
        return text.split(",")

    def numbers(text):
        return [int(n) for n in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("attune", type=pathlib.Path, metavar="ATTUNE")
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows with this in their id")
    parser.add_argument("--groups", default=["forward"], type=words, metavar="GROUP,...")
    parser.add_argument("--dims", type=numbers, metavar="D,...")
    parser.add_argument("--lengths", type=numbers, metavar="S,...")
    parser.add_argument("--masks", default=["full", "causal"], type=words, metavar="MASK,...")
    parser.add_argument("--peers", default=["FA2", "cuDNN"], type=words, metavar="NAME,...")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--turn", default=0.005, type=float, help="seconds a turn")
    parser.add_argument("--time-limit", default=1e9, type=float, metavar="SECONDS")
    parser.add_argument("--lib", type=pathlib.Path, default=ROOT / "build" / "src" / "libattune.so")
    arguments = parser.parse_args()
    for name in arguments.peers:
        if name not in PEERS:
            parser.error(f"--peers: {name} is none of {', '.join(PEERS)}")
    return arguments


def ids_of(attune, kind, text):
    listed = subprocess.run([attune, "list", "--json"], check=True, capture_output=True, text=True)
    return [row["id"] for row in json.loads(listed.stdout)
            if row["family"] != "cpu" and row["kind"] == kind and text in row["id"]]


def ways_to_run(torch, library, row, ids):
    """Functions by name: the rows that serve, in the table's order."""
    case, ways, expected = Case(torch, library, row), {}, None
    for name in ids:
        try:
            plan = Plan(library, problem_text(row, "cuda"), kernel=name)
        except RuntimeError:
            continue  # it does not serve
        plan.prepare()
        workspace = torch.empty(max(1, plan.workspace_bytes), dtype=torch.uint8, device="cuda")

        def run(plan=plan, workspace=workspace):
            plan.run(case.arguments, workspace.data_ptr())

        for tensor in case.got():
            tensor.fill_(float("nan"))
        run()
        torch.cuda.synchronize()
        got = [tensor.float().clone() for tensor in case.got()]
        expected = expected or got
        error = max(((a - b).norm() / b.norm()).item() for a, b in zip(got, expected))
        wrong = "" if error < WRONG else f" WRONG by {error:.3g}"
        ways[name + wrong] = (run, contextlib.nullcontext)
    return case, ways


def main():
    arguments = parse_arguments()
    import torch
    import torch.nn.attention
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")
    library, start, wrong = Library(arguments.lib), time.monotonic(), False
    for row in chosen_rows(arguments):
        if time.monotonic() - start > arguments.time_limit:
            print(f"stopped after {arguments.time_limit:.0f} s", file=sys.stderr)
            break
        ids = [name for name in ids_of(arguments.attune, row["direction"], arguments.rows)
               if f".{row['dtype']}." in name]
        try:
            case, ways = ways_to_run(torch, library, row, ids)
        except RuntimeError as error:
            print(f"{problem_text(row, 'cuda')}: {first_line(error)}", file=sys.stderr)
            wrong = True
            continue
        peers, _ = usable_peers(case, arguments.peers)
        seconds = take_turns(torch, {**ways, **peers}, arguments.rounds, arguments.turn)
        work = 4 * row["b"] * row["h"] * pairs_of(row) * row["d"] * 1e-12
        work *= 2.5 if row["direction"] == "backward" else 1
        print(f"{row['group']} {row['dtype']} {row['mask']} d {row['d']} S {row['s']}, TFLOP/s")
        for name, t in sorted(seconds.items(), key=lambda item: item[1]):
            print(f"  {work / t:7.0f}  {name}", flush=True)
            wrong = wrong or "WRONG" in name
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
