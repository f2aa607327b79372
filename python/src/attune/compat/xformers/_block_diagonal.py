"""Biases of packed sequences: queries see keys of their own sequence alone. Inputs are
[1, total, heads, K]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from . import _band
from ._dense import AttentionBias
from ._seqinfo import _GappySeqInfo, _PaddedSeqLenInfo, _SeqLenInfo, default_device


class _BlockDiagonal(AttentionBias):
    """What they share. Subclasses have q_seqinfo and k_seqinfo."""

    def to(self, device):
        return replace(
            self, q_seqinfo=self.q_seqinfo.to(device), k_seqinfo=self.k_seqinfo.to(device)
        )

    def visible(self, device="cpu") -> torch.Tensor:
        """bool [total queries, total keys]"""
        shape = (self.q_seqinfo.seqstart_py[-1], self.k_seqinfo.seqstart_py[-1])
        seen = torch.zeros(shape, dtype=torch.bool, device=device)
        for (q_begin, q_end), (k_begin, k_end) in zip(
            self.q_seqinfo.intervals(), self.k_seqinfo.intervals()
        ):
            block = self._band().visible(q_end - q_begin, k_end - k_begin, device)
            seen[q_begin:q_end, k_begin:k_end] = block
        return seen

    def materialize(self, shape, dtype=torch.float32, device="cpu"):
        seen = self.visible(device)
        if tuple(shape[-2:]) != tuple(seen.shape):
            raise ValueError(f"shape {tuple(shape)} does not end in {tuple(seen.shape)}")
        return _band.as_bias(seen, shape, dtype)

    def options(self) -> dict:
        return {
            **self._band().options(),
            "cu_seqlens_q": self.q_seqinfo.seqstart,
            "max_seqlen_q": max(self.q_seqinfo.max_seqlen, 0),
            "cu_seqlens_k": self.k_seqinfo.seqstart,
            "max_seqlen_k": max(self.k_seqinfo.max_seqlen, 0),
        }

    def _band(self):
        return _band.FULL


@dataclass
class BlockDiagonalMask(_BlockDiagonal):
    """Sequences behind each other, each seeing all of its own keys."""

    q_seqinfo: _SeqLenInfo
    k_seqinfo: _SeqLenInfo
    _batch_sizes: Sequence[int] | None = None

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqlen=None, *, device=None):
        """From the lengths of queries and keys; those of the keys are those of the queries unless given."""
        device = default_device(device)
        q_info = _SeqLenInfo.from_seqlens(q_seqlen, device=device)
        if kv_seqlen is None or list(kv_seqlen) == list(q_seqlen):
            return cls(q_seqinfo=q_info, k_seqinfo=q_info)
        if len(kv_seqlen) != len(q_seqlen):
            raise ValueError(f"{len(q_seqlen)} sequences of queries have {len(kv_seqlen)} of keys")
        return cls(q_seqinfo=q_info, k_seqinfo=_SeqLenInfo.from_seqlens(kv_seqlen, device=device))

    @classmethod
    def from_tensor_list(cls, tensors: Sequence[torch.Tensor]):
        """The bias of tensors [B_i, M_i, ...], and all of them as [1, sum of B_i · M_i, ...]."""
        bias = cls.from_seqlens(_lengths(tensors), device=tensors[0].device)
        bias._batch_sizes = [tensor.shape[0] for tensor in tensors]
        return bias, _concatenated(tensors)

    @classmethod
    def from_tensor_lists_qkv(cls, tensors_q, tensors_k, tensors_v=None):
        """The same of queries, keys and (or None) values."""
        for q, k in zip(tensors_q, tensors_k, strict=True):
            if q.shape[0] != k.shape[0]:
                raise ValueError(f"queries of batch {q.shape[0]} have keys of batch {k.shape[0]}")
        bias = cls.from_seqlens(
            _lengths(tensors_q), _lengths(tensors_k), device=tensors_q[0].device
        )
        bias._batch_sizes = [tensor.shape[0] for tensor in tensors_q]
        values = None if tensors_v is None else _concatenated(tensors_v)
        return bias, _concatenated(tensors_q), _concatenated(tensors_k), values

    def split_queries(self, tensor):
        return self.q_seqinfo.split(tensor, self._batch_sizes)

    def split_kv(self, tensor):
        return self.k_seqinfo.split(tensor, self._batch_sizes)

    def split(self, tensor):
        """The tensors that from_tensor_list() put together."""
        if self.q_seqinfo is not self.k_seqinfo:
            raise ValueError(
                "queries and keys have lengths of their own: split_queries(), split_kv()"
            )
        return self.q_seqinfo.split(tensor, self._batch_sizes)

    def _as(self, kind, **more):
        return kind(
            q_seqinfo=self.q_seqinfo,
            k_seqinfo=self.k_seqinfo,
            _batch_sizes=self._batch_sizes,
            **more,
        )

    def make_causal(self) -> BlockDiagonalCausalMask:
        return self._as(BlockDiagonalCausalMask)

    def make_causal_from_bottomright(self) -> BlockDiagonalCausalFromBottomRightMask:
        return self._as(BlockDiagonalCausalFromBottomRightMask)

    def make_local_attention(self, window_size: int) -> BlockDiagonalCausalLocalAttentionMask:
        return self._as(BlockDiagonalCausalLocalAttentionMask, _window_size=window_size)

    def make_local_attention_from_bottomright(self, window_size: int):
        kind = BlockDiagonalCausalLocalAttentionFromBottomRightMask
        return self._as(kind, _window_size=window_size)


def _lengths(tensors) -> list[int]:
    return [tensor.shape[1] for tensor in tensors for _ in range(tensor.shape[0])]


def _concatenated(tensors) -> torch.Tensor:
    return torch.cat([tensor.reshape(1, -1, *tensor.shape[2:]) for tensor in tensors], dim=1)


@dataclass
class BlockDiagonalCausalMask(BlockDiagonalMask):
    """Each sequence causal from its top left."""

    def _band(self):
        return _band.CAUSAL_TOP_LEFT


@dataclass
class BlockDiagonalCausalFromBottomRightMask(BlockDiagonalMask):
    """Each sequence causal from its bottom right; none has more queries than keys."""

    def __post_init__(self) -> None:
        pairs = zip(self.q_seqinfo.intervals(), self.k_seqinfo.intervals())
        for index, ((q_begin, q_end), (k_begin, k_end)) in enumerate(pairs):
            if q_end - q_begin > k_end - k_begin:
                raise ValueError(
                    f"sequence {index} has {q_end - q_begin} queries, more than its "
                    f"{k_end - k_begin} keys"
                )

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT


@dataclass
class BlockDiagonalCausalLocalAttentionMask(BlockDiagonalCausalMask):
    """Each sequence causal from its top left, no more than the last _window_size keys."""

    _window_size: int = 0

    def __post_init__(self) -> None:
        self._band()
        for (q_begin, q_end), (k_begin, k_end) in zip(
            self.q_seqinfo.intervals(), self.k_seqinfo.intervals()
        ):
            if q_end - q_begin - self._window_size >= k_end - k_begin:
                raise RuntimeError(
                    f"a sequence of {q_end - q_begin} queries and {k_end - k_begin} keys has queries "
                    f"whose window of {self._window_size} holds no key"
                )

    def _band(self):
        return _band.causal_window(self._window_size, top_left=True)


@dataclass
class BlockDiagonalCausalLocalAttentionFromBottomRightMask(BlockDiagonalCausalFromBottomRightMask):
    """Each sequence causal from its bottom right, no more than the last _window_size keys."""

    _window_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._band()

    def _band(self):
        return _band.causal_window(self._window_size)


@dataclass
class BlockDiagonalPaddedKeysMask(_BlockDiagonal):
    """Keys in places of equal size, of which each sequence uses the first; queries packed."""

    q_seqinfo: _SeqLenInfo
    k_seqinfo: _PaddedSeqLenInfo

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_padding, kv_seqlen, causal_diagonal=None, *, device=None):
        """kv_padding: keys of a place; kv_seqlen: keys of each sequence; causal_diagonal: not used."""
        return cls(**cls._seqinfos(q_seqlen, kv_padding, kv_seqlen, device))

    @staticmethod
    def _seqinfos(q_seqlen, kv_padding, kv_seqlen, device) -> dict:
        if len(q_seqlen) != len(kv_seqlen):
            raise ValueError(f"{len(q_seqlen)} sequences of queries have {len(kv_seqlen)} of keys")
        device = default_device(device)
        return {
            "q_seqinfo": _SeqLenInfo.from_seqlens(q_seqlen, device=device),
            "k_seqinfo": _PaddedSeqLenInfo.from_seqlens_padded(
                kv_seqlen, kv_padding, device=device
            ),
        }

    def make_paged(self, block_tables, page_size: int, paged_type):
        """The same keys in pages: paged_type is one of the Paged classes."""
        info = replace(self.k_seqinfo, padding=block_tables.shape[1] * page_size)
        return paged_type(
            q_seqinfo=self.q_seqinfo, k_seqinfo=info, block_tables=block_tables, page_size=page_size
        )

    def make_local_attention(self, window_left: int, window_right: int):
        return BlockDiagonalLocalAttentionPaddedKeysMask(
            q_seqinfo=self.q_seqinfo,
            k_seqinfo=self.k_seqinfo,
            window_left=window_left,
            window_right=window_right,
        )

    def options(self) -> dict:
        return {
            **super().options(),
            "key_lengths": self.k_seqinfo.seqlen,
            "max_seqlen_k": self.k_seqinfo.padding,
        }


@dataclass
class BlockDiagonalCausalWithOffsetPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    """Each sequence causal from its bottom right."""

    causal_diagonal: object = None  # not used

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT


@dataclass
class BlockDiagonalLocalAttentionPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    """Each sequence with a window around its diagonal, from its bottom right."""

    window_left: int
    window_right: int

    @classmethod
    def from_seqlens_local(
        cls, q_seqlen, kv_padding, kv_seqlen, window_left, window_right, *, device=None
    ):
        infos = cls._seqinfos(q_seqlen, kv_padding, kv_seqlen, device)
        return cls(**infos, window_left=window_left, window_right=window_right)

    def _band(self):
        return _band.window(self.window_left, self.window_right)


@dataclass
class BlockDiagonalCausalLocalAttentionPaddedKeysMask(BlockDiagonalPaddedKeysMask):
    """Each sequence causal from its bottom right, no more than the last _window_size keys."""

    _window_size: int

    @classmethod
    def from_seqlens_local(cls, q_seqlen, kv_padding, kv_seqlen, window_size, *, device=None):
        return cls(
            **cls._seqinfos(q_seqlen, kv_padding, kv_seqlen, device), _window_size=window_size
        )

    def _band(self):
        return _band.causal_window(self._window_size)


@dataclass
class BlockDiagonalGappyKeysMask(_BlockDiagonal):
    """Keys of each sequence anywhere in the dimension; queries packed."""

    q_seqinfo: _SeqLenInfo
    k_seqinfo: _GappySeqInfo

    @classmethod
    def from_seqlens(cls, q_seqlen, kv_seqstarts, kv_seqlen, *, device=None):
        """kv_seqstarts: where each sequence's keys begin, and the dimension's end."""
        device = default_device(device)
        return cls(
            q_seqinfo=_SeqLenInfo.from_seqlens(q_seqlen, device=device),
            k_seqinfo=_GappySeqInfo.from_seqlens_gappy(
                kv_seqstarts, kv_seqlen, False, device=device
            ),
        )

    def make_paged(self, block_tables, page_size: int, notional_padding: int, paged_type):
        """The same keys in pages, if sequence b has all of its keys among notional_padding ones from
        b · notional_padding on."""
        if notional_padding % page_size != 0:
            raise ValueError(
                f"notional_padding = {notional_padding} is not a multiple of page_size = {page_size}"
            )
        info, count = self.k_seqinfo, len(self.k_seqinfo.seqlen_py)
        starts = [info.seqstart_py[n] - n * notional_padding for n in range(count)]
        most = block_tables.shape[1] * page_size
        if not all(0 <= start < most for start in starts):
            raise ValueError(f"keys begin at {starts} in their pages, which hold {most}")
        shift = notional_padding * torch.arange(
            count + 1, dtype=torch.int32, device=info.seqstart.device
        )
        device_starts = info.seqstart - shift
        paged = _GappySeqInfo(
            seqstart=device_starts,
            max_seqlen=info.max_seqlen,
            min_seqlen=info.min_seqlen,
            seqstart_py=[*starts, -1],
            seqlen=info.seqlen + device_starts[:-1],
            seqlen_py=[start + length for start, length in zip(starts, info.seqlen_py)],
        )
        return paged_type(
            q_seqinfo=self.q_seqinfo,
            k_seqinfo=paged,
            block_tables=block_tables,
            page_size=page_size,
        )

    def options(self) -> dict:
        starts, lengths = self.k_seqinfo.seqstart_py, self.k_seqinfo.seqlen_py
        in_order = starts[0] == 0 and all(
            begin + length <= following
            for begin, length, following in zip(starts, lengths, starts[1:])
        )
        if not in_order:  # packed sequences stand behind each other from 0 on
            return {"bias": self.visible(self.q_seqinfo.seqstart.device)[None, None]}
        gaps = max(following - begin for begin, following in zip(starts, starts[1:]))
        return {**super().options(), "key_lengths": self.k_seqinfo.seqlen, "max_seqlen_k": gaps}


@dataclass
class BlockDiagonalCausalWithOffsetGappyKeysMask(BlockDiagonalGappyKeysMask):
    """Each sequence causal from its bottom right."""

    def _band(self):
        return _band.CAUSAL_BOTTOM_RIGHT


@dataclass
class BlockDiagonalLocalAttentionFromBottomRightGappyKeysMask(BlockDiagonalGappyKeysMask):
    """Each sequence with a window around its diagonal, from its bottom right."""

    window_left: int
    window_right: int

    @classmethod
    def from_seqlens_local(
        cls, q_seqlen, kv_seqstarts, kv_seqlen, window_left, window_right, *, device=None
    ):
        plain = BlockDiagonalGappyKeysMask.from_seqlens(
            q_seqlen, kv_seqstarts, kv_seqlen, device=device
        )
        return cls(plain.q_seqinfo, plain.k_seqinfo, window_left, window_right)

    def _band(self):
        return _band.window(self.window_left, self.window_right)
