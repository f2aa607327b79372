"""attune::attention and its backward as operators of PyTorch: kernels, shapes, autograd.

An operator's arguments are q, k, v and then the packed options (attune/_options.py), in their order.
"""

from __future__ import annotations

import torch

from . import _core, _options

_OPTIONS = """
    Tensor? bias, Tensor? alibi_slopes, Tensor? sink, Tensor? key_lengths, Tensor? cu_seqlens_q,
    Tensor? cu_seqlens_k, Tensor? page_table, Tensor? dropout_state, Tensor? q_scale,
    Tensor? k_scale, Tensor? v_scale, SymInt? max_seqlen_q, SymInt? max_seqlen_k, float? scale,
    float softcap, float dropout, int dropout_seed, int dropout_offset, bool fa2_dropout,
    bool causal, bool top_left, SymInt offset, SymInt left, SymInt right, bool deterministic,
    bool heads_first, int threads, int stream"""
TENSORS = len(_options.TENSORS)

_library = torch.library.Library("attune", "DEF")
_library.define(f"attention(Tensor q, Tensor k, Tensor v, {_OPTIONS}) -> (Tensor, Tensor)")
_library.define(
    "attention_out(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!)? lse, "
    f"{_OPTIONS}) -> ()"
)
_library.define(
    "attention_backward(Tensor grad_o, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor o, "
    f"Tensor lse, bool wants_bias, bool wants_alibi_slopes, bool wants_sink, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


# ---- Kernels ------------------------------------------------------------------------------------


# Since PyTorch 2.10 tensors come and results are made by DLPack's exchange API; before, tensors come
# by __dlpack__, which takes none that requires grad.
EXCHANGES = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


def _concrete(tensors: tuple, options: tuple) -> tuple:
    """Both for attune._core: before PyTorch 2.10, detached and with its stream."""
    if EXCHANGES:
        return tensors, options
    device, stream = tensors[0].device, options[_options.STREAM]
    tensors, options = (
        tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in some)
        for some in (tensors, options)
    )
    if device.type == "cuda" and stream < 0:
        stream = torch.cuda.current_stream(device).cuda_stream
    return tensors, (*options[: _options.STREAM], stream)


def _attention(q, k, v, *options):
    if EXCHANGES:
        return _core.forward(q, k, v, None, True, options)
    tensors, concrete = _concrete((q, k, v), options)
    return _core.forward(*tensors, *_empty_results(q, v, options), concrete)


def _attention_out(q, k, v, out, lse, *options):
    tensors, options = _concrete((q, k, v), options)
    _core.forward(*tensors, out, False if lse is None else lse, options)


def _attention_backward(
    grad_o, grad_lse, q, k, v, o, lse, wants_bias, wants_slopes, wants_sink, *options
):
    wants = (wants_bias, wants_slopes, wants_sink)
    places = (True, True, True, *wants)
    if not EXCHANGES:
        made = _empty_gradients(q, k, v, options, wants)
        places = tuple(grad if want else False for grad, want in zip(made, places))
    tensors, options = _concrete((q, grad_o, grad_lse, k, v, o, lse), options)
    q, grad_o, grad_lse, *rest = tensors
    grads = _core.backward(grad_o, grad_lse, q, *rest, places, options)
    return tuple(q.new_empty((0,), dtype=torch.float32) if g is None else g for g in grads)


# ---- Shapes -------------------------------------------------------------------------------------


def _rows_like(like, columns, heads_first: bool):
    """[.., columns] in like's shape, [B, S, H, columns] in memory."""
    # Nothing is written in eight bits.
    dtype = torch.bfloat16 if like.dtype == torch.float8_e4m3fn else like.dtype
    if like.dim() != 4 or not heads_first:
        return like.new_empty((*like.shape[:-1], columns), dtype=dtype)
    b, h, s, _ = like.shape
    return like.new_empty((b, s, h, columns), dtype=dtype).transpose(1, 2)


def _empty_results(q, v, options: tuple):
    if q.dim() not in (3, 4) or v.dim() not in (3, 4):
        raise ValueError(
            f"q has {q.dim()} dimensions and v has {v.dim()}; they take 4, or 3 when packed"
        )
    heads_first = options[_options.HEADS_FIRST]
    out = _rows_like(q, v.shape[-1], heads_first)
    s, h = (
        (q.shape[-2], q.shape[-3]) if heads_first and q.dim() == 4 else (q.shape[-3], q.shape[-2])
    )
    if options[_options.CU_SEQLENS_Q] is not None:
        shape = (h, s)
    else:
        shape = (q.shape[0] if q.dim() == 4 else 1, h, s)
    return out, q.new_empty(shape, dtype=torch.float32)


def _empty_gradients(q, k, v, options: tuple, wants: tuple):
    heads_first = options[_options.HEADS_FIRST]
    pages = options[_options.PAGE_TABLE] is not None
    grads = [_rows_like(q, q.shape[-1], heads_first)]
    grads += [_rows_like(t, t.shape[-1], heads_first and not pages) for t in (k, v)]
    # bias keeps its dtype; what else is learned is float32.
    for like, wanted in zip(options[:3], wants):
        grads.append(
            like.new_empty(like.shape) if wanted else q.new_empty((0,), dtype=torch.float32)
        )
    return tuple(grads)


def _fake(q, k, v, *options):
    return _empty_results(q, v, options)


def _fake_out(q, k, v, out, lse, *options):
    return None


def _fake_backward(
    grad_o, grad_lse, q, k, v, o, lse, wants_bias, wants_slopes, wants_sink, *options
):
    return _empty_gradients(q, k, v, options, (wants_bias, wants_slopes, wants_sink))


for _name, _kernel, _shapes in (
    ("attention", _attention, _fake),
    ("attention_out", _attention_out, _fake_out),
    ("attention_backward", _attention_backward, _fake_backward),
):
    _library.impl(_name, _kernel, "CPU")
    _library.impl(_name, _kernel, "CUDA")
    torch.library.register_fake(f"attune::{_name}", _shapes, lib=_library)


def _needs_operators() -> bool:
    """Whether someone records operators: torch.compile, torch.export, or a mode."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def _is_transformed() -> bool:
    """Whether torch.func's grad, vmap, ... is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


# ---- Autograd -----------------------------------------------------------------------------------


def _save(ctx, inputs, output):
    q, k, v, *options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, *options[:TENSORS])
    ctx.rest = tuple(options[TENSORS:])


def _differentiate(ctx, grad_o, grad_lse):
    saved = ctx.saved_tensors
    needed = ctx.needs_input_grad[:6]
    grads = _gradients(needed, grad_o, grad_lse, saved[:5], (*saved[5:], *ctx.rest))
    return grads + (None,) * (TENSORS - 3 + len(ctx.rest))


def _gradients(needed: tuple, grad_o, grad_lse, rows: tuple, options: tuple) -> tuple:
    """Of q, k, v, bias, slopes and sink; None where not needed. rows: q, k, v, o, lse."""
    if grad_o is None:
        if grad_lse is None:
            return (None,) * 6
        grad_o = torch.zeros_like(rows[3])
    wants = [
        need and tensor is not None and tensor.is_floating_point()
        for need, tensor in zip(needed[3:], options[:3])
    ]
    if _needs_operators():
        operator = torch.ops.attune.attention_backward
    elif torch.is_grad_enabled() or _is_transformed():
        operator = AttentionBackward.apply
    else:
        operator = _attention_backward
    grads = operator(grad_o, grad_lse, *rows, *wants, *options)
    return tuple(grad if need else None for grad, need in zip(grads, (*needed[:3], *wants)))


def _refuse_second(ctx, *grads):
    raise NotImplementedError(
        "attention has no second derivative: its gradients were differentiated (create_graph=True)"
    )


def _vmap_attention(info, in_dims, *arguments):
    from . import _torch_vmap

    return _torch_vmap.forward(torch.ops.attune.attention, info.batch_size, in_dims, arguments)


def _vmap_backward(info, in_dims, *arguments):
    from . import _torch_vmap

    return _torch_vmap.backward(
        torch.ops.attune.attention_backward, info.batch_size, in_dims, arguments
    )


torch.library.register_vmap("attune::attention", _vmap_attention, lib=_library)
torch.library.register_vmap("attune::attention_backward", _vmap_backward, lib=_library)
torch.library.register_autograd(
    "attune::attention", _differentiate, setup_context=_save, lib=_library
)
torch.library.register_autograd("attune::attention_backward", _refuse_second, lib=_library)


class EagerAttention(torch.autograd.Function):
    """The same where nobody records operators: in eager mode an operator with so many arguments costs
    half a millisecond. Arguments: q, k, v and options without bias, slopes and sink."""

    forward = staticmethod(_core.record)

    @staticmethod
    def backward(ctx, grad_o):
        needed = (*ctx.needs_input_grad[:3], False, False, False)
        grads = _gradients(needed, grad_o, None, ctx.saved_tensors, ctx.options)
        return (*grads[:3], None)


class EagerAttentionInFull(torch.autograd.Function):
    """The same with bias, slopes, sink and the LSE. What may want gradients comes one by one."""

    @staticmethod
    def forward(ctx, q, k, v, bias, alibi_slopes, sink, options, wants_lse):
        if EXCHANGES:  # without taking the options apart
            o, lse = _core.forward(q, k, v, None, True, options)
        else:
            o, lse = _attention(q, k, v, *options)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, o, lse, bias, alibi_slopes, sink)
        ctx.options = options[3:]
        return (o, lse) if wants_lse else o

    @staticmethod
    def backward(ctx, grad_o, grad_lse=None):
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[:6]
        grads = _gradients(needed, grad_o, grad_lse, saved[:5], saved[5:] + ctx.options)
        return (*grads, None, None)


# Without what Function.apply() looks for first, which attend() and call() have seen not to be there.
_apply_eagerly = super(torch.autograd.Function, EagerAttention).apply
_apply_in_full = super(torch.autograd.Function, EagerAttentionInFull).apply
_core.take_torch(
    torch.Tensor,
    torch.get_num_threads,
    torch.is_grad_enabled,
    torch._C._len_torch_dispatch_stack,
    torch._C._functorch.peek_interpreter_stack,
    _apply_eagerly,
)


class Attention(torch.autograd.Function):
    """The same for torch.func's transforms, which see autograd.Functions but no operator's formula."""

    @staticmethod
    def forward(q, k, v, *options):
        return torch.ops.attune.attention(q, k, v, *options)

    setup_context = staticmethod(_save)
    backward = staticmethod(_differentiate)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        from . import _torch_vmap

        return _torch_vmap.forward(Attention.apply, info.batch_size, in_dims, arguments)


class AttentionBackward(torch.autograd.Function):
    @staticmethod
    def forward(*arguments):
        return torch.ops.attune.attention_backward(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    backward = staticmethod(_refuse_second)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        from . import _torch_vmap

        return _torch_vmap.backward(AttentionBackward.apply, info.batch_size, in_dims, arguments)


def call(q, k, v, options: tuple, out, lse):
    """Through the dispatcher, or past it with autograd. `lse`: True, False or a tensor to write to."""
    if out is not None or isinstance(lse, torch.Tensor):
        return _write(q, k, v, options, out, lse)
    if _needs_operators() or q.is_meta:
        operator = torch.ops.attune.attention
    elif _is_transformed():
        operator = Attention.apply
    else:
        return _apply_in_full(q, k, v, *options[:3], options, lse)
    o, both = operator(q, k, v, *options)
    return (o, both) if lse else o


def _write(q, k, v, options: tuple, out, lse):
    """To out, or lse, or both."""
    if torch.is_grad_enabled() and any(
        isinstance(t, torch.Tensor) and t.requires_grad for t in (q, k, v, *options[:3])
    ):
        raise ValueError("out= and lse= take no part in autograd; call under torch.no_grad()")
    made, made_lse = _empty_results(q, v, options)
    out = made if out is None else out
    place = lse if isinstance(lse, torch.Tensor) else made_lse if lse else None
    torch.ops.attune.attention_out(q, k, v, out, place, *options)
    return (out, place) if place is not None else out
