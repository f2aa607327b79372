"""attention() on PyTorch tensors: straight into attune._core where nothing else looks on, through
the operators of attune._torch_ops where autograd, torch.compile, vmap or a mode does."""

from __future__ import annotations

import torch

from . import _core, _options, _torch_ops

_Tensor = torch.Tensor
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_is_autocast_enabled = torch._C._is_any_autocast_enabled
_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_PLAIN = _options.pack()


def dropout_state(device: torch.device) -> torch.Tensor:
    """int64 [2], (seed, offset), drawn from PyTorch's generator of the device. It stays there: a
    CUDA graph draws a new one on each replay, and checkpointing draws the same one again."""
    return torch.randint(0, 2**62, (2,), dtype=torch.int64, device=device)


def autocast(tensors: tuple, device: torch.device) -> tuple:
    """q, k, v in autocast's dtype, where it is on: as PyTorch's own attention."""
    kind = device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(
        t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors
    )


def is_eager(q, k, v) -> bool:
    """Whether nobody but autograd looks on, so that a call may go past PyTorch's dispatcher.
    (Subclasses, such as parameters and fake tensors, go through it.)"""
    return (
        not _is_compiling()
        and type(q) is _Tensor
        and type(k) is _Tensor
        and type(v) is _Tensor
        and _modes() == 0
        and _transforms() is None
        and not q.is_meta
        and _torch_ops.EXCHANGES
    )


def attention(q, k, v, *, out=None, lse=False, **options):
    """attune.attention() on tensors."""
    if _is_compiling() or _is_autocast_enabled():
        q, k, v = autocast((q, k, v), q.device)
    return run(q, k, v, _pack(q, options) if options else _PLAIN, out, lse)


def _pack(q, options: dict) -> tuple:
    """Packed, with the arrays of other frameworks among them as tensors."""
    if (
        options.get("dropout", 0.0) > 0
        and options.get("dropout_state") is None
        and options.get("dropout_seed") is None
    ):
        options["dropout_state"] = dropout_state(q.device)
    packed = _options.pack(**options)
    for array in packed[: _torch_ops.TENSORS]:
        if array is not None and not isinstance(array, _Tensor):
            arrays = (a if a is None else torch.as_tensor(a) for a in packed[: _torch_ops.TENSORS])
            return (*arrays, *packed[_torch_ops.TENSORS :])
    return packed


def run(q, k, v, packed: tuple, out=None, lse=False):
    """A call whose options are packed. `lse`: True, False or a tensor."""
    bias, slopes, sink = packed[:3]
    if (
        is_eager(q, k, v)
        and (bias is None or type(bias) is _Tensor)
        and (slopes is None or isinstance(slopes, _Tensor))
        and (sink is None or isinstance(sink, _Tensor))
    ):
        return run_eager(q, k, v, packed, out, lse)
    return _torch_ops.call(q, k, v, packed, out, lse)


def run_eager(q, k, v, packed: tuple, out=None, lse=False):
    """The same where is_eager()."""
    if not _is_grad_enabled():
        return _core.forward(q, k, v, out, lse, packed)
    wants = q.requires_grad or k.requires_grad or v.requires_grad
    bias, slopes, sink = packed[:3]
    if bias is None and slopes is None and sink is None:
        if wants and out is None and lse is False:
            return _torch_ops.apply_eagerly(q, k, v, packed)
    else:
        wants = (
            wants
            or (bias is not None and bias.requires_grad)
            or (slopes is not None and slopes.requires_grad)
            or (sink is not None and sink.requires_grad)
        )
    if not wants:
        return _core.forward(q, k, v, out, lse, packed)
    return _torch_ops.call_eager(q, k, v, packed, out, lse)
