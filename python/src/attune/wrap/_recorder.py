"""Watches PyTorch while a function runs on tensors without data: allocations and views are
followed, copies and fills become steps, and what PyTorch would compute is refused."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from . import _attention
from ._errors import TraceError
from ._recording import DTYPES, Copy, Fill, Recording, Storage, View, is_row_major
from ._symbols import Symbols

aten = torch.ops.aten

_ALLOCATIONS = {aten.empty, aten.empty_like, aten.empty_strided, aten.empty_permuted, aten.new_empty,
                aten.new_empty_strided}  # fmt: skip
_ZEROS = {aten.zeros, aten.zeros_like, aten.new_zeros}
_ONES = {aten.ones, aten.ones_like, aten.new_ones}
_FULL = {aten.full: 1, aten.full_like: 1, aten.new_full: 2}  # where the value stands
_READS_DATA = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.item}


class Recorder(TorchDispatchMode):
    """One run. It has to lie above the FakeTensorMode whose tensors the function gets."""

    def __init__(self, name: str, symbols: Symbols):
        super().__init__()
        self.name = name
        self.symbols = symbols
        self.recording = Recording()
        self._of_storage: dict[int, int] = {}
        self._alive: list[Any] = []  # addresses of what was seen stay theirs

    # ---- Tensors ------------------------------------------------------------------------------

    def numbers(self, values) -> list[sympy.Expr]:
        # A stride may be Max(1, S); where S is 0 it does not matter.
        return [_without_max(self.symbols.expression(v)) for v in values]

    def _key(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        self._alive.append(tensor)
        if isinstance(tensor, FakeTensor):  # it has no address that anybody could ask for
            torch._C._set_throw_on_mutable_data_ptr(tensor)
        return storage._cdata if isinstance(tensor, FakeTensor) else -storage.data_ptr()

    def _dtype(self, tensor) -> torch.dtype:
        if tensor.dtype not in DTYPES:
            raise TraceError(f"{self.name}: a program has no {tensor.dtype}")
        return tensor.dtype

    def _add(self, tensor: torch.Tensor, role: str, **fields) -> int:
        """A storage, of which this is the first tensor that was seen."""
        shape, strides = self.numbers(tensor.shape), self.numbers(tensor.stride())
        order = sorted(
            range(len(shape)),
            key=lambda a: -self.symbols.evaluate(strides[a], self.symbols.example),
        )
        size = sympy.Integer(tensor.element_size())
        nbytes = self.numbers([tensor.untyped_storage().nbytes()])[0]
        if role != "input":
            permuted = [shape[a] for a in order]
            whole = sympy.expand(sympy.prod(shape) * size - nbytes) == 0
            if whole and is_row_major(shape, strides):
                pass
            elif whole and is_row_major(permuted, [strides[a] for a in order]):
                shape = permuted
            else:
                shape = [sympy.cancel(nbytes / size)]
        fields.setdefault("nbytes", nbytes)
        self.recording.storages.append(Storage(role, self._dtype(tensor), shape, **fields))
        index = len(self.recording.storages) - 1
        self._of_storage[self._key(tensor)] = index
        return index

    def add_input(self, name: str, tensor: torch.Tensor, alignment: int) -> None:
        shape, strides = self.numbers(tensor.shape), self.numbers(tensor.stride())
        plain = is_row_major(shape, strides)
        self._add(
            tensor, "input", name=name, alignment=alignment, strides=None if plain else strides
        )

    def _constant(self, tensor: torch.Tensor) -> int:
        with unset_fake_temporarily():
            whole = tensor if _covers_storage(tensor) else tensor._base
            if whole is None or not _covers_storage(whole):
                count = tensor.untyped_storage().nbytes() // tensor.element_size()
                whole = torch.as_strided(tensor.detach(), (count,), (1,), 0)
            return self._add(whole, "constant", data=whole.detach())

    def view(self, tensor: torch.Tensor) -> View:
        """Where a tensor lies; one with data is a constant."""
        index = self._of_storage.get(self._key(tensor))
        if index is None:
            if isinstance(tensor, FakeTensor):
                raise TraceError(f"{self.name}: a tensor of {list(tensor.shape)} came from nowhere")
            index = self._constant(tensor)
        storage = self.recording.storages[index]
        dtype = self._dtype(tensor)
        if dtype.itemsize != storage.dtype.itemsize:
            raise TraceError(
                f"{self.name}: {list(tensor.shape)} is a view as {dtype} of {storage.dtype}, "
                "whose elements have "
                "another size: a program has no such view"
            )
        shape, strides = self.numbers(tensor.shape), self.numbers(tensor.stride())
        return View(index, dtype, shape, strides, self.numbers([tensor.storage_offset()])[0])

    # ---- Steps --------------------------------------------------------------------------------

    def writable(self, view: View, by: str) -> View:
        storage = self.recording.storages[view.storage]
        if storage.role != "temporary":
            which = f"the input {storage.name}" if storage.role == "input" else "a constant"
            raise TraceError(
                f"{self.name}: {by} writes to {which}; a program only writes to what it allocates"
            )
        return view

    def _fill(self, tensor, value, by: str) -> None:
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.Tensor)):
            raise TraceError(
                f"{self.name}: {by}: {value} depends on the sizes or on tensors; a program fills "
                "with numbers"
            )
        view = self.writable(self.view(tensor), by)
        if not is_row_major(view.shape, view.strides):
            raise TraceError(
                f"{self.name}: {by} fills a tensor with gaps, strides {view.strides}; a program "
                "fills whole ones"
            )
        self.recording.steps.append(Fill(view, float(value)))

    def _copy(self, source, target, by: str) -> None:
        if not isinstance(source, torch.Tensor) or source.dtype != target.dtype:
            raise TraceError(
                f"{self.name}: {by} converts to {target.dtype}; a program copies without: convert "
                "in a kernel"
            )
        if source.shape != target.shape:
            source = source.expand(target.shape)
        a, b = self.view(source), self.writable(self.view(target), by)
        for view in (a, b):
            if view.shape and view.strides[-1] != 1 and view.shape[-1] != 1:
                raise TraceError(
                    f"{self.name}: {by} copies between strides {list(source.stride())} and "
                    f"{list(target.stride())}; a program copies rows of neighbours: do it in a "
                    "kernel"
                )
        self.recording.steps.append(Copy(a, b))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "attune":
            return self._attention(func, args, kwargs)
        tensors = [
            t for t in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(t, torch.Tensor)
        ]
        packet, name = func.overloadpacket, str(func)
        fresh = packet in _ALLOCATIONS or packet in _ZEROS or packet in _ONES or packet in _FULL
        if packet in _READS_DATA and any(isinstance(t, FakeTensor) for t in tensors):
            raise TraceError(
                f"{self.name}: {name} reads a tensor's values, which a program cannot branch on"
            )
        if (
            not fresh
            and not any(isinstance(t, FakeTensor) for t in tensors)
            and func.namespace == "aten"
        ):
            return self._of_constants(func, args, kwargs)
        if packet in (aten.fill_, aten.zero_):
            self._fill(args[0], args[1] if packet is aten.fill_ else 0.0, name)
            return args[0]
        if packet is aten.copy_:
            self._copy(args[1], args[0], name)
            return args[0]
        if packet in (aten.clone, aten._to_copy):
            result = func(*args, **kwargs)
            self._add(result, "temporary")
            self._copy(args[0], result, name)
            self.recording.steps[-1].spared = packet is aten.clone
            return result
        if fresh:
            result = func(*args, **kwargs)
            self._add(result, "temporary")
            if packet not in _ALLOCATIONS:
                at = _FULL.get(packet)
                value = 0.0 if packet in _ZEROS else 1.0 if packet in _ONES else args[at]
                self._fill(result, value, name)
            return result
        if func._schema.is_mutable:
            raise self._refused(name, tensors)
        result = func(*args, **kwargs)
        for leaf in pytree.tree_leaves(result):
            # A view of what is known; or a number.
            if isinstance(leaf, torch.Tensor) and self._key(leaf) not in self._of_storage:
                raise self._refused(name, tensors)
        return result

    def _refused(self, operator: str, tensors) -> TraceError:
        def text(tensor):
            shape = (str(self.symbols.text(e)) for e in self.numbers(tensor.shape))
            return f"{DTYPES.get(tensor.dtype, tensor.dtype)}[{', '.join(shape)}]"

        of = ", ".join(text(tensor) for tensor in tensors)
        return TraceError(
            f"{self.name}: PyTorch would compute {operator}({of}), and a program has no PyTorch: "
            "compute it in a "
            "kernel, or before tracing if it depends on no input"
        )

    def _of_constants(self, func, args, kwargs):
        """What depends on no input is computed once, now."""
        leaves = pytree.arg_tree_leaves(*args, **kwargs)
        if any(isinstance(leaf, (torch.SymInt, torch.SymFloat)) for leaf in leaves):
            raise TraceError(
                f"{self.name}: {func} makes a tensor whose values or shape depend on the sizes: "
                "make it in a kernel, "
                "or give it as an input"
            )
        if func._schema.is_mutable:
            raise TraceError(f"{self.name}: {func} writes to a constant; do so before tracing")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise TraceError(
                f"{self.name}: {func} draws random numbers, which a program would keep: give them "
                "as an input"
            )
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _attention(self, func, args, kwargs):
        if func.overloadpacket not in (torch.ops.attune.attention, torch.ops.attune.attention_out):
            raise TraceError(
                f"{self.name}: {func} is recorded by no program: trace the forward pass, without "
                "gradients"
            )
        result = func(*args, **kwargs)
        if result is not None:
            for tensor in result:
                self._add(tensor, "temporary")
            places, rest = result, args[3:]
        else:
            places, rest = args[3:5], args[5:]
        self.recording.steps.append(_attention.step(self, args[:3], places, rest))
        return result


def _covers_storage(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes()


def _without_max(expression: sympy.Expr) -> sympy.Expr:
    """max(1, S) of a size that is 1 or more is S."""
    return expression.replace(
        lambda e: type(e).__name__ == "Max" and len(e.args) == 2 and 1 in e.args,
        lambda e: next(a for a in e.args if a != 1),
    )
