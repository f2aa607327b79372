"""Where sequences lie in a packed dimension. Each number stands twice: on the device, for kernels,
and in a list, for whoever makes masks or splits tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


def default_device(device=None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _int32(values, device) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.int32, device=device)


def _check_update(
    what: str, old: Sequence[int], new: Sequence[int], longest: int, most: int
) -> None:
    if len(old) != len(new):
        raise ValueError(f"{what}: {len(new)} sequences can't replace {len(old)}")
    if longest > most:
        raise ValueError(f"{what}: a sequence of {longest} is longer than max_seqlen = {most}")


@dataclass
class _SeqLenInfo:
    """Sequences behind each other: lengths 2, 3, 2 start at 0, 2, 5 and end at 7."""

    seqstart: torch.Tensor  # int32 [sequences + 1]
    max_seqlen: int
    min_seqlen: int
    seqstart_py: list[int]

    @classmethod
    def from_seqlens(cls, seqlens: Iterable[int], *, device=None) -> _SeqLenInfo:
        lengths = list(seqlens)
        starts = cls._starts(lengths)
        return cls(
            seqstart=_int32(starts, default_device(device)),
            max_seqlen=max(lengths, default=-1),
            min_seqlen=min(lengths, default=-1),
            seqstart_py=starts,
        )

    @staticmethod
    def _starts(lengths: Sequence[int]) -> list[int]:
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        return starts

    def from_seqlens_inplace(self, seqlens: Iterable[int]) -> None:
        """Other lengths, as many and none above max_seqlen, in the same memory: for CUDA graphs."""
        lengths = list(seqlens)
        starts = self._starts(lengths)
        longest = max(lengths, default=-1)
        _check_update("from_seqlens_inplace", self.seqstart_py, starts, longest, self.max_seqlen)
        self.seqstart_py[:] = starts
        self.seqstart.copy_(torch.tensor(starts, dtype=torch.int32), non_blocking=True)

    def to(self, device):
        moved = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in vars(self).items()
        }
        return type(self)(**moved)

    def intervals(self) -> Iterable[tuple[int, int]]:
        """(begin, end) of each sequence's own tokens."""
        yield from zip(self.seqstart_py, self.seqstart_py[1:])

    def split(
        self, x: torch.Tensor, batch_sizes: Sequence[int] | None = None
    ) -> list[torch.Tensor]:
        """[1, total, ...] into tensors [batch size, length, ...]."""
        total = self.seqstart_py[-1]
        if x.shape[0] != 1 or x.shape[1] != total:
            raise ValueError(
                f"a tensor of shape {tuple(x.shape)} can't be split; it takes [1, {total}, ...]"
            )
        sizes = [1] * (len(self.seqstart_py) - 1) if batch_sizes is None else list(batch_sizes)
        ends, first = [], 0
        for size in sizes:
            first += size
            ends.append(self.seqstart_py[first])
        begins = [0, *ends[:-1]]
        parts = x.split([end - begin for begin, end in zip(begins, ends)], dim=1)
        return [part.reshape(size, -1, *x.shape[2:]) for size, part in zip(sizes, parts)]


@dataclass
class _PaddedSeqLenInfo(_SeqLenInfo):
    """Sequences in places of `padding` tokens each."""

    seqlen: torch.Tensor  # int32 [sequences]
    seqlen_py: list[int]
    padding: int

    @classmethod
    def from_seqlens(cls, seqlens, *, device=None):
        raise RuntimeError("from_seqlens_padded() makes a _PaddedSeqLenInfo")

    @classmethod
    def from_seqlens_padded(cls, seqlens: Sequence[int], padding: int, *, device=None):
        lengths = list(seqlens)
        cls._check_padding(lengths, padding)
        starts = [n * padding for n in range(len(lengths) + 1)]
        device = default_device(device)
        return cls(
            seqstart=_int32(starts, device),
            max_seqlen=max(lengths),
            min_seqlen=min(lengths),
            seqstart_py=starts,
            seqlen=_int32(lengths, device),
            seqlen_py=lengths,
            padding=padding,
        )

    @staticmethod
    def _check_padding(lengths: Sequence[int], padding: int) -> None:
        if max(lengths) > padding:
            raise ValueError(
                f"a sequence of {max(lengths)} keys is longer than the padding, {padding}"
            )

    def from_seqlens_padded_inplace(self, seqlens: Sequence[int]) -> None:
        """As from_seqlens_inplace()."""
        lengths = list(seqlens)
        self._check_padding(lengths, self.padding)
        _check_update(
            "from_seqlens_padded_inplace", self.seqlen_py, lengths, max(lengths), self.max_seqlen
        )
        self.seqlen_py[:] = lengths
        self.seqlen.copy_(torch.tensor(lengths, dtype=torch.int32), non_blocking=True)

    def intervals(self):
        for begin, length in zip(self.seqstart_py, self.seqlen_py):
            yield begin, begin + length

    def split(self, x, batch_sizes=None):
        raise NotImplementedError("keys with padding between them are not split")


@dataclass
class _GappySeqInfo(_SeqLenInfo):
    """Sequences anywhere: each begins at seqstart and has seqlen tokens; the last of seqstart is the
    dimension's end. For paged keys, seqstart counts in each sequence's own pages, its last element
    means nothing, and seqlen is where the sequence ends there."""

    seqlen: torch.Tensor  # int32 [sequences]
    seqlen_py: list[int]

    @classmethod
    def from_seqlens(cls, seqlens, *, device=None):
        raise NotImplementedError("from_seqlens_gappy() makes a _GappySeqInfo")

    @classmethod
    def from_seqlens_gappy(
        cls, seqstarts: Sequence[int], seqlens: Sequence[int], paged: bool, *, device=None
    ):
        starts, lengths = list(seqstarts), list(seqlens)
        if not lengths:
            raise ValueError("there are no sequences")
        if len(starts) != len(lengths) + (0 if paged else 1):
            raise ValueError(
                f"{len(starts)} starts do not fit {len(lengths)} lengths: there is one for each"
                + ("" if paged else ", and the end")
            )
        longest, shortest = max(lengths), min(lengths)
        if paged:
            lengths = [start + length for start, length in zip(starts, lengths)]
            starts.append(-1)
        device = default_device(device)
        return cls(
            seqstart=_int32(starts, device),
            max_seqlen=longest,
            min_seqlen=shortest,
            seqstart_py=starts,
            seqlen=_int32(lengths, device),
            seqlen_py=lengths,
        )

    def intervals(self):
        for begin, length in zip(self.seqstart_py, self.seqlen_py):
            yield begin, begin + length

    def split(self, x, batch_sizes=None):
        raise NotImplementedError("keys with gaps between them are not split")
