#!/usr/bin/env python3
"""ATTUNE_CPU_ISA limits the kernels that the command takes, and a wrong value is refused in words.

usage: isa_test.py ATTUNE
"""

import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

ISAS = ["generic", "avx2", "avx512", "avx512bf16", "amx"]  # worst first


def write_npy(path, shape):
    count = 1
    for extent in shape:
        count *= extent
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(-(10 + len(header) + 1) % 64 + len(header)) + "\n"
    values = [random.uniform(-2, 2) for _ in range(count)]
    path.write_bytes(
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", len(header))
        + header.encode()
        + struct.pack(f"<{count}f", *values)
    )


def main():
    attune = sys.argv[1]
    random.seed(7)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = [pathlib.Path(folder) / f"{name}.npy" for name in "qkv"]
        for path in inputs:
            write_npy(path, (1, 21, 2, 24))

        def run(isa):
            return subprocess.run(
                [attune, "run", *map(str, inputs), "--mask", "causal-bottom-right", "--check"],
                env={**os.environ, "ATTUNE_CPU_ISA": isa},
                capture_output=True,
                text=True,
            )

        for isa in ISAS:
            result = run(isa)
            said = result.stdout + result.stderr
            if isa == "generic" and result.returncode != 0:
                found.append(f"ATTUNE_CPU_ISA=generic failed with {result.returncode}:\n{said}")
            # A machine without the set is told so, or served by a lesser one; never by a greater.
            kernels = [w for w in result.stdout.replace(",", " ").split() if w.startswith("fwd.cpu.f32.")]
            if result.returncode == 0 and not kernels:
                found.append(f"ATTUNE_CPU_ISA={isa}: no kernel id in the output:\n{said}")
            for kernel in kernels:
                used = kernel.split(".")[3]
                if ISAS.index(used) > ISAS.index(isa):
                    found.append(f"ATTUNE_CPU_ISA={isa} and yet {kernel} ran")
            if result.returncode != 0 and isa not in said:
                found.append(f"ATTUNE_CPU_ISA={isa}: refused without naming the set:\n{said}")
            print(f"{isa}: {result.returncode} {' '.join(sorted(set(kernels)))}")

        result = run("bogus")
        if result.returncode == 0:
            found.append("ATTUNE_CPU_ISA=bogus was accepted")
        if "bogus" not in result.stderr or "generic" not in result.stderr:
            found.append(
                "ATTUNE_CPU_ISA=bogus: the message names neither the value nor what may stand there:\n"
                + result.stderr
            )
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
