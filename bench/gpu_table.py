#!/usr/bin/env python3
"""Prints bench/gpu_peers.py's JSON as the README's Markdown table, or draws it.

usage: gpu_table.py IN.json ... [--plot OUT.svg]
Of several files, groups of a later one take the place of those of the earlier.
"""

import argparse
import json
import pathlib
import sys

PEERS = ("mem-eff", "FA2", "cuDNN", "FlexAttention")
COLORS = {"attune": "#3b518b", "mem-eff": "#d0d0d0", "FA2": "#a8a8a8", "cuDNN": "#d9822b"}
CEILING = "#c0392b"
DRAWN = ("forward", "backward")
# What the README shows: (title, group, lengths), and what else rows of the group have to be.
SHOWN = (("bf16", "forward", (1024, 4096, 16384)),
         ("bf16 with the LSE", "lse", (4096,)),
         ("f16", "f16", (4096,)),
         ("f8e4m3, others bf16", "fp8", (1024, 4096, 16384)),
         ("f32", "f32", (4096,)),
         ("bf16, bias [B, H, S, S]", "bias", (4096,)),
         ("bf16, dropout 0.125", "dropout", (4096,)),
         ("bf16, dropout 0.125, FA2's stream", "fa2-dropout", (4096,)),
         ("bf16, ALiBi", "general", (4096,), {"alibi": True}),
         ("bf16, softcap 30", "general", (4096,), {"softcap": 30.0}),
         ("bf16, pages of 16 keys", "paged", (4096,), {"page_size": 16}),
         ("bf16, pages of 64 keys", "paged", (4096,), {"page_size": 64}),
         ("bf16, window 1,024, 8 heads of keys", "window", (8192, 32768)),
         ("bf16 backward", "backward", (1024, 4096, 16384)),
         ("bf16 backward, deterministic", "deterministic", (8192,)),
         ("f32 backward", "backward-f32", (4096,)),
         ("bf16 backward, gradient of a bias [B, H, S, S] too", "bias-gradient", (4096,)),
         ("bf16 backward, dropout 0.125", "backward-dropout", (4096,)),
         ("bf16 backward, dropout 0.125, FA2's stream", "backward-fa2-dropout", (4096,)))


def cell(row, peer):
    if peer not in row["tflops"]:
        return "refuses" if peer in row["refused"] else "-"
    return f"{row['tflops'][peer]:.0f} ({row['ratio'][peer]:.2f})"


def print_table(rows):
    print("| what | D | S | mask | Attune | " + " | ".join(PEERS) + " |")
    print("|---" * (5 + len(PEERS)) + "|")
    for title, group, lengths, *more in SHOWN:
        wanted = {"group": group, **(more[0] if more else {})}
        for row in rows:
            if any(row[key] != value for key, value in wanted.items()):
                continue
            if row["s"] not in lengths or row["bias"] == "1hqk":
                continue
            print(f"| {title} | {row['d']} | {row['s']:,} | {row['mask']} | "
                  f"**{row['tflops']['attune']:.0f}** | "
                  + " | ".join(cell(row, peer) for peer in PEERS) + " |")


def draw(report, output):
    try:
        import matplotlib
    except ImportError:
        sys.exit("--plot needs matplotlib: apt-get install python3-matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    dims = sorted({row["d"] for row in report["rows"] if row["group"] in DRAWN})
    figure, grid = plt.subplots(2 * len(DRAWN), len(dims), squeeze=False, layout="constrained",
                                figsize=(3.6 * len(dims), 5 * len(DRAWN)))
    for y, (group, mask) in enumerate((g, m) for g in DRAWN for m in ("full", "causal")):
        for axes, d in zip(grid[y], dims):
            chosen = [row for row in report["rows"]
                      if (row["group"], row["d"], row["mask"]) == (group, d, mask)]
            for name, color in COLORS.items():
                points = [(row["s"], row["tflops"][name]) for row in chosen if name in row["tflops"]]
                if points:
                    axes.plot(*zip(*points), marker="o", markersize=3, color=color,
                              label="Attune" if name == "attune" else name)
            if "matrix_rate_tflops" in report:
                axes.axhline(report["matrix_rate_tflops"], color=CEILING, linestyle="--", linewidth=1,
                             label="matrix product")
            axes.set_xscale("log", base=2)
            axes.set_xticks([row["s"] for row in chosen], [str(row["s"]) for row in chosen], fontsize=6)
            axes.set_ylim(bottom=0)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_title(f"{group}, D {d}, {mask}", fontsize=9)
            axes.set_ylabel("TFLOP/s", fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"bf16, {report['device']}: Attune {report['version']}, PyTorch "
                    f"{report['torch']}, cuDNN {report['cudnn']}", fontsize=10)
    # A peer need not be in every panel.
    drawn = {label: handle for axes in grid.flat
             for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=5, fontsize=8,
                  frameon=False)
    figure.savefig(output, dpi=110)
    print(f"wrote {output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("input", type=pathlib.Path, nargs="+", help="the JSON of gpu_peers.py")
    parser.add_argument("--plot", type=pathlib.Path, metavar="OUT", help="draw instead of printing")
    arguments = parser.parse_args()
    report = {"rows": []}
    for path in arguments.input:
        more = json.loads(path.read_text())
        if not more["rows"]:
            sys.exit(f"{path} has no rows")
        groups = {row["group"] for row in more["rows"]}
        more["rows"] += [row for row in report["rows"] if row["group"] not in groups]
        report = more
    if arguments.plot:
        draw(report, arguments.plot)
    else:
        print_table(report["rows"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
