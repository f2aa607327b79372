"""Biases of packed queries over keys in pages. key and value are
[1, pages · page_size, heads, K]; block_tables, int32 [sequences, columns], has the pages of each
sequence in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from . import _band
from ._block_diagonal import BlockDiagonalPaddedKeysMask, _BlockDiagonal
from ._seqinfo import _GappySeqInfo, _PaddedSeqLenInfo, _SeqLenInfo, default_device


class _Paged(_BlockDiagonal):
    def to(self, device):
        return replace(super().to(device), block_tables=self.block_tables.to(device))

    def _intervals(self):
        """(begin, end) of each sequence's keys, counted in its own pages."""
        raise NotImplementedError

    def visible(self, device="cpu") -> torch.Tensor:
        """bool [total queries, keys of all pages up to the last that is used]"""
        tables, page = self.block_tables.tolist(), self.page_size
        pages = 1 + max(number for row in tables for number in row)
        seen = torch.zeros(
            (self.q_seqinfo.seqstart_py[-1], pages * page), dtype=torch.bool, device=device
        )
        rows = zip(self.q_seqinfo.intervals(), self._intervals(), tables)
        for (q_begin, q_end), (begin, end), table in rows:
            block = self._band().visible(q_end - q_begin, end - begin, device)
            for key in range(begin, end):
                place = table[key // page] * page + key % page
                seen[q_begin:q_end, place] = block[:, key - begin]
        return seen

    def options(self) -> dict:
        return {
            **self._band().options(),
            "cu_seqlens_q": self.q_seqinfo.seqstart,
            "max_seqlen_q": max(self.q_seqinfo.max_seqlen, 0),
            "page_table": self.block_tables,
            "key_lengths": self.k_seqinfo.seqlen,
            "max_seqlen_k": self.block_tables.shape[1] * self.page_size,
        }


@dataclass
class PagedBlockDiagonalPaddedKeysMask(_Paged):
    """Each sequence sees the first of the keys in its pages."""

    q_seqinfo: _SeqLenInfo
    k_seqinfo: _PaddedSeqLenInfo
    block_tables: torch.Tensor
    page_size: int

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqlen, block_tables, page_size, *, device=None):
        most = block_tables.shape[1] * page_size
        infos = BlockDiagonalPaddedKeysMask._seqinfos(
            q_seqlen, most, kv_seqlen, default_device(device)
        )
        return cls(**infos, block_tables=block_tables, page_size=page_size)

    def _intervals(self):
        return [(0, length) for length in self.k_seqinfo.seqlen_py]


@dataclass
class PagedBlockDiagonalCausalWithOffsetPaddedKeysMask(PagedBlockDiagonalPaddedKeysMask):
    """Each sequence causal from its bottom right."""

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT


@dataclass
class PagedBlockDiagonalCausalLocalPaddedKeysMask(PagedBlockDiagonalPaddedKeysMask):
    """Each sequence causal from its bottom right, no more than the last _window_size keys."""

    _window_size: int

    @classmethod
    def from_seqlens_local(
        cls, q_seqlen, kv_seqlen, block_tables, page_size, window_size, *, device=None
    ):
        plain = PagedBlockDiagonalPaddedKeysMask.from_seqlens(
            q_seqlen, kv_seqlen, block_tables, page_size, device=device
        )
        return cls(plain.q_seqinfo, plain.k_seqinfo, block_tables, page_size, window_size)

    def _band(self):
        return _band.causal_window(self._window_size)


@dataclass
class PagedBlockDiagonalGappyKeysMask(_Paged):
    """Each sequence's keys begin anywhere in its pages."""

    q_seqinfo: _SeqLenInfo
    k_seqinfo: _GappySeqInfo
    block_tables: torch.Tensor
    page_size: int

    @classmethod
    def from_seqlens(
        cls, q_seqlen, kv_seqstarts, kv_seqlen, block_tables, page_size, *, device=None
    ):
        """kv_seqstarts: of each sequence, counted in its own pages."""
        device = block_tables.device if device is None else device
        return cls(
            q_seqinfo=_SeqLenInfo.from_seqlens(q_seqlen, device=device),
            k_seqinfo=_GappySeqInfo.from_seqlens_gappy(
                kv_seqstarts, kv_seqlen, True, device=device
            ),
            block_tables=block_tables,
            page_size=page_size,
        )

    def _intervals(self):
        return list(zip(self.k_seqinfo.seqstart_py, self.k_seqinfo.seqlen_py))

    def options(self) -> dict:
        options = super().options()
        # Diagonals count from the end of the keys, so what is in front of the first may be masked.
        keys = torch.arange(options["max_seqlen_k"], device=self.block_tables.device)
        begins = self.k_seqinfo.seqstart[:-1, None]
        return {**options, "bias": (keys >= begins)[:, None, None]}


@dataclass
class PagedBlockDiagonalCausalWithOffsetGappyKeysMask(PagedBlockDiagonalGappyKeysMask):
    """Each sequence causal from its bottom right."""

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT
