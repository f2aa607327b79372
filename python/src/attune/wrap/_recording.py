"""What a run of the function did: storages, views of them, and steps in order. Plain data; numbers
are sympy's."""

from __future__ import annotations

import dataclasses
from typing import Any

import sympy
import torch

DTYPES = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.bool: "bool",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
    torch.uint16: "u16",
    torch.uint32: "u32",
    torch.uint64: "u64",
    torch.float8_e4m3fn: "f8e4m3",
    torch.float8_e5m2: "f8e5m2",
}
# Of temporaries, constants and outputs that the program makes.
STORAGE_ALIGNMENT = 256


@dataclasses.dataclass
class Storage:
    """Memory: an input's, a constant's, or what the function allocated."""

    role: str  # "input", "constant" or "temporary"; outputs are temporaries that are returned
    dtype: torch.dtype
    shape: list[sympy.Expr]  # row-major
    nbytes: sympy.Expr
    strides: list[sympy.Expr] | None = None  # of an input that is not row-major
    name: str = ""
    alignment: int = STORAGE_ALIGNMENT
    data: torch.Tensor | None = None  # of a constant


@dataclasses.dataclass
class View:
    """A tensor: where it lies in a storage, in its own elements."""

    storage: int
    dtype: torch.dtype
    shape: list[sympy.Expr]
    strides: list[sympy.Expr]
    offset: sympy.Expr


@dataclasses.dataclass
class Descriptor:
    """Triton's TensorDescriptor: a tensor that a kernel reads and writes in blocks."""

    view: View
    block: list[int]


@dataclasses.dataclass
class Launch:
    function: Any  # triton's JITFunction
    arguments: dict[str, Any]  # View, Descriptor, SymInt, SymFloat, or plain, in order
    options: dict[str, Any]  # num_warps and so on
    grid: list[Any]
    tuned: dict[str, Any]  # the arguments and options that an autotuner chose
    keys: tuple[str, ...]  # arguments by which it chose


@dataclasses.dataclass
class Attention:
    words: str
    tensors: dict[str, View]
    numbers: dict[str, Any]  # dropout_seed, max_seqlen_q ...


@dataclasses.dataclass
class Copy:
    source: View
    target: View
    # By contiguous() or reshape(), which copy nothing where the source is contiguous already.
    spared: bool = False


@dataclasses.dataclass
class Fill:
    target: View
    value: float


@dataclasses.dataclass
class Recording:
    storages: list[Storage] = dataclasses.field(default_factory=list)
    steps: list[Launch | Attention | Copy | Fill] = dataclasses.field(default_factory=list)
    outputs: dict[str, View] = dataclasses.field(default_factory=dict)


def row_major(shape: list[sympy.Expr]) -> list[sympy.Expr]:
    strides = [sympy.Integer(1)] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = sympy.expand(strides[axis + 1] * shape[axis + 1])
    return strides


def same(a, b) -> bool:
    return sympy.expand(a - b) == 0


def is_row_major(shape, strides) -> bool:
    return all(
        same(stride, wanted) or extent == 1
        for extent, stride, wanted in zip(shape, strides, row_major(shape))
    )
