#!/usr/bin/env python3
"""Draws what bench/cpu_peers.py measured: Attune beside PyTorch, a panel a dtype and direction.

usage: plot.py IN.json OUT.png [--threads N]
"""

import argparse
import json
import pathlib
import sys

NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
ATTUNE, TORCH, CEILING = "#3b518b", "#b8b8b8", "#d9822b"


def draw_panel(axes, rows, title):
    labels = [f"H{r['h']}\nS{r['s']}\nD{r['d']}\n{r['mask']}" for r in rows]
    places = range(len(rows))
    axes.bar([x - 0.2 for x in places], [r["attune_gflops"] for r in rows], 0.4, color=ATTUNE,
             label="Attune")
    axes.bar([x + 0.2 for x in places], [r["torch_gflops"] for r in rows], 0.4, color=TORCH,
             label="PyTorch")
    for x, row in zip(places, rows):
        axes.annotate(f"{row['ratio']:.1f}x", (x - 0.2, row["attune_gflops"]), ha="center",
                      va="bottom", fontsize=7, color=ATTUNE)
    axes.hlines([r["matrix_rate_gflops"] for r in rows], [x - 0.45 for x in places],
                [x + 0.45 for x in places], color=CEILING, linestyle="--", linewidth=1,
                label="matrix product")
    axes.set_xticks(list(places), labels, fontsize=6)
    axes.set_title(title, fontsize=9)
    axes.set_ylabel("GFLOP/s", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("input", type=pathlib.Path, help="the JSON of cpu_peers.py")
    parser.add_argument("output", type=pathlib.Path, help="the picture")
    parser.add_argument("--threads", type=int, help="which rows; default: the most there are")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py needs matplotlib: apt-get install python3-matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    report = json.loads(arguments.input.read_text())
    if not report["rows"]:
        sys.exit(f"{arguments.input} has no rows")
    threads = arguments.threads or max(row["threads"] for row in report["rows"])
    panels = {}
    for row in report["rows"]:
        if row["threads"] == threads:
            panels.setdefault((row["direction"], row["dtype"]), []).append(row)
    if not panels:
        sys.exit(f"{arguments.input} has no rows of {threads} threads")
    directions = sorted({direction for direction, _ in panels}, reverse=True)
    dtypes = [dtype for dtype in NAMES if any(dtype == key[1] for key in panels)]
    widest = max(len(rows) for rows in panels.values())
    figure, grid = plt.subplots(
        len(dtypes), len(directions), squeeze=False, layout="constrained",
        figsize=(max(3.5, 0.5 * widest) * len(directions), 2.6 * len(dtypes) + 0.6))
    for y, dtype in enumerate(dtypes):
        for x, direction in enumerate(directions):
            if (direction, dtype) in panels:
                draw_panel(grid[y][x], panels[direction, dtype], f"{NAMES[dtype]} {direction}")
            else:
                grid[y][x].set_visible(False)
    figure.suptitle(f"Attention on {report['machine']}, {threads} thread{'s' * (threads > 1)}: "
                    f"Attune {report['version']} and PyTorch {report['torch']}", fontsize=10)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(arguments.output, dpi=130)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
