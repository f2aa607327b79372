#!/usr/bin/env python3
"""Compiles every row of the kernel table for every architecture that NVRTC offers, without a GPU, and
holds each kernel to its budget: no spills, no local memory, registers that leave room for the blocks
that the row asks for.

Architectures whose machine code is the same are compiled once: which ones those are is read from the
code of a few rows first. What the disk cache holds of the very same sources, compiler and flags is not
compiled again; its facts are read from the cubin all the same.

usage: catalogue_test.py ATTUNE
Exits with 77 (skipped) where there is no NVRTC.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77
SAMPLE = 3  # rows whose code is compared for all architectures


def attune(*arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"attune {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done


def compiled(*arguments):
    done = attune("compile", "--check", "--json", *arguments)
    if not done.stdout:
        return None, done.stderr
    return json.loads(done.stdout), done.stderr


def table():
    """(id, first architecture, the first that no longer runs it or None) of every row."""
    with tempfile.TemporaryDirectory() as folder:
        attune("generate", "-o", folder)
        manifest = json.loads((pathlib.Path(folder) / "manifest.json").read_text())
    return [(row["id"], row["arch_begin"], row["arch_end"]) for row in manifest["kernels"]]


def representatives(rows):
    """One architecture of each set with the same code, from a few rows of different kinds."""
    sample = sorted({rows[i * (len(rows) - 1) // (SAMPLE - 1)] for i in range(SAMPLE)})
    report, errors = compiled("--arch", "all", *(f"--spec={row}" for row in sample))
    if report is None:
        if "no NVRTC" in errors:
            print("skipped:", errors.strip())
            sys.exit(SKIPPED)
        sys.exit(errors)
    whole = {row for row in sample if not any(row in failure for failure in report["failures"])}
    if not whole:
        sys.exit(errors)
    code = collections.defaultdict(list)
    for kernel in report["kernels"]:
        if kernel["id"] not in whole:
            continue
        code[kernel["target"]].append(kernel["code_hash"])
    groups = collections.defaultdict(list)
    for target, hashes in code.items():
        groups[tuple(hashes)].append(target)
    for targets in groups.values():
        if len(targets) > 1:
            print(" = ".join(targets))
    print("compiler:", report["compiler"])
    return [targets[0] for targets in groups.values()]


def main():
    rows = table()
    # Rows of one architecture say nothing of the others'; it is compiled for whatever its code is like.
    newest = max(arch for _, arch, end in rows if end is None)
    archs = [f"sm_{arch}" for arch in sorted({arch for _, arch, _ in rows} - {newest})]
    archs += representatives([row for row, arch, end in rows if arch == newest and end is None])
    archs = list(dict.fromkeys(archs))
    print("architectures:", *archs, flush=True)
    report, errors = compiled("--all", "--arch", ",".join(archs))
    if report is None:
        sys.exit(errors)
    kernels = report["kernels"]
    compiled_now = [kernel for kernel in kernels if kernel["compiled"]]
    print(f"{len(kernels)} kernels, {len(compiled_now)} of them compiled, in {report['seconds']:.0f} s")
    if compiled_now:
        seconds = sorted(kernel["compile_seconds"] for kernel in compiled_now)
        print(f"alone, one takes {seconds[0]:.2f} to {seconds[-1]:.2f} s, median {seconds[len(seconds) // 2]:.2f} s")
        slowest = max(compiled_now, key=lambda kernel: kernel["compile_seconds"])
        print(f"the slowest: {slowest['id']} for {slowest['target']}")
    if kernels:
        print("registers:", dict(sorted(collections.Counter(
            kernel["facts"]["registers"] for kernel in kernels).items())))
    broken = [f"{kernel['id']} for {kernel['target']}: {what}"
              for kernel in kernels for what in kernel["broken_budgets"]]
    for line in [*(failure.split("\n")[0] for failure in report["failures"]), *broken]:
        print(line)
    if report["failures"]:
        print(report["failures"][0])
    print(f"{len(report['failures'])} kernels do not compile, {len(broken)} budgets are broken")
    return 1 if report["failures"] or broken or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
