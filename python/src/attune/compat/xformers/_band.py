"""Which keys a query of one sequence sees: what all bias classes are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Band:
    """Causal or not, from which corner, and a window around the diagonal; -1 is unbounded."""

    causal: bool = False
    top_left: bool = False
    left: int = -1
    right: int = -1

    def options(self) -> dict:
        """Attune's options for it."""
        return {
            "causal": self.causal,
            "top_left": self.top_left,
            "left": self.left,
            "right": self.right,
        }

    def visible(self, queries: int, keys: int, device) -> torch.Tensor:
        """bool [queries, keys]"""
        diagonal = torch.arange(queries, device=device)[:, None]
        diagonal = diagonal if self.top_left else diagonal + keys - queries
        key = torch.arange(keys, device=device)[None]
        seen = torch.ones((queries, keys), dtype=torch.bool, device=device)
        if self.causal:
            seen &= key <= diagonal
        if self.left >= 0:
            seen &= key >= diagonal - self.left
        if self.right >= 0:
            seen &= key <= diagonal + self.right
        return seen


FULL = Band()
CAUSAL_TOP_LEFT = Band(causal=True, top_left=True)
CAUSAL_BOTTOM_RIGHT = Band(causal=True)


def causal_window(size: int, top_left: bool = False) -> Band:
    """The last `size` keys up to the diagonal, which counts."""
    if size <= 0:
        raise ValueError(f"window_size = {size}; it takes at least 1")
    return Band(causal=True, top_left=top_left, left=size - 1)


def window(left: int, right: int) -> Band:
    for name, side in (("window_left", left), ("window_right", right)):
        if side < 0:
            raise ValueError(f"{name} = {side}; it takes at least 0")
    return Band(left=left, right=right)


def as_bias(visible: torch.Tensor, shape, dtype) -> torch.Tensor:
    """0 where visible, -inf elsewhere, as a view of `shape`."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, float("-inf")).expand(shape)
