"""Triton kernels of a recording: compiled for each way in which their arguments may be special."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ._errors import TraceError
from ._recording import DTYPES, Descriptor, Launch, Recording, View
from ._symbols import Symbols
from ._writes import written

_MOST_I32 = (1 << 31) - 1
# As Triton spells them.
_TRITON = {"f32": "fp32", "f64": "fp64", "f16": "fp16", "bf16": "bf16", "bool": "i1", "f8e4m3": "fp8e4nv",
           "f8e5m2": "fp8e5"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a kernel is compiled: types, what is a constant, what is divisible by 16."""

    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: frozenset[str]
    options: tuple[tuple[str, Any], ...]


class Specialization:
    """Triton's rules, of one launch: integers that are 1 become constants, multiples of 16 and
    aligned pointers are known as such (triton.runtime.jit; docs of @triton.jit,
    do_not_specialize)."""

    def __init__(self, launch: Launch, recording: Recording, symbols: Symbols, name: str):
        self.launch, self.recording, self.symbols, self.name = launch, recording, symbols, name

    def example(self) -> Variant:
        """As the launch itself would be compiled."""
        return self._variant(always=False, wide=False)

    def general(self) -> list[Variant]:
        """Of what holds at all sizes; where an integer may pass 2^31, another that takes it."""
        found = [self._variant(always=True, wide=False)]
        wide = self._variant(always=True, wide=True)
        return found if wide == found[0] else [*found, wide]

    def _variant(self, always: bool, wide: bool) -> Variant:
        types, constants, divisible = [], [], set()
        for parameter in self.launch.function.params:
            value = self.launch.arguments[parameter.name]
            kind, constant, by16 = self._of(parameter, value, always, wide)
            types.append((parameter.name, kind))
            if kind == "constexpr":
                constants.append((parameter.name, constant))
            elif by16:
                divisible.add(parameter.name)
        options = tuple(sorted(self.launch.options.items(), key=lambda item: item[0]))
        return Variant(tuple(types), tuple(constants), frozenset(divisible), options)

    def _of(self, parameter, value, always: bool, wide: bool):
        """Type, constant, and whether 16 divides it."""
        if parameter.is_constexpr or value is None:
            return "constexpr", value, False
        declared = parameter.annotation_type
        specialize = not parameter.do_not_specialize
        align = specialize and not parameter.do_not_specialize_on_alignment
        if isinstance(value, View):
            kind = _TRITON.get(DTYPES[value.dtype], DTYPES[value.dtype])
            return (
                declared or f"*{'k' if parameter.is_const else ''}{kind}",
                None,
                align and self._aligned(value),
            )
        if isinstance(value, Descriptor):
            kind = DTYPES[value.view.dtype]
            return f"tensordesc<{_TRITON.get(kind, kind)}{value.block}>", None, False
        if isinstance(value, bool):
            return declared or "i1", None, False
        if isinstance(value, (float, torch.SymFloat)):
            return declared or "fp32", None, False
        if declared == "u1" or declared[:2] in ("fp", "bf"):
            specialize = align = False
        if isinstance(value, torch.SymInt):
            now = self.symbols.at_example(value)
            least, most = self.symbols.bounds(value.node.expr)
            by16 = self.symbols.divisor(value.node.expr) % 16 == 0 if always else now % 16 == 0
            if not always:
                least = most = now
            elif not wide:
                least, most = (now, now) if max(abs(least), most) > _MOST_I32 else (least, most)
        else:
            now = least = most = value
            by16 = value % 16 == 0
        if specialize and now == 1 and (not always or not isinstance(value, torch.SymInt)):
            return "constexpr", 1, False
        kind = "i32" if -_MOST_I32 - 1 <= least and most <= _MOST_I32 else "i64"
        return declared or kind, None, align and by16

    def _aligned(self, view: View) -> bool:
        """Whether its address is a multiple of 16, as it is if the storage's is what it is
        declared to be."""
        if self.recording.storages[view.storage].alignment % 16 != 0:
            return False
        return self.symbols.divisor(view.offset * view.dtype.itemsize) % 16 == 0


@dataclasses.dataclass
class Compiled:
    """A variant for one architecture: metadata, machine code, parameters that it writes to."""

    metadata: str
    cubin: bytes
    writes: set[str]


def compile_variant(name: str, function, variant: Variant, arch: int) -> Compiled:
    target = GPUTarget("cuda", arch, 32)
    positions = {parameter.name: parameter.num for parameter in function.params}
    source = ASTSource(
        fn=function,
        signature=dict(variant.types),
        constexprs={(positions[key],): value for key, value in variant.constants},
        attrs={(positions[key],): [["tt.divisibility", 16]] for key in variant.divisible},
    )
    backend = triton.compiler.make_backend(target)
    known = inspect.signature(type(backend.parse_options({}))).parameters
    for key, value in variant.options:
        if key not in known:
            raise TraceError(
                f"{name}: kernel {function.__name__} has no parameter and Triton no option {key} "
                f"= {value!r}"
            )
    try:
        options = backend.parse_options(dict(variant.options))
        kernel = triton.compile(source, target=target, options=options.__dict__)
    except Exception as error:
        raise TraceError(
            f"{name}: kernel {function.__name__} does not compile for sm_{arch} with "
            f"{dict(variant.types)}: {error}"
        ) from error
    metadata = {
        **kernel.metadata._asdict(),
        "target": dataclasses.asdict(target) if dataclasses.is_dataclass(target) else vars(target),
    }
    # Paths of this machine say nothing about the kernel.
    for key in ("extern_libs", "hash", "ir_override", "instrumentation_mode"):
        metadata.pop(key, None)
    text = json.dumps(metadata, sort_keys=True, default=str)
    return Compiled(text + "\n", kernel.asm["cubin"], written(kernel.asm.get("ttir", "")))


def identifier(text: str) -> str:
    """Letters, digits and _, as programs name kernels."""
    text = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:56]
    return text if text and text[0].isalpha() else f"k{text}"
