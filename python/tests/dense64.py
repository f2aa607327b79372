"""Attention in float64 by NumPy, and the rounding that float32 is allowed."""

import numpy


def attention(q, k, v, visible=None, *, scale=None, softcap=0.0, bias=0.0, slopes=None, sink=None):
    """o [B, Sq, Hq, Dv] and the LSE [B, Hq, Sq] of q [B, Sq, Hq, D], k, v [B, Sk, Hkv, ..].

    visible: bool, broadcastable to [B, Hq, Sq, Sk]
    """
    q, k, v = (array.astype(numpy.float64) for array in (q, k, v))
    group = q.shape[2] // k.shape[2]
    k, v = (numpy.repeat(array, group, axis=2) for array in (k, v))
    scores = numpy.einsum("bihd,bjhd->bhij", q, k) * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    if softcap:
        scores = softcap * numpy.tanh(scores / softcap)
    scores = scores + bias
    if slopes is not None:
        scores = scores - slopes[:, None, None] * abs(distance(q.shape[1], k.shape[1]))
    if visible is not None:
        scores = numpy.where(visible, scores, -numpy.inf)
    largest = scores.max(-1, keepdims=True, initial=-numpy.inf)
    if sink is not None:
        largest = numpy.maximum(largest, sink[:, None, None])
    largest = numpy.where(numpy.isfinite(largest), largest, 0)
    p = numpy.exp(scores - largest)
    total = p.sum(-1, keepdims=True)
    if sink is not None:
        total = total + numpy.exp(sink[:, None, None] - largest)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        lse = (numpy.log(total) + largest)[..., 0]
        p = numpy.where(total > 0, p / total, 0)
    return numpy.einsum("bhij,bjhd->bihd", p, v), lse


def distance(queries, keys):
    """i + keys - queries - j: 0 on the diagonal from the bottom right."""
    return numpy.arange(queries)[:, None] + keys - queries - numpy.arange(keys)[None]


def assert_close(got, want, dtype="float32"):
    """For values of order 1: a few units in the last place of float32, one of the narrow dtypes."""
    got = numpy.asarray(got, dtype=numpy.float64)
    assert got.shape == want.shape
    numpy.testing.assert_array_equal(numpy.isinf(got), numpy.isinf(want))
    unit = {"float32": 8 * 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    finite = numpy.isfinite(want)
    limit = unit * max(1.0, abs(want[finite]).max(initial=0))
    assert abs(got[finite] - want[finite]).max(initial=0) <= limit
