"""Recordings to a program's JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ._configurations import Configurations, Run
from ._errors import TraceError
from ._kernels import identifier
from ._program import Program
from ._recording import (
    DTYPES,
    Attention,
    Copy,
    Descriptor,
    Fill,
    Launch,
    View,
    is_row_major,
    row_major,
    same,
)


class Writer:
    """Runs at several examples make one program: they have the same steps, and each brings the
    configurations of kernels that its sizes ask for."""

    def __init__(
        self,
        name: str,
        runs: list[Run],
        scalars: dict[str, Any],
        archs: Callable[[], list[int]],
        names: dict[int, str],
    ):
        self.name, self.scalars = name, scalars
        self.kernels = Configurations(name, runs, archs)
        self.main = runs[0].recording
        self.symbols = runs[0].symbols
        self.names = names  # of constants, by address
        self.program: dict[str, Any] = {"attune_program": 1, "name": name}
        self.constants: dict[str, torch.Tensor] = {}
        self._taken = set(self.symbols.sizes) | set(scalars)
        self._declared: dict[int, str] = {}  # names of storages
        self._views: dict[tuple, str] = {}
        self._steps: list[dict] = []

    def write(self) -> Program:
        symbols, main = self.symbols, self.main
        self.program["sizes"] = {
            name: {
                "min": size.min,
                "max": size.max,
                **({"multiple_of": size.multiple_of} if size.multiple_of > 1 else {}),
            }
            for name, size in symbols.sizes.items()
            if name not in self.scalars
        }
        self._prefer_returned_shapes()
        inputs = {s.name: self._tensor(s) for s in main.storages if s.role == "input"}
        self._taken |= set(inputs) | set(main.outputs)
        for name in self.scalars:
            size = symbols.sizes.get(name)
            inputs[name] = (
                {"dtype": "f32"}
                if size is None
                else {
                    "dtype": "i64",
                    "min": size.min,
                    "max": size.max,
                    "multiple_of": size.multiple_of,
                }
            )
        for index, storage in enumerate(main.storages):
            if storage.role == "input":
                self._declared[index] = storage.name
        outputs, copies = self._outputs()
        self._used = self._storages_used()
        self._constants_and_temporaries()
        for at, step in enumerate(main.steps):
            self._step(at, step)
        for source, name, view in copies:
            shape = [symbols.text(e) for e in view.shape]
            self._steps.append({"copy": {"from": self._reference(source, shape), "to": name}})
        self.program["inputs"], self.program["outputs"] = inputs, outputs
        if self.constants:
            self.program["constants"] = {
                n: {"file": f"{self.name}.safetensors"} for n in self.constants
            }
        self.program["temporaries"] = self._temporaries
        self.program["kernels"], self.program["steps"] = self.kernels.entries, self._steps
        return Program(self.program, self.kernels.used_files(), self.constants, {})

    # ---- Tensors ------------------------------------------------------------------------------

    def _tensor(self, storage) -> dict:
        entry = {
            "dtype": DTYPES[storage.dtype],
            "shape": [self.symbols.text(e) for e in storage.shape],
        }
        if storage.strides is not None:
            entry["strides"] = [self.symbols.text(e) for e in storage.strides]
        if storage.role == "input" and storage.alignment != 16:
            entry["align"] = storage.alignment
        return entry

    def _whole(self, view: View) -> bool:
        """Whether a view is all of its storage, in a row."""
        storage = self.main.storages[view.storage]
        count = math.prod(view.shape) if view.shape else 1
        return (
            view.offset == 0
            and is_row_major(view.shape, view.strides)
            and same(count * view.dtype.itemsize, storage.nbytes)
        )

    def _prefer_returned_shapes(self) -> None:
        """A storage that is returned whole has the shape in which it is returned."""
        self._returned: dict[int, str] = {}
        for name, view in self.main.outputs.items():
            storage = self.main.storages[view.storage]
            if (
                storage.role == "temporary"
                and self._whole(view)
                and view.storage not in self._returned
            ):
                self._returned[view.storage] = name
                storage.shape, storage.dtype = view.shape, view.dtype

    def _outputs(self):
        """Their declarations, and those that have to be copied out: parts of something, inputs,
        things returned twice."""
        outputs, copies = {}, []
        for name, view in self.main.outputs.items():
            outputs[name] = {
                "dtype": DTYPES[view.dtype],
                "shape": [self.symbols.text(e) for e in view.shape],
            }
            if self._returned.get(view.storage) == name:
                self._declared[view.storage] = name
                continue
            if view.shape and view.strides[-1] != 1 and view.shape[-1] != 1:
                raise TraceError(
                    f"{self.name}: the output {name} has strides "
                    f"{[self.symbols.text(e) for e in view.strides]}; return it contiguous"
                )
            copies.append((view, name, view))
        return outputs, copies

    def _unique(self, base: str) -> str:
        base = identifier(base)
        name, n = base, 1
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name

    def _storages_used(self) -> dict[int, str]:
        """What steps use, and what they call it first."""
        used: dict[int, str] = {}
        self._lse_read = set()
        for step in self.main.steps:
            if isinstance(step, Launch):
                views = [
                    (f"{step.function.__name__}_{k}", v.view if isinstance(v, Descriptor) else v)
                    for k, v in step.arguments.items()
                ]
            elif isinstance(step, Attention):
                views = [(f"attention_{k}", v) for k, v in step.tensors.items() if k != "lse"]
            elif isinstance(step, Copy):
                views = [("copied", step.source), ("copy", step.target)]
            else:
                views = [("filled", step.target)]
            for name, view in views:
                if isinstance(view, View):
                    used.setdefault(view.storage, name)
        for name, view in self.main.outputs.items():
            used.setdefault(view.storage, name)
        return used

    def _constants_and_temporaries(self) -> None:
        self._temporaries: dict[str, dict] = {}
        for index, first in self._used.items():
            storage = self.main.storages[index]
            if index in self._declared:
                continue
            if storage.role == "constant":
                name = self._unique(self.names.get(storage.data.data_ptr(), first))
                self.constants[name] = storage.data
            else:
                name = self._unique(first)
                self._temporaries[name] = self._tensor(storage)
            self._declared[index] = name

    def _reference(self, view: View, shape=None) -> str:
        """The name of a tensor, or of a view of it that is declared now. Without `shape` only its
        address counts."""
        storage = self.main.storages[view.storage]
        base = self._declared[view.storage]
        if shape is None:
            if view.offset == 0 and view.dtype == storage.dtype:
                return base
            shape, strides = [], []
        else:
            strides = [self.symbols.text(e) for e in view.strides]
            wanted = storage.strides or row_major(storage.shape)
            plain = len(view.shape) == len(storage.shape) and all(
                same(a, b) for a, b in zip([*view.shape, *view.strides], [*storage.shape, *wanted])
            )
            if plain and view.offset == 0 and view.dtype == storage.dtype:
                return base
        offset = self.symbols.text(view.offset)
        key = (view.storage, view.dtype, str(shape), str(strides), offset)
        if key not in self._views:
            self._views[key] = self._unique(f"{base}_view" if offset == 0 else f"{base}_part")
            fields = {"of": base, "as": self._views[key], "shape": shape}
            if strides and not is_row_major(view.shape, view.strides):
                fields["strides"] = strides
            if offset != 0:
                fields["offset"] = offset
            if view.dtype != storage.dtype:
                fields["dtype"] = DTYPES[view.dtype]
            self._steps.append({"view": fields})
        return self._views[key]

    def _shaped(self, view: View) -> str:
        return self._reference(view, [self.symbols.text(e) for e in view.shape])

    # ---- Steps --------------------------------------------------------------------------------

    def _step(self, at: int, step) -> None:
        if isinstance(step, Launch):
            self._launch(at, step)
        elif isinstance(step, Attention):
            fields: dict[str, Any] = {"problem": step.words}
            for key, view in step.tensors.items():
                if key != "lse" or view.storage in self._used:
                    fields[key] = self._shaped(view)
            for key, value in step.numbers.items():
                fields[key] = value if isinstance(value, int) else self.symbols.text(value)
            self._steps.append({"attention": fields})
        elif isinstance(step, Copy):
            source, target = self._shaped(step.source), self._shaped(step.target)
            self._steps.append({"copy": {"from": source, "to": target}})
        elif isinstance(step, Fill):
            self._steps.append({"fill": {"tensor": self._shaped(step.target), "value": step.value}})

    def _value(self, value):
        """An argument that is no tensor."""
        if isinstance(value, torch.SymInt):
            return self.symbols.text(value.node.expr)
        if isinstance(value, torch.SymFloat):
            return self.symbols.scalar_name(value)
        return value

    def _launch(self, at: int, step: Launch) -> None:
        kernel = self.kernels.entry(at, step)
        constants = {p.name for p in step.function.params if p.is_constexpr}
        arguments = {}
        for name, value in step.arguments.items():
            if name in constants or value is None:
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise TraceError(
                    f"{self.name}: kernel {step.function.__name__}: argument {name} is {value}: "
                    "make it a constexpr"
                )
            if isinstance(value, Descriptor):
                arguments[name] = self._shaped(value.view)
            else:
                arguments[name] = (
                    self._reference(value) if isinstance(value, View) else self._value(value)
                )
        entry: dict[str, Any] = {"kernel": kernel, "arguments": arguments}
        if "grid" not in self.kernels.entries[kernel]["configurations"][0]:
            entry["grid"] = self.kernels.grid(step, self.symbols)
        self._steps.append(entry)
