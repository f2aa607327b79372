"""attention() on PyTorch tensors: straight into attune._core where nothing else looks on, through
the operators of attune._torch_ops where autograd, torch.compile, vmap or a mode does."""

from __future__ import annotations

import torch

from . import _core, _options, _torch_ops

_PLAIN = (torch.Tensor, torch.nn.Parameter)
# Since PyTorch 2.10; before, arrays come by __dlpack__, which takes no tensor that requires grad.
_EXCHANGES = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


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
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def _is_watched(q, k, v, others: tuple) -> bool:
    """Whether a call has to go through PyTorch's dispatcher."""
    if torch.compiler.is_compiling() or not _EXCHANGES:
        return True
    for tensor in (q, k, v, *others):
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN:
            return True
        if tensor.requires_grad and torch.is_grad_enabled():
            return True
    return torch._C._len_torch_dispatch_stack() > 0 or _torch_ops.is_transformed()


def attention(q, k, v, *, out=None, lse=False, **options):
    """attune.attention() on tensors."""
    q, k, v = autocast((q, k, v), q.device)
    dropout = options.get("dropout", 0.0)
    if dropout > 0 and options.get("dropout_state") is None and options.get("dropout_seed") is None:
        options["dropout_state"] = dropout_state(q.device)
    packed = _options.pack(**options)
    return run(q, k, v, packed, out, lse)


def run(q, k, v, packed: tuple, out=None, lse=False):
    """A call whose options are packed. `lse`: True, False or a tensor."""
    if not _is_watched(q, k, v, packed[:3]):
        if q.device.type == "cpu" and packed[_options.THREADS] == 0:
            packed = _options.with_threads(packed, torch.get_num_threads())
        return _core.forward(q, k, v, out, lse, packed)
    return _torch_ops.call(q, k, v, packed, out, lse)
