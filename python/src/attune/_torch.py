"""attention() on PyTorch tensors: straight into attune._core where nothing else looks on, through
the operators of attune._torch_ops where autograd, torch.compile, vmap or a mode does."""

from __future__ import annotations

import torch

from . import _core, _options, _torch_ops

_Tensor = torch.Tensor
_is_compiling = torch.compiler.is_compiling
_is_autocast_enabled = torch._C._is_any_autocast_enabled
_PLAIN = _options.pack()
# What autocast leaves as it is: float64 as in PyTorch's own attention, and what may have scales.
_KEPT = (torch.float64, torch.float8_e4m3fn)


def dropout_state(device: torch.device) -> torch.Tensor:
    """int64 [2], (seed, offset), drawn from PyTorch's generator of the device. It stays there: a
    CUDA graph draws a new one on each replay, and checkpointing draws the same one again."""
    return torch.randint(0, 2**62, (2,), dtype=torch.int64, device=device)


def autocast(tensors: tuple, device: torch.device) -> tuple:
    """q, k, v in autocast's dtype, where it is on: as PyTorch's own attention."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # which knows no meta
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(
        t.to(dtype) if t.is_floating_point() and t.dtype not in _KEPT else t for t in tensors
    )


def attention(q, k, v, out, lse, options: dict):
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
    if not _is_compiling() and _torch_ops.EXCHANGES:
        result = _core.attend(q, k, v, out, lse, packed, 0)
        if result is not NotImplemented:
            return result
    return _torch_ops.call(q, k, v, packed, out, lse)


def run_bhsd(q, k, v, packed: tuple, equal_heads: bool):
    """The same for what is [B, H, S, D] and of as many heads in all (or not) in eager mode; else
    NotImplemented."""
    if _is_compiling() or not _torch_ops.EXCHANGES:
        return NotImplemented
    return _core.attend(q, k, v, None, False, packed, 2 if equal_heads else 1)
