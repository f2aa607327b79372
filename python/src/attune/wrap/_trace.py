"""trace(): a Python function of Triton kernels and attention becomes a program."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from . import _compare
from ._configurations import Run
from ._errors import TraceError
from ._example import Example
from ._kernels import identifier
from ._launches import Launches, taking
from ._program import Program
from ._recorder import Recorder
from ._recording import Launch
from ._symbols import Size, Symbols
from ._writer import Writer


def trace(
    function: Callable,
    inputs: dict[str, Any] | list[dict[str, Any]],
    *,
    shapes: dict[str, tuple] | None = None,
    sizes: dict[str, Size] | None = None,
    constants: dict[str, Any] | None = None,
    name: str | None = None,
    archs: list[str] | None = None,
) -> Program:
    """Records what `function(**inputs, **constants)` launches as a program for `attune wrap`.

    The function launches Triton kernels (`kernel[grid](...)`, also autotuned or with heuristics),
    calls attune.attention or attune.compat, allocates with torch.empty and its like, and takes
    views; copies and fills become steps too. Whatever else PyTorch would compute is refused by
    name, unless it depends on no input. It returns a tensor, or a tuple or dict of them: the
    program's outputs, "out", "out0", "out1" ... or the dict's keys.

    On a GPU the function first runs as it is: autotuners tune, and what comes out is kept for
    `attune wrap --check` (on the CPU too, where it launches no kernel). Then it runs on tensors
    without data whose sizes are symbols; grids and integer arguments become expressions over them.
    At last it runs at other sizes, the least and the largest among them, as plain numbers, and
    every launch has to be what the program says. A course that depends on the sizes is an error.

    Arguments:
        inputs: the program's inputs with an example of each: a tensor, or an int or float that
            calls bring. Several examples, in a list, make the program choose between what was
            tuned or specialised for each
        shapes: which sizes are open, by input: {"x": ("B", "S", None)}, None where the
            example's size is fixed
        sizes: their ranges: {"S": Size(max=8192)}; else 1 to 2^20. Also of integer inputs
        constants: the other arguments. Tensors that are no inputs become constants of the program,
            these with their names, those of a torch.nn.Module with theirs
        name: of the program; else the function's
        archs: what kernels are compiled for, ["sm_80", "sm_90"]; else the GPU that is here. Where
            there is none, autotuned kernels get their first configuration

    Errors: TraceError, which names the kernel and the argument, or PyTorch's operator; ValueError
    (inputs, shapes, sizes). Other threads may launch meanwhile; one trace runs at a time.
    """
    examples = [
        Example(given, shapes or {}, sizes or {})
        for given in (inputs if isinstance(inputs, list) else [inputs])
    ]
    name = identifier(name or getattr(function, "__name__", type(function).__name__))
    for example in examples[1:]:
        if example.kinds() != examples[0].kinds():
            raise ValueError(
                f"the examples are of unlike inputs: {examples[0].kinds()} and {example.kinds()}"
            )
    tracer = _Tracer(function, name, constants or {}, examples)
    on_gpu = torch.cuda.is_available() and examples[0].on_gpu()
    if on_gpu:
        tracer.run_for_real()
    runs = [tracer.run(example, example.values, symbolic=True) for example in examples]
    for run in runs[1:]:
        _compare.runs(name, runs[0], run)
    for run, example in zip(runs, examples):
        tracer.verify(run, example)
    if not on_gpu and not any(isinstance(step, Launch) for step in runs[0].recording.steps):
        tracer.run_for_real()
    writer = Writer(
        name, runs, examples[0].scalars(), lambda: _numbers(archs), tracer.constant_names()
    )
    program = writer.write()
    program.recording = tracer.recording
    return program


def _numbers(archs: list[str] | None) -> list[int]:
    if archs:
        return [int(arch.removeprefix("sm_").rstrip("af")) for arch in archs]
    if not torch.cuda.is_available():
        raise ValueError('there is no GPU here to compile for: say archs=["sm_90"]')
    major, minor = torch.cuda.get_device_capability()
    return [major * 10 + minor]


class _Tracer:
    def __init__(self, function, name: str, constants: dict[str, Any], examples: list[Example]):
        self.function, self.name, self.constants, self.examples = (
            function,
            name,
            constants,
            examples,
        )
        self.recording: dict[str, torch.Tensor] = {}
        self.ran = False

    def constant_names(self) -> dict[int, str]:
        """Names of constants that have one, by address."""
        return {tensor.data_ptr(): name for name, tensor in self._named().items()}

    def _named(self) -> dict[str, torch.Tensor]:
        named = {k: v for k, v in self.constants.items() if isinstance(v, torch.Tensor)}
        owner = getattr(self.function, "__self__", self.function)
        if isinstance(owner, torch.nn.Module):
            named |= dict(owner.named_parameters()) | dict(owner.named_buffers())
        return named

    def _outputs(self, returned) -> dict[str, torch.Tensor]:
        if isinstance(returned, torch.Tensor):
            returned = {"out": returned}
        elif isinstance(returned, (tuple, list)):
            returned = {f"out{i}": tensor for i, tensor in enumerate(returned)}
        if (
            not isinstance(returned, dict)
            or not returned
            or not all(isinstance(t, torch.Tensor) for t in returned.values())
        ):
            raise TraceError(
                f"{self.name} returned {returned!r}; a tensor, or a tuple or dict of them, was "
                "expected"
            )
        taken = set(self.examples[0].inputs) | set(self.examples[0].sizes)
        if both := taken & set(returned):
            raise TraceError(
                f"{self.name}: {both.pop()} is the name of an output and of an input or a size"
            )
        return returned

    def run_for_real(self) -> None:
        """At each example, so that autotuners have tuned; with what came out for --check."""
        for number, example in enumerate(self.examples):
            case = f"example{number}"
            given = {
                **self._named(),
                **{n: v for n, v in example.inputs.items() if isinstance(v, torch.Tensor)},
            }
            before = {name: tensor.detach().clone() for name, tensor in given.items()}
            with torch.no_grad():
                outputs = self._outputs(self.function(**example.inputs, **self.constants))
            for name, tensor in given.items():
                if not torch.equal(_bytes(tensor), _bytes(before[name])):
                    what = "input" if name in example.inputs else "constant"
                    raise TraceError(
                        f"{self.name} writes to its {what} {name}; a program leaves those alone"
                    )
            for name, value in example.inputs.items():
                if not isinstance(value, torch.Tensor):
                    dtype = torch.float32 if isinstance(value, float) else torch.int64
                    before[name] = torch.tensor(value, dtype=dtype)
                self.recording[f"{case}/{name}"] = before[name]
            for name, tensor in outputs.items():
                self.recording[f"{case}/{name}"] = tensor.clone()
        self.ran = True

    def run(self, example: Example, values: dict[str, int], symbolic: bool, tuned=None) -> Run:
        """On tensors without data, of symbolic sizes or of these."""
        symbols = Symbols(example.sizes, values, symbolic)
        mode = FakeTensorMode(shape_env=symbols.env, allow_non_fake_inputs=True)
        recorder = Recorder(self.name, symbols)
        launches = Launches(recorder, tuned, must_be_tuned=self.ran)
        with torch.no_grad(), mode:
            arguments = {n: self._fake(example, recorder, n, v) for n, v in example.inputs.items()}
            try:
                with recorder, taking(launches):
                    returned = self.function(**arguments, **self.constants)
            except TraceError:
                raise
            except Exception as error:
                where, said = (
                    _line(error, self.function),
                    str(error).partition("\nException raised")[0],
                )
                raise TraceError(
                    f"{self.name} fails{where} on tensors without data, sizes {values}: "
                    f"{type(error).__name__}: {said}"
                ) from error
            for name, tensor in self._outputs(returned).items():
                recorder.recording.outputs[name] = recorder.view(tensor)
            symbols.check_course(self.name)
        return Run(recorder.recording, symbols)

    def _fake(self, example: Example, recorder: Recorder, name: str, value):
        symbols = recorder.symbols
        if isinstance(value, int):
            return symbols.number(name)
        if isinstance(value, float):
            return symbols.scalar(name, value)
        words = example.shapes.get(name, (None,) * value.dim())
        shape = [
            symbols.number(w) if isinstance(w, str) else extent
            for w, extent in zip(words, value.shape)
        ]
        order = sorted(range(value.dim()), key=lambda axis: (-value.stride(axis), axis))
        strides, step = [0] * value.dim(), 1
        for axis in reversed(order):
            strides[axis] = step
            step = step * shape[axis]
        if not _dense(value, order):
            raise ValueError(
                f"the input {name} has gaps, strides {list(value.stride())}; give a contiguous "
                "example"
            )
        tensor = torch.empty_strided(shape, strides, dtype=value.dtype, device=value.device)
        address = value.data_ptr()
        recorder.add_input(name, tensor, min(16, address & -address) if address else 16)
        return tensor

    def verify(self, run: Run, example: Example) -> None:
        """The program says, at other sizes, what the function does there."""
        tuned = [
            step.tuned for step in run.recording.steps if isinstance(step, Launch) and step.tuned
        ]
        for values in _others(example):
            plain = self.run(example, values, symbolic=False, tuned=tuned)
            _compare.at_sizes(self.name, run, plain, values)


def _others(example: Example) -> list[dict[str, int]]:
    """Sizes that are not the example's: least, largest, odd ones between, and each one least by
    itself."""

    def value(name: str, part: float) -> int:
        size = example.sizes[name]
        lowest, highest = -(-size.min // size.multiple_of), size.most_units
        return int(lowest + (highest - lowest) * part) * size.multiple_of

    found = [{name: value(name, part) for name in example.sizes} for part in (0, 1, 0.37, 0.0137)]
    found += [{**example.values, name: value(name, 0)} for name in example.sizes]
    found.append(
        {n: min(v + example.sizes[n].multiple_of, value(n, 1)) for n, v in example.values.items()}
    )
    found.append(example.values)
    return [dict(items) for items in dict.fromkeys(tuple(sorted(sizes.items())) for sizes in found)]


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _dense(value: torch.Tensor, order: list[int]) -> bool:
    """Whether the strides are those of a row-major tensor whose dimensions were permuted."""
    step = 1
    for axis in reversed(order):
        if value.shape[axis] != 1 and value.stride(axis) != step:
            return False
        step *= value.shape[axis]
    return True


def _line(error: BaseException, function) -> str:
    """Where in the function's own file it was, innermost."""
    code = getattr(inspect.unwrap(getattr(function, "forward", function)), "__code__", None)
    found, at = "", error.__traceback__
    while at is not None:
        if code is not None and at.tb_frame.f_code.co_filename == code.co_filename:
            found = f" in line {at.tb_lineno} of {code.co_filename}"
        at = at.tb_next
    return found
