"""Inputs that a function is traced with."""

from __future__ import annotations

from typing import Any

import torch

from ._symbols import Size


class Example:
    """Inputs of a call, and the sizes that they have."""

    def __init__(self, inputs: dict[str, Any], shapes: dict[str, tuple], sizes: dict[str, Size]):
        self.inputs, self.shapes = inputs, shapes
        self.values: dict[str, int] = {}
        self.sizes: dict[str, Size] = {}
        for name in shapes:
            if not isinstance(inputs.get(name), torch.Tensor):
                raise ValueError(
                    f"shapes has {name!r}, which is no tensor among the inputs {list(inputs)}"
                )
        for name, value in inputs.items():
            if isinstance(value, bool) or not isinstance(value, (torch.Tensor, int, float)):
                raise ValueError(
                    f"the input {name} is {value!r}; tensors, ints and floats are inputs, all "
                    "else goes into constants"
                )
            if isinstance(value, int):
                self._size(name, value, f"the input {name}", sizes)
            if not isinstance(value, torch.Tensor):
                continue
            shape = shapes.get(name, (None,) * value.dim())
            if len(shape) != value.dim():
                raise ValueError(
                    f"shapes[{name!r}] = {shape} is of {len(shape)} dimensions, and the example "
                    f"has {list(value.shape)}"
                )
            for axis, (word, extent) in enumerate(zip(shape, value.shape)):
                if isinstance(word, int) and word != extent:
                    raise ValueError(
                        f"shapes[{name!r}][{axis}] is {word}, and the example has {extent}"
                    )
                if isinstance(word, str):
                    self._size(word, extent, f"{name}'s dimension {axis}", sizes)
        for name in sizes:
            if name not in self.sizes:
                raise ValueError(
                    f"sizes has {name!r}, which is in no input's shape; known: {list(self.sizes)}"
                )

    def _size(self, name: str, value: int, what: str, sizes: dict[str, Size]) -> None:
        if not name.isidentifier():
            raise ValueError(f"{what}: {name!r} is no name of a size")
        size = self.sizes.setdefault(name, sizes.get(name, Size()))
        if self.values.setdefault(name, value) != value:
            raise ValueError(f"{what} is {value}, and {name} is {self.values[name]} elsewhere")
        if not size.holds(value):
            raise ValueError(f"{what} is {value}, which is not in {name}'s range, {size}")

    def kinds(self) -> dict[str, str]:
        return {
            n: f"{v.dtype}[{v.dim()}]" if isinstance(v, torch.Tensor) else type(v).__name__
            for n, v in self.inputs.items()
        }

    def scalars(self) -> dict[str, Any]:
        return {n: v for n, v in self.inputs.items() if not isinstance(v, torch.Tensor)}

    def on_gpu(self) -> bool:
        return all(v.is_cuda for v in self.inputs.values() if isinstance(v, torch.Tensor))
