#!/usr/bin/env python3
"""Prints rows of bench/cpu_peers.py's JSON as the README's Markdown table.

usage: table.py IN.json [--threads 1,16] [--shapes 8x2048x64,16x2048x128]
"""

import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("input", type=pathlib.Path)
    parser.add_argument("--threads", default="1,16")
    parser.add_argument("--shapes", default="", help="heads x S x D, ...; default: all")
    arguments = parser.parse_args()
    threads = [int(n) for n in arguments.threads.split(",")]
    report = json.loads(arguments.input.read_text())
    rows = {}
    for row in report["rows"]:
        key = (row["dtype"], f"{row['h']}x{row['s']}x{row['d']}", row["mask"])
        rows.setdefault(key, {})[(row["threads"], row["direction"])] = row
    heads = [f"{direction}, {n} thread{'s' * (n > 1)}"
             for n in threads for direction in ("forward", "backward")]
    print("| dtype | H × S × D | mask | " + " | ".join(heads) + " |")
    print("|---" * (3 + len(heads)) + "|")
    for (dtype, shape, mask), cells in rows.items():
        if arguments.shapes and shape not in arguments.shapes.split(","):
            continue
        text = []
        for n in threads:
            for direction in ("forward", "backward"):
                cell = cells.get((n, direction))
                text.append("-" if cell is None else
                            f"{cell['attune_gflops']:,.0f} / {cell['torch_gflops']:,.0f}"
                            f" = **{cell['ratio']:.2f}**")
        print(f"| {dtype} | {shape.replace('x', ' × ')} | {mask} | " + " | ".join(text) + " |")


if __name__ == "__main__":
    main()
