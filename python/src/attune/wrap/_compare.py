"""Whether two runs of a function did the same."""

from __future__ import annotations

from typing import Any

import torch

from ._errors import TraceError
from ._recording import DTYPES, Attention, Copy, Descriptor, Launch, View


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

    def plain(run, value):
        is_symbolic = run is symbolic

        def number(e):
            return symbolic.symbols.evaluate(e, sizes) if is_symbolic else int(e)

        if isinstance(value, View):
            shape, strides = [number(e) for e in value.shape], [number(e) for e in value.strides]
            strides = [0 if extent <= 1 else stride for extent, stride in zip(shape, strides)]
            return (value.storage, value.dtype, *shape, *strides, number(value.offset))
        if isinstance(value, torch.SymInt):
            return symbolic.symbols.evaluate(value.node.expr, sizes)
        if isinstance(value, torch.SymFloat):
            return value.node.hint
        if hasattr(value, "free_symbols"):
            return number(value)
        return value

    where = ", ".join(f"{n} = {v}" for n, v in sizes.items()) or "a second run"
    _steps(name, where, (symbolic, concrete), plain)
    for index, (a, b) in enumerate(zip(symbolic.recording.storages, concrete.recording.storages)):
        said, found = symbolic.symbols.evaluate(a.nbytes, sizes), int(b.nbytes)
        if (
            (a.role, a.dtype) != (b.role, b.dtype)
            or said != found
            or (a.data is not None and a.data.shape != b.data.shape)
        ):
            raise TraceError(
                f"{name}: at {where} tensor {index} is {b.role} {DTYPES[b.dtype]} of {found} "
                "bytes, and the program says "
                f"{a.role} {DTYPES[a.dtype]} of {said}"
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
