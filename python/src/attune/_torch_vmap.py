"""torch.func.vmap over attention: the mapped dimension joins the batch where it can; what has no
batch to join (packed sequences, pages, sinks, scales, dropout states) is called once for each element."""

from __future__ import annotations

import torch

from . import _options


def _fold(tensor, dim, size: int, unit: int):
    """[size · unit, ...] of a tensor whose batch is `unit` or 1, mapped over `dim` or shared."""
    if tensor is None:
        return None
    tensor = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
    tensor = tensor.expand(-1, unit, *tensor.shape[2:])
    return tensor.reshape(size * unit, *tensor.shape[2:])


def _loop(operator, size: int, in_dims: tuple, arguments: tuple):
    results = []
    for index in range(size):
        mine = [a if d is None else a.select(d, index) for a, d in zip(arguments, in_dims)]
        results.append(operator(*mine))
    return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])


def _can_fold(rows: tuple, options: tuple) -> bool:
    singles = (
        _options.SINK,
        _options.CU_SEQLENS_Q,
        _options.CU_SEQLENS_K,
        _options.PAGE_TABLE,
        _options.DROPOUT_STATE,
        _options.Q_SCALE,
        _options.K_SCALE,
        _options.V_SCALE,
    )
    return (
        all(tensor.dim() == 4 for tensor in rows)
        and all(options[at] is None for at in singles)
        and options[_options.DROPOUT] == 0
    )


def _batch(tensor, dim) -> int:
    return tensor.shape[0] if dim is None else tensor.movedim(dim, 0).shape[1]


def _ranks(tensors, dims) -> tuple:
    """The tensors as each call sees them, as far as their number of dimensions goes."""
    return tuple(t if d is None else t.select(d, 0) for t, d in zip(tensors, dims))


def _fold_options(options: tuple, dims: tuple, size: int, unit: int) -> tuple:
    bias, slopes, sink, lengths = options[:4]
    if bias is not None:
        if dims[0] is not None:
            bias = bias.movedim(dims[0], 0)
            bias = bias.reshape(size, *(1,) * (5 - bias.dim()), *bias.shape[1:])
            bias = _fold(bias, 0, size, unit)
        elif bias.dim() == 4 and bias.shape[0] > 1:
            bias = _fold(bias, None, size, unit)
    if slopes is not None:
        slopes = (
            slopes.movedim(dims[1], 0)
            if dims[1] is not None
            else slopes.expand(size, *slopes.shape)
        )
        slopes = slopes[:, None].expand(-1, unit, -1) if slopes.dim() == 2 else slopes
        slopes = slopes.reshape(size * unit, -1)
    return (bias, slopes, sink, _fold(lengths, dims[3], size, unit), *options[4:])


def _unfold(results, size: int, unit: int):
    return tuple(r.reshape(size, unit, *r.shape[1:]) for r in results)


def forward(operator, size: int, in_dims: tuple, arguments: tuple):
    """The vmap rule of attune::attention: results and their mapped dimensions."""
    rows, options = arguments[:3], arguments[3:]
    if not _can_fold(_ranks(rows, in_dims), options):
        return _loop(operator, size, in_dims, arguments)
    unit = _batch(rows[0], in_dims[0])
    folded = [_fold(tensor, dim, size, unit) for tensor, dim in zip(rows, in_dims)]
    results = operator(*folded, *_fold_options(options, in_dims[3:], size, unit))
    return _unfold(results, size, unit), (0, 0)


def backward(operator, size: int, in_dims: tuple, arguments: tuple):
    """The vmap rule of attune::attention_backward. Gradients of a bias or of slopes are sums over
    the batch, which must not run over the mapped dimension: those are called one by one."""
    tensors, wants, options = arguments[:7], arguments[7:10], arguments[10:]
    rows = tensors[2:6]
    if any(wants) or not _can_fold(_ranks(rows, in_dims[2:6]), options):
        return _loop(operator, size, in_dims, arguments)
    unit = _batch(tensors[2], in_dims[2])
    folded = [_fold(tensor, dim, size, unit) for tensor, dim in zip(tensors, in_dims)]
    results = operator(*folded, *wants, *_fold_options(options, in_dims[10:], size, unit))
    grads = _unfold(results[:3], size, unit)
    nothing = tuple(r.expand(size, *r.shape) for r in results[3:])
    return grads + nothing, (0,) * 6
