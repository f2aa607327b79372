"""attention() and attention_backward() on arrays of any framework."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from . import _core, _frameworks, _options


class Gradients(NamedTuple):
    """What attention_backward() returns: each in the shape of its array, None where not asked for."""

    q: Any
    k: Any
    v: Any
    bias: Any = None
    alibi_slopes: Any = None
    sink: Any = None


def _torch_for(array):
    """attune._torch where the array is a tensor of PyTorch's, else None."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor):
        return None
    module = sys.modules.get("attune._torch")  # an import statement would take longer
    if module is None:
        from . import _torch as module
    return module


def _extents(q, v, layout: str, packed: bool) -> tuple:
    """Shapes of o, as it lies in memory, and of the LSE."""
    shape = tuple(q.shape)
    if len(shape) == 3:
        tokens, heads, _ = shape
        return (tokens, heads, v.shape[-1]), (heads, tokens) if packed else (1, heads, tokens)
    if len(shape) != 4:
        raise ValueError(f"q has {len(shape)} dimensions; it takes 4, or 3 when packed")
    b, s, h = (shape[0], shape[2], shape[1]) if layout == "bhsd" else shape[:3]
    return (b, s, h, v.shape[-1]), (h, s) if packed else (b, h, s)


def _results(q, v, out, lse, options: dict):
    """`out` and `lse` made where they are not given, for frameworks that do not allocate in _core."""
    if _core.can_allocate(q):
        return out, lse
    layout = options.get("layout", "bshd")
    of_o, of_lse = _extents(q, v, layout, options.get("cu_seqlens_q") is not None)
    if out is None:
        eighths = str(q.dtype).endswith("float8_e4m3fn")  # nothing is written in them
        out = _frameworks.empty(q, of_o, "bfloat16" if eighths else None)
        if layout == "bhsd" and len(of_o) == 4:
            out = out.swapaxes(1, 2)
    if lse is True:
        lse = _frameworks.empty(q, of_lse, "float32")
    return out, lse


def _set_stream(q, options: dict) -> None:
    if options.get("stream") is None and not _core.can_allocate(q):
        options["stream"] = _frameworks.current_stream(q)


def attention(q, k, v, *, out=None, lse=False, **options):
    """Exact attention: softmax(scale · q kᵀ + bias, masked) v.

    Arrays are anything that speaks DLPack or the buffer protocol: PyTorch, NumPy (bfloat16 and
    float8_e4m3fn by ml_dtypes), CuPy, JAX on the CPU; all on one device. Nothing is copied. On a
    GPU the work is queued on the framework's current stream and the call returns; nothing is
    synchronised. PyTorch tensors that require gradients get them.

    Shapes (D and Dv any from 1 to 65,536; Hq a multiple of Hkv):
        q: [B, Sq, Hq, D], float32, float16 or bfloat16, any strides; without gradients also
            float8_e4m3fn, and o is then bfloat16
        k: [B, Sk, Hkv, D]
        v: [B, Sk, Hkv, Dv]
        returns o: [B, Sq, Hq, Dv], and with `lse` the LSE: float32 [B, Hq, Sq], natural logarithm
    With layout="bhsd", q, k, v and o are [B, H, S, D]. With cu_seqlens_q, q and o are
    [total_q, Hq, D] (or with a 1 in front) and the LSE is [Hq, total_q]; with cu_seqlens_k, k and v
    are [total_k, Hkv, D]. With page_table, k and v are [pages, page_size, Hkv, D] in any layout.

    Arguments:
        mask: None, "causal" (= "causal-bottom-right": the last query sees the last key),
            "causal-top-left", or an array as `bias`
        window: (left, right): query i sees the keys from c_i - left to c_i + right, where c_i is
            the diagonal; -1 is unbounded
        diagonal: where a window's diagonal lies: "bottom-right" (c_i = i + Sk - Sq) or "top-left"
        offset: added to the diagonal
        scale: default 1 / sqrt(D)
        softcap: c > 0: scores become c · tanh(score / c) before the bias
        bias: bool (False masks out) or float32, float16, bfloat16 to be added; [B, Hq, Sq, Sk],
            each may be 1, and dimensions in front may be left out
        alibi_slopes: float32 [Hq] or [B, Hq]; scores lose slope · |i + Sk - Sq - j|
        q_scale, k_scale, v_scale: float32 [B, Hq], [B, Hkv], [B, Hkv], for float8: what is stored
            times the scale of its sequence and head is what is meant
        sink: float32 [Hq], a logit that joins the softmax's denominator
        dropout: probability to drop, below 1; the mask depends on (seed, offset) alone.
            PyTorch's generator gives the seed when dropout_seed is None
        dropout_stream: whose random numbers: "curand", PyTorch's memory-efficient attention's; or
            "fa2", FlashAttention-2's, of 8 bits: faster, and dropout from 1/256 to 255/256
        dropout_seed, dropout_offset: numbers; or dropout_state, int64 [2] of both, on q's device
        key_lengths: int32 [B]: only the first of the keys exist
        cu_seqlens_q, cu_seqlens_k: int32 [B + 1], with max_seqlen_q, max_seqlen_k
        page_table: int32 [B, columns], with max_seqlen_k optional
        deterministic: the same bits on every run and for every number of threads
        layout: "bshd" or "bhsd"
        out: an array to write o to; lse: True to return the LSE too, or an array to write it to
        threads: of the CPU; 0 is every core that the process may use, for PyTorch its own number
        stream: a cudaStream_t as a number, instead of the framework's current one

    Rows with nothing to attend to are 0 and their LSE is -inf. What is masked out never reaches a
    result, not even NaN. The contract in full: docs/architecture.md.

    Errors: ValueError (shapes, values, devices), TypeError (dtypes), UnsupportedError (no kernel
    computes it here; the text has every reason), MemoryError, DeviceError. Nothing is written then.
    """
    of_torch = _torch_for(q)
    if of_torch is not None:
        return of_torch.attention(q, k, v, out, lse, options)
    _frameworks.check_writable(out, "out")
    _frameworks.check_writable(lse, "lse")
    _set_stream(q, options)
    packed = _options.pack(**options)
    out, lse = _results(q, v, out, lse, options)
    result = _core.forward(q, k, v, out, lse, packed)
    if isinstance(result, tuple):
        return tuple(_frameworks.native(array, q) for array in result)
    return _frameworks.native(result, q)


def attention_backward(
    grad_o,
    q,
    k,
    v,
    o,
    lse,
    *,
    grad_lse=None,
    grad_bias=False,
    grad_alibi_slopes=False,
    grad_sink=False,
    **options,
) -> Gradients:
    """Every gradient of attention(), by the formulas of docs/architecture.md.

    grad_o and o are as o of the forward pass, lse and grad_lse (the gradient that flows into the
    LSE, if any) as its LSE; the options are those of the forward pass, dropout's seed and offset
    included. Where grad_bias, grad_alibi_slopes or grad_sink is True, or an array to write to, that
    gradient is computed too, in the shape of its input (float32, but bias's own dtype).

    PyTorch needs no call of this: attention() is differentiable there.

    Returns Gradients. Errors: as attention().
    """
    _set_stream(q, options)
    packed = _options.pack(**options)
    wanted = [True, True, True, grad_bias, grad_alibi_slopes, grad_sink]
    if not _core.can_allocate(q):
        inputs = [
            q,
            k,
            v,
            packed[_options.BIAS],
            packed[_options.ALIBI_SLOPES],
            packed[_options.SINK],
        ]
        for index, like in enumerate(inputs):
            if wanted[index] is True:
                wanted[index] = _frameworks.empty(like, tuple(like.shape))
    results = _core.backward(grad_o, grad_lse, q, k, v, o, lse, tuple(wanted), packed)
    return Gradients(*(_frameworks.native(array, q) for array in results))
