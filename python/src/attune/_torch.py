"""attention() on PyTorch tensors: straight into attune._core where nothing else looks on, through
the operators of attune._torch_ops where autograd, torch.compile, vmap or a mode does."""

from __future__ import annotations

import torch

from . import _core, _options, _torch_ops

_Tensor = torch.Tensor
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_get_num_threads = torch.get_num_threads


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


def is_plain(q, k, v) -> bool:
    """Whether nobody looks on, so that a call may go past PyTorch's dispatcher. (Subclasses, such as
    parameters and fake tensors, go through it.)"""
    return (
        not _is_compiling()
        and type(q) is _Tensor
        and type(k) is _Tensor
        and type(v) is _Tensor
        and not ((q.requires_grad or k.requires_grad or v.requires_grad) and _is_grad_enabled())
        and _modes() == 0
        and _transforms() is None
        and _torch_ops.EXCHANGES
    )


def is_plain_option(tensor) -> bool:
    """The same of one that may be None."""
    return tensor is None or (
        not (isinstance(tensor, _Tensor) and type(tensor) is not _Tensor)
        and not (getattr(tensor, "requires_grad", False) and _is_grad_enabled())
    )


def threads(q) -> int:
    """PyTorch's number of threads, for tensors on the CPU."""
    return 0 if q.is_cuda else _get_num_threads()


def attention(q, k, v, *, out=None, lse=False, **options):
    """attune.attention() on tensors."""
    if not is_plain(q, k, v) or torch._C._is_any_autocast_enabled():
        q, k, v = autocast((q, k, v), q.device)
    if (
        options.get("dropout", 0.0) > 0
        and options.get("dropout_state") is None
        and options.get("dropout_seed") is None
    ):
        options["dropout_state"] = dropout_state(q.device)
    return run(q, k, v, _options.pack(**options), out, lse)


def run(q, k, v, packed: tuple, out=None, lse=False):
    """A call whose options are packed. `lse`: True, False or a tensor."""
    if (
        is_plain(q, k, v)
        and is_plain_option(packed[0])
        and is_plain_option(packed[1])
        and is_plain_option(packed[2])
    ):
        if packed[_options.THREADS] == 0 and not q.is_cuda:
            packed = _options.with_threads(packed, _get_num_threads())
        return _core.forward(q, k, v, out, lse, packed)
    return _torch_ops.call(q, k, v, packed, out, lse)
