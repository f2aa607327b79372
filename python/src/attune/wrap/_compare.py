"""Whether two runs of a function did the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import sympy
import torch

from ._errors import TraceError
from ._recording import DTYPES, Attention, Copy, Descriptor, Launch, View, row_major


def runs(name: str, a, b) -> None:
    """At two examples, both symbolic: the same steps, but for what autotuners chose."""

    def plain(run, value):
        if isinstance(value, View):
            numbers = (*value.shape, *value.strides, value.offset)
            return (value.storage, value.dtype, *(run.symbols.text(e) for e in numbers))
        if isinstance(value, torch.SymInt):
            return run.symbols.text(value.node.expr)
        if isinstance(value, torch.SymFloat):
            return run.symbols.scalar_name(value)
        if hasattr(value, "free_symbols"):
            return run.symbols.text(value)
        return value

    _steps(name, "two examples", (a, b), plain)


def at_sizes(name: str, symbolic, concrete, sizes: dict[str, int]) -> None:
    """What a symbolic run says of these sizes, and what a run at them did."""
    where = ", ".join(f"{n} = {v}" for n, v in sizes.items()) or "a second run"
    _AtSizes(name, where, symbolic, concrete, sizes).compare()


class _AtSizes:
    """Storages of the two runs are counted as they are met: their own numbers differ where one run
    copies what the other has no need to."""

    def __init__(self, name: str, where: str, symbolic, concrete, sizes: dict[str, int]):
        self.name, self.where, self.sizes = name, where, sizes
        self.symbolic, self.concrete = symbolic, concrete
        self._met: dict[bool, dict[int, int]] = {True: {}, False: {}}  # by whether it is symbolic
        self._same_as: dict[int, View] = {}  # copies that were spared

    def compare(self) -> None:
        steps = []
        theirs = iter(self.concrete.recording.steps)
        their = next(theirs, None)
        for step in self.symbolic.recording.steps:
            if not isinstance(their, Copy) and self._is_spared(step):
                self._same_as[step.target.storage] = step.source
                continue
            steps.append(step)
            their = next(theirs, None)
        recording = dataclasses.replace(self.symbolic.recording, steps=steps)
        pair = (dataclasses.replace(self.symbolic, recording=recording), self.concrete)
        _steps(self.name, self.where, pair, lambda run, value: self._plain(run is pair[0], value))

    def _is_spared(self, step) -> bool:
        if not (isinstance(step, Copy) and step.spared):
            return False
        shape = [self._number(True, e) for e in step.source.shape]
        strides = [self._number(True, e) for e in step.source.strides]
        wanted = row_major([sympy.Integer(extent) for extent in shape])
        return all(n <= 1 or stride == want for n, stride, want in zip(shape, strides, wanted))

    def _number(self, symbolic: bool, expression) -> int:
        if symbolic:
            return self.symbolic.symbols.evaluate(expression, self.sizes)
        return int(expression)

    def _plain(self, symbolic: bool, value):
        if isinstance(value, View):
            return self._view(symbolic, value)
        if isinstance(value, torch.SymInt):
            return self.symbolic.symbols.evaluate(value.node.expr, self.sizes)
        if isinstance(value, torch.SymFloat):
            return value.node.hint
        if hasattr(value, "free_symbols"):
            return self._number(symbolic, value)
        return value

    def _view(self, symbolic: bool, view: View):
        shape = [self._number(symbolic, e) for e in view.shape]
        strides = [self._number(symbolic, e) for e in view.strides]
        strides = [0 if extent <= 1 else stride for extent, stride in zip(shape, strides)]
        storage, offset = view.storage, self._number(symbolic, view.offset)
        while symbolic and storage in self._same_as:
            source = self._same_as[storage]
            storage, offset = source.storage, offset + self._number(True, source.offset)
        return (self._paired(symbolic, storage), view.dtype, *shape, *strides, offset)

    def _paired(self, symbolic: bool, storage: int) -> int:
        """Storages in the order in which either run meets them."""
        met = self._met[symbolic]
        if storage not in met:
            met[storage] = len(met)
            if len(self._met[0]) == len(self._met[1]):
                self._same_memory(list(self._met[True])[-1], list(self._met[False])[-1])
        return met[storage]

    def _same_memory(self, ours: int, theirs: int) -> None:
        a = self.symbolic.recording.storages[ours]
        b = self.concrete.recording.storages[theirs]
        said, found = self._number(True, a.nbytes), int(b.nbytes)
        same_data = a.data is None or (b.data is not None and a.data.shape == b.data.shape)
        if (a.role, a.dtype, said) != (b.role, b.dtype, found) or not same_data:
            raise TraceError(
                f"{self.name}: at {self.where} a tensor is {b.role} {DTYPES[b.dtype]} of {found} "
                "bytes, and the program "
                f"says {a.role} {DTYPES[a.dtype]} of {said}"
            )


def _steps(name: str, where: str, pair, plain) -> None:
    first, second = (run.recording for run in pair)
    kinds = [[_title(step) for step in run.recording.steps] for run in pair]
    if kinds[0] != kinds[1]:
        at = next((i for i, (a, b) in enumerate(zip(*kinds)) if a != b), min(len(k) for k in kinds))
        one, other = (k[at] if at < len(k) else "nothing" for k in kinds)
        raise TraceError(
            f"{name}: its steps depend on the sizes: at {where}, step {at} is {other}, and {one} "
            "elsewhere. Trace a program for each"
        )
    for at, (a, b) in enumerate(zip(first.steps, second.steps)):
        for (what, x), (_, y) in zip(_fields(a, b), _fields(b, a)):
            said, found = plain(pair[0], x), plain(pair[1], y)
            if said != found:
                raise TraceError(
                    f"{name}: step {at}, {_title(a)}: {what} is {_short(found)} at {where}, and "
                    f"the program would say {_short(said)}: it "
                    "depends on the sizes in a way that was not seen (through int(), a cache, a "
                    "list?)"
                )
    for key in first.outputs.keys() | second.outputs.keys():
        said, found = (
            r.outputs.get(key) and plain(run, r.outputs[key])
            for r, run in zip((first, second), pair)
        )
        if said != found:
            raise TraceError(
                f"{name}: the output {key} is {_short(found)} at {where}, and the program would "
                f"say {_short(said)}"
            )


def _title(step) -> str:
    return (
        f"kernel {step.function.__name__}"
        if isinstance(step, Launch)
        else type(step).__name__.lower()
    )


def _fields(step, other) -> list[tuple[str, Any]]:
    """What has to be the same, with what it is called."""
    if isinstance(step, Launch):
        chosen = set(step.tuned) if step.tuned != other.tuned else set()
        found = [
            (f"argument {k}", _address(v)) for k, v in step.arguments.items() if k not in chosen
        ]
        found += [(f"argument {k}'s block", v.block) for k, v in step.arguments.items()
                  if isinstance(v, Descriptor) and not chosen]  # fmt: skip
        if not chosen:
            found += [(f"grid[{axis}]", extent) for axis, extent in enumerate(step.grid)]
        return found + [(k, v) for k, v in sorted(step.options.items()) if k not in chosen]
    if isinstance(step, Attention):
        numbers = sorted(step.numbers.items())
        return [("the problem", step.words), *sorted(step.tensors.items()), *numbers]
    if isinstance(step, Copy):
        return [("the source", step.source), ("the target", step.target)]
    return [("the tensor", step.target), ("the value", step.value)]


def _address(value):
    """Of a kernel's tensors only the address counts, of descriptors all."""
    if isinstance(value, Descriptor):
        return value.view
    return (
        View(value.storage, value.dtype, [], [], value.offset) if isinstance(value, View) else value
    )


def _short(value) -> str:
    return str(value)[:200]
