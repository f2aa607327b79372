"""Biases of a batch of equally long sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import _band


class AttentionBias:
    """What attn_bias takes beside a tensor. A bias says what Attune is asked (`options`), and can be
    made a tensor (`materialize`), which is for tests and looking at it."""

    def materialize(self, shape, dtype=torch.float32, device="cpu") -> torch.Tensor:
        """The bias as a tensor of `shape`, [..., queries, keys]: 0 where a query sees a key, else -inf."""
        band = self._band()
        return _band.as_bias(band.visible(shape[-2], shape[-1], device), shape, dtype)

    def to(self, device) -> AttentionBias:
        return self

    def options(self) -> dict:
        """Options of attune.compat's calls."""
        return self._band().options()

    def _band(self) -> _band.Band:
        raise NotImplementedError


class LowerTriangularMask(AttentionBias):
    """Causal from the top left: query i sees the keys up to i."""

    def __init__(self, device=None) -> None:
        """device is not used."""

    def add_bias(self, bias: torch.Tensor) -> LowerTriangularMaskWithTensorBias:
        return LowerTriangularMaskWithTensorBias(bias)

    def _band(self):
        return _band.CAUSAL_TOP_LEFT


class LowerTriangularMaskWithTensorBias(LowerTriangularMask):
    """LowerTriangularMask and a tensor, [batch, heads, queries, keys], that is added."""

    def __init__(self, bias: torch.Tensor) -> None:
        self._bias = bias

    def to(self, device):
        return LowerTriangularMaskWithTensorBias(self._bias.to(device))

    def materialize(self, shape, dtype=torch.float32, device="cpu"):
        return super().materialize(shape, dtype, device) + self._bias

    def options(self) -> dict:
        return {**super().options(), "bias": self._bias}


class LowerTriangularFromBottomRightMask(AttentionBias):
    """Causal from the bottom right: the last query sees the last key."""

    def make_local_attention(
        self, window_size: int
    ) -> LowerTriangularFromBottomRightLocalAttentionMask:
        return LowerTriangularFromBottomRightLocalAttentionMask(window_size)

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT


@dataclass
class LowerTriangularFromBottomRightLocalAttentionMask(LowerTriangularFromBottomRightMask):
    """The same, and no more than the last _window_size keys up to the diagonal."""

    _window_size: int

    def __post_init__(self) -> None:
        self._band()

    def _band(self):
        return _band.causal_window(self._window_size)


@dataclass
class LocalAttentionFromBottomRightMask(AttentionBias):
    """Query q sees key k if q - window_left <= k + queries - keys <= q + window_right."""

    window_left: int
    window_right: int

    def __post_init__(self) -> None:
        self._band()

    def _band(self):
        return _band.window(self.window_left, self.window_right)
