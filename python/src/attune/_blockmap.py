"""A problem's mask over a kernel's tiles, drawn as SVG."""

from __future__ import annotations

MOST_CELLS = 64  # a side
PIXELS = 8
COLOURS = {"skipped": "#e8e8e8", "masked": "#f4b860", "free": "#4a90c4"}


def _fields(problem: str) -> dict[str, str]:
    words = problem.split()[1:]
    return dict(word.split("=", 1) if "=" in word else (word, "") for word in words)


def _band(fields: dict[str, str]) -> tuple[int, float, float]:
    """Query i sees the keys from i + shift - left to i + shift + right."""
    sq, sk = int(fields["sq"]), int(fields["sk"])
    mask = fields.get("mask", "")
    top_left = mask == "causal-top-left" or fields.get("diagonal") == "top-left"
    shift = int(fields.get("offset", 0)) + (0 if top_left else sk - sq)
    left, right = (int(side) for side in fields.get("window", "-1,-1").split(","))
    left = float("inf") if left < 0 else left
    right = float("inf") if right < 0 else right
    return shift, left, min(right, 0) if mask.startswith("causal") else right


def _runs(extent: int, tile: int) -> list[tuple[int, int]]:
    """Tiles as [begin, end); several together where there are more than can be drawn."""
    count = max(1, -(-extent // tile))
    step = tile * -(-count // MOST_CELLS)
    return [(begin, min(begin + step, extent)) for begin in range(0, extent, step)]


def blocks(problem: str, tile: tuple[int, int]) -> list[list[str]]:
    """ "skipped", "masked" (some of its scores are masked out) or "free" for each tile of queries
    (rows) and keys (columns), with the problem's sq and sk. A boolean or additive bias, lengths and
    pages are known at run time only and not looked at.
    """
    fields = _fields(problem)
    shift, left, right = _band(fields)
    rows = []
    for q_begin, q_end in _runs(int(fields["sq"]), max(1, tile[0])):
        row = []
        for k_begin, k_end in _runs(int(fields["sk"]), max(1, tile[1])):
            low, high = q_begin + shift, q_end - 1 + shift  # the diagonal's ends
            if k_begin > high + right or k_end - 1 < low - left:
                row.append("skipped")
            elif k_end - 1 <= low + right and k_begin >= high - left:
                row.append("free")
            else:
                row.append("masked")
        rows.append(row)
    return rows


def svg(problem: str, tile: tuple[int, int]) -> str:
    rows = blocks(problem, tile)
    width = PIXELS * max((len(row) for row in rows), default=1)
    height = PIXELS * max(1, len(rows))
    cells = "".join(
        f'<rect x="{x * PIXELS}" y="{y * PIXELS}" width="{PIXELS - 1}" height="{PIXELS - 1}" '
        f'fill="{COLOURS[kind]}"><title>{kind}</title></rect>'
        for y, row in enumerate(rows)
        for x, kind in enumerate(row)
    )
    counts = {kind: sum(row.count(kind) for row in rows) for kind in COLOURS}
    legend = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    text = f"tiles of {tile[0]} queries (down) and {tile[1]} keys (right): {legend}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 420)}" height="{height + 20}">'
        f'{cells}<text x="0" y="{height + 14}" font-family="sans-serif" font-size="11">{text}</text></svg>'
    )
