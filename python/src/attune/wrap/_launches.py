"""Triton's launches while a function is traced: each `kernel[grid](...)` of the tracing thread is
written down and not launched. Launches of other threads go on."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import torch
import triton
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from ._errors import TraceError
from ._recorder import Recorder
from ._recording import Descriptor, Launch, View

_tracing = threading.RLock()
_of_thread = threading.local()


class Launches:
    """What takes launches in place of Triton, for one run of the function."""

    def __init__(self, recorder: Recorder, tuned: list[dict] | None = None, must_be_tuned=False):
        self.recorder = recorder
        self._given = None if tuned is None else iter(tuned)  # what autotuners chose in another run
        self._must_be_tuned = must_be_tuned
        self._tuner: tuple[dict, tuple] | None = None

    def launch(self, function: JITFunction, args, grid, options: dict[str, Any]):
        name = self._name(function)
        if function.is_gluon():
            raise TraceError(
                f"{name} is written in Gluon; only kernels of @triton.jit are recorded"
            )
        for hook in function.pre_run_hooks:
            hook(*args, **options)
        names = set(function.arg_names)
        given = {key: value for key, value in options.items() if key in names}
        try:
            bound = function.signature.bind(*args, **given)
        except TypeError as error:
            raise TraceError(f"{name}: {error}") from None
        bound.apply_defaults()
        if callable(grid):
            grid = grid(dict(bound.arguments))
        grid = [_plain(extent) for extent in grid]
        for extent in grid:
            if not isinstance(extent, (int, torch.SymInt)):
                raise TraceError(
                    f"{name}: its grid {grid} has {extent!r}, which is no whole number"
                )
        arguments = {
            parameter.name: self._argument(name, parameter, _plain(value))
            for parameter, value in zip(function.params, bound.arguments.values())
        }
        tuned, keys = self._tuner or ({}, ())
        rest = {key: value for key, value in options.items() if key not in names}
        grid = (grid + [1, 1])[:3]
        self.recorder.recording.steps.append(Launch(function, arguments, rest, grid, tuned, keys))

    def _name(self, function) -> str:
        return f"{self.recorder.name}: kernel {function.__name__}"

    def _argument(self, name: str, parameter, value):
        where = f"{name}: argument {parameter.name}"
        if isinstance(value, torch.Tensor):
            if parameter.is_constexpr:
                raise TraceError(f"{where} is a tensor, and the kernel declares a constexpr")
            return self.recorder.view(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat)):
            if parameter.is_constexpr:
                raise TraceError(
                    f"{where} is a constexpr and depends on the sizes: {value}. The kernel is "
                    "compiled for one value: make "
                    "it an ordinary parameter, or leave the size out of `shapes`"
                )
            if (
                isinstance(value, torch.SymFloat)
                and self.recorder.symbols.scalar_name(value) is None
            ):
                raise TraceError(
                    f"{where} is {value}, computed from sizes or scalars; a program passes floats "
                    "on as they come"
                )
            return value
        if isinstance(value, TensorDescriptor):
            return self._descriptor(where, value)
        if value is None or parameter.is_constexpr or isinstance(value, (bool, int, float)):
            return value
        raise TraceError(f"{where} is {type(value).__name__}, which a program has no way to pass")

    def _descriptor(self, where: str, value: TensorDescriptor) -> Descriptor:
        if value.padding != "zero":
            raise TraceError(f"{where} is padded with {value.padding}; a program pads with zero")
        base, recorder = self.recorder.view(value.base), self.recorder
        shape, strides = recorder.numbers(value.shape), recorder.numbers(value.strides)
        view = View(base.storage, base.dtype, shape, strides, base.offset)
        return Descriptor(view, [int(extent) for extent in value.block_shape])

    def choose(self, tuner: Autotuner, args, options: dict[str, Any]) -> Any:
        """The configuration that an autotuner has found for such arguments."""
        named = {**dict(zip(tuner.arg_names, args)), **options}
        known = {key: value for key, value in named.items() if key in tuner.arg_names}
        key = [self.recorder.symbols.at_example(known[k]) for k in tuner.keys if k in known]
        key += [str(value.dtype) for value in known.values() if hasattr(value, "dtype")]
        if self._given is not None:
            wanted = next(self._given)
            return next(c for c in tuner.configs if c.all_kwargs() == wanted)
        found = tuner.configs[0] if len(tuner.configs) == 1 else tuner.cache.get(tuple(key))
        if found is None and self._must_be_tuned:
            raise TraceError(
                f"{self._name(tuner.base_fn)} was not tuned for {dict(zip(tuner.keys, key))} by "
                "the run before"
            )
        if found is None:
            tuner.nargs = {
                k: self.recorder.symbols.at_example(v) for k, v in zip(tuner.arg_names, args)
            }
            found = tuner.prune_configs(options)[0]
        return found

    def run_tuned(self, tuner: Autotuner, args, options: dict[str, Any]):
        config = self.choose(tuner, args, options)
        chosen = config.all_kwargs()
        tuner.nargs = dict(zip(tuner.arg_names, args))
        if config.pre_hook is not None:
            config.pre_hook({**tuner.nargs, **options, **chosen})
        before, self._tuner = self._tuner, (chosen, tuple(tuner.keys))
        try:
            return tuner.fn.run(*args, **options, **chosen)
        finally:
            self._tuner = before
            tuner.nargs = None


def _plain(value):
    """Without Triton's wrapping; a condition over sizes as the truth that it is at all of them, or
    that is found not to be one in the end."""
    if isinstance(value, triton.language.constexpr):
        value = value.value
    if isinstance(value, torch.SymBool):
        return bool(value)
    if isinstance(value, torch.SymInt) and value.node.expr.is_Integer:
        return int(value.node.expr)
    return value


@contextlib.contextmanager
def taking(launches: Launches):
    """Within, the thread's launches go to `launches`."""
    run, tune = JITFunction.run, Autotuner.run

    def taken_run(self, *args, grid, warmup, **options):
        taker = getattr(_of_thread, "launches", None)
        if taker is None or warmup:
            return run(self, *args, grid=grid, warmup=warmup, **options)
        return taker.launch(self, args, grid, options)

    def taken_tune(self, *args, **options):
        taker = getattr(_of_thread, "launches", None)
        if taker is None or options.get("warmup"):
            return tune(self, *args, **options)
        return taker.run_tuned(self, args, options)

    with _tracing:
        JITFunction.run, Autotuner.run = taken_run, taken_tune
        _of_thread.launches = launches
        try:
            yield
        finally:
            _of_thread.launches = None
            JITFunction.run, Autotuner.run = run, tune
