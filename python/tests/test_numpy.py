"""attention() and attention_backward() on NumPy arrays."""

import concurrent.futures
import re

import numpy
import pytest

import attune
from dense64 import assert_close, attention, distance

RNG = numpy.random.default_rng(7)


def random(*shape, dtype=numpy.float32):
    return RNG.standard_normal(shape).astype(dtype)


@pytest.fixture
def qkv():
    return random(2, 9, 6, 16), random(2, 13, 3, 16), random(2, 13, 3, 12)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_forward(qkv, dtype):
    q, k, v = (array.astype(dtype) for array in qkv)
    o = attune.attention(q, k, v)
    assert o.dtype == dtype
    assert_close(o, attention(q, k, v)[0], dtype)


def test_bfloat16(qkv):
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes, NumPy's bfloat16, is not installed"
    )
    q, k, v = (array.astype(ml_dtypes.bfloat16) for array in qkv)
    o = attune.attention(q, k, v, mask="causal")
    assert o.dtype == ml_dtypes.bfloat16
    assert_close(o, attention(q, k, v, distance(9, 13) >= 0)[0], "bfloat16")


def test_float8():
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes, NumPy's float8, is not installed"
    )
    q, k, v = (
        random(2, s, h, 16).astype(ml_dtypes.float8_e4m3fn) for s, h in ((9, 6), (13, 3), (13, 3))
    )
    o = attune.attention(q, k, v, mask="causal")
    assert o.dtype == ml_dtypes.bfloat16
    wide = [array.astype("f4") for array in (q, k, v)]
    seen = distance(9, 13) >= 0
    assert_close(o, attention(*wide, seen)[0], "bfloat16")

    scales = [RNG.uniform(0.5, 2, (2, heads)).astype("f4") for heads in (6, 3, 3)]
    named = dict(zip(("q_scale", "k_scale", "v_scale"), scales))
    o, lse = attune.attention(q, k, v, mask="causal", lse=True, **named)
    scaled = [array * scale[:, None, :, None] for array, scale in zip(wide, scales)]
    want, want_lse = attention(*scaled, seen)
    assert_close(o, want, "bfloat16")
    assert_close(lse, want_lse)
    with pytest.raises(ValueError, match="v_scale is missing"):
        attune.attention(q, k, v, q_scale=scales[0], k_scale=scales[1])
    with pytest.raises(ValueError, match="only q, k and v of f8e4m3 have scales"):
        attune.attention(*wide, **named)
    with pytest.raises(ValueError, match="has no backward pass"):
        attune.attention_backward(o, q, k, v, o, lse, mask="causal")


MASKS = {
    "causal": ({"mask": "causal"}, lambda d: d >= 0),
    "causal-bottom-right": ({"mask": "causal-bottom-right"}, lambda d: d >= 0),
    "causal-top-left": ({"mask": "causal-top-left"}, lambda d: d >= 4),
    "offset": ({"mask": "causal", "offset": 2}, lambda d: d >= -2),
    "window": ({"window": (3, 1)}, lambda d: (d <= 3) & (d >= -1)),
    "causal window": ({"mask": "causal", "window": (3, -1)}, lambda d: (d <= 3) & (d >= 0)),
    "window from top left": (
        {"window": (3, 1), "diagonal": "top-left"},
        lambda d: (d - 4 <= 3) & (d - 4 >= -1),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(qkv, name):
    options, sees = MASKS[name]
    o, lse = attune.attention(*qkv, lse=True, **options)
    want, want_lse = attention(*qkv, sees(distance(9, 13)))
    assert_close(o, want)
    assert_close(lse, want_lse)


def test_mask_array_and_rows_that_see_nothing(qkv):
    visible = RNG.random((2, 1, 9, 13)) < 0.5
    visible[0, 0, 4] = False
    o, lse = attune.attention(*qkv, mask=visible, lse=True)
    want, want_lse = attention(*qkv, visible)
    assert_close(o, want)
    assert_close(lse, want_lse)
    assert (o[0, 4] == 0).all() and (lse[0, :, 4] == -numpy.inf).all()


def test_what_is_masked_out_never_reaches_a_result(qkv):
    q, k, v = qkv
    want = attune.attention(q, k[:, :10].copy(), v[:, :10].copy())
    k[:, 10:], v[:, 10:] = numpy.nan, numpy.inf
    lengths = numpy.array([10, 10], numpy.int32)
    numpy.testing.assert_array_equal(attune.attention(q, k, v, key_lengths=lengths), want)


def test_scale_softcap_bias_slopes_sink(qkv):
    bias, slopes, sink = random(6, 1, 13), abs(random(6)), random(6)
    options = {"scale": 0.3, "softcap": 1.5, "sink": sink}
    o, lse = attune.attention(*qkv, bias=bias, alibi_slopes=slopes, lse=True, **options)
    want, want_lse = attention(*qkv, bias=bias, slopes=slopes, **options)
    assert_close(o, want)
    assert_close(lse, want_lse)


def test_any_strides_and_read_only_arrays(qkv):
    q, k, v = (numpy.repeat(array, 2, axis=1)[:, ::-2] for array in qkv)
    for array in (q, k, v):
        array.flags.writeable = False
    assert_close(attune.attention(q, k, v), attention(q, k, v)[0])


def test_heads_first(qkv):
    q, k, v = (array.swapaxes(1, 2) for array in qkv)
    o = attune.attention(q, k, v, layout="bhsd")
    assert o.shape == (2, 6, 9, 12)
    assert_close(o.swapaxes(1, 2), attention(*qkv)[0])


def test_given_results(qkv):
    q, k, v = qkv
    out, lse = numpy.full((2, 9, 6, 12), numpy.nan, "f4"), numpy.full((2, 6, 9), numpy.nan, "f4")
    result = attune.attention(q, k, v, out=out, lse=lse)
    assert result[0] is out and result[1] is lse
    want, want_lse = attention(q, k, v)
    assert_close(out, want)
    assert_close(lse, want_lse)


def test_packed_sequences():
    lengths_q, lengths_k = [3, 0, 5], [4, 2, 6]
    starts_q, starts_k = (numpy.cumsum([0, *n]).astype(numpy.int32) for n in (lengths_q, lengths_k))
    q, k, v = random(8, 4, 8), random(12, 2, 8), random(12, 2, 8)
    o, lse = attune.attention(
        q, k, v, mask="causal", lse=True, cu_seqlens_q=starts_q, cu_seqlens_k=starts_k,
        max_seqlen_q=5, max_seqlen_k=6,
    )  # fmt: skip
    assert o.shape == (8, 4, 8) and lse.shape == (4, 8)
    for n in (0, 2):
        rows, keys = slice(starts_q[n], starts_q[n + 1]), slice(starts_k[n], starts_k[n + 1])
        visible = distance(lengths_q[n], lengths_k[n]) >= 0
        want, want_lse = attention(q[None, rows], k[None, keys], v[None, keys], visible)
        assert_close(o[rows], want[0])
        assert_close(lse[:, rows], want_lse[0])


def test_pages():
    q, k, v = random(2, 3, 4, 8), random(5, 4, 2, 8), random(5, 4, 2, 8)
    table = numpy.array([[3, 0], [1, 4]], numpy.int32)
    lengths = numpy.array([6, 8], numpy.int32)
    o = attune.attention(q, k, v, page_table=table, key_lengths=lengths, mask="causal")
    for n in range(2):
        keys, values = (array[table[n]].reshape(1, 8, 2, 8)[:, : lengths[n]] for array in (k, v))
        visible = distance(3, lengths[n]) >= 0
        assert_close(o[n], attention(q[n : n + 1], keys, values, visible)[0][0])


def test_gradients_follow_differences(qkv):
    """Along a random direction, in float64 by the oracle's formula for the loss."""
    q, k, v = qkv
    bias, slopes, sink = random(6, 9, 13), abs(random(6)), random(6)
    inputs = {"q": q, "k": k, "v": v, "bias": bias, "slopes": slopes, "sink": sink}
    grad_o, grad_lse = random(2, 9, 6, 12), random(2, 6, 9)

    def loss(q, k, v, bias, slopes, sink):
        o, lse = attention(q, k, v, distance(9, 13) >= 0, bias=bias, slopes=slopes, sink=sink)
        return (o * grad_o).sum() + (lse * grad_lse).sum()

    options = {"mask": "causal", "bias": bias, "alibi_slopes": slopes, "sink": sink}
    o, lse = attune.attention(q, k, v, lse=True, **options)
    grads = attune.attention_backward(
        grad_o, q, k, v, o, lse, grad_lse=grad_lse, grad_bias=True, grad_alibi_slopes=True,
        grad_sink=True, **options,
    )  # fmt: skip
    for name, grad in zip(inputs, grads):
        direction = RNG.standard_normal(inputs[name].shape)
        step = 1e-5
        ends = [
            loss(**{**inputs, name: inputs[name] + sign * step * direction}) for sign in (1, -1)
        ]
        want = (ends[0] - ends[1]) / (2 * step)
        assert abs((grad * direction).sum() - want) <= 1e-4 * max(1.0, abs(want)), name


def test_gradients_that_are_not_asked_for_are_none(qkv):
    o, lse = attune.attention(*qkv, lse=True)
    grads = attune.attention_backward(o, *qkv, o, lse)
    assert grads.bias is None and grads.alibi_slopes is None and grads.sink is None


def test_dropout_depends_on_its_seed_alone(qkv):
    first, again, other = (
        attune.attention(*qkv, dropout=0.5, dropout_seed=seed, threads=threads)
        for seed, threads in ((1, 1), (1, 2), (2, 1))
    )
    numpy.testing.assert_array_equal(first, again)
    assert (first != other).any()
    state = numpy.array([1, 0], numpy.int64)
    from_state = attune.attention(*qkv, dropout=0.5, dropout_state=state)
    numpy.testing.assert_array_equal(first, from_state)


def fa2_bytes(seed, offset, queries, keys):
    """What flash-attn draws for one head, of its csrc/flash_attn/src/dropout.h and philox.cuh."""
    i, j = numpy.ogrid[:queries, :keys]
    number = offset + i % 8 * 4 + j % 8 // 2
    words = numpy.broadcast_arrays(number, number >> 32, i // 16, j // 32)
    words = [word.astype("u8") & 0xFFFFFFFF for word in words]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(7):
        a, b = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            (b >> 32) ^ words[1] ^ key[0],
            b & 0xFFFFFFFF,
            (a >> 32) ^ words[3] ^ key[1],
            a & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    word = numpy.choose(j % 32 // 8, words).astype("u4")
    return word >> (8 * (i % 16 // 8 * 2 + j % 2)).astype("u4") & 255


def test_dropout_of_fa2s_stream():
    """Its mask is flash-attn's, forward and backward, and its own."""
    b, h, queries, keys, seed, offset = 2, 3, 37, 70, 0x123456789ABCDEF, 2**32 - 40
    q, k = numpy.zeros((b, queries, h, 8), "f4"), numpy.zeros((b, keys, h, 8), "f4")
    v = numpy.broadcast_to(numpy.eye(keys, dtype="f4")[:, None], (b, keys, h, keys))
    options = {
        "dropout": 0.25,
        "dropout_seed": seed,
        "dropout_offset": offset,
        "dropout_stream": "fa2",
    }
    o, lse = attune.attention(q, k, v, lse=True, **options)
    kept = numpy.stack(
        [fa2_bytes(seed, offset + 32 * n, queries, keys) <= 191 for n in range(b * h)]
    ).reshape(b, h, queries, keys)
    assert 0.74 < kept.mean() < 0.76
    numpy.testing.assert_array_equal(o.transpose(0, 2, 1, 3) > 0, kept)
    assert_close(o, (kept / 0.75 / keys).transpose(0, 2, 1, 3))

    grad_o = random(b, queries, h, keys)
    grads = attune.attention_backward(grad_o, q, k, v, o, lse, **options)
    want = numpy.einsum("bhij,bihd->bjhd", kept / 0.75 / keys, grad_o.astype("f8"))
    assert_close(grads.v, want)
    other = attune.attention(q, k, v, **(options | {"dropout_stream": "curand"}))
    assert ((other > 0) != (o > 0)).mean() > 0.3
    # Where nothing is dropped the stream does not count.
    whole = attune.attention(q, k, v, dropout_stream="fa2")
    numpy.testing.assert_array_equal(whole, attune.attention(q, k, v))


REFUSALS = [
    ({"mask": "diagonal"}, ValueError, "mask = 'diagonal' is none of"),
    ({"layout": "sbhd"}, ValueError, "layout = 'sbhd' is none of 'bshd', 'bhsd'"),
    ({"dropout": 0.1}, ValueError, "dropout = 0.1 needs dropout_seed"),
    (
        {"dropout_stream": "philox"},
        ValueError,
        "dropout_stream = 'philox' is none of 'curand', 'fa2'",
    ),
    (
        {"dropout": 0.999, "dropout_seed": 1, "dropout_stream": "fa2"},
        ValueError,
        "dropout = 0.999 is out of reach of dropout_stream = fa2",
    ),
    ({"dropout": 1.5, "dropout_seed": 1}, ValueError, "1.5"),
    ({"bias": numpy.zeros((9, 12), "f4")}, ValueError, "bias has shape"),
    ({"bias": numpy.zeros((9, 13), "i2")}, TypeError, "bias has elements of format 'h'"),
    ({"key_lengths": numpy.array([1, 99], "i4")}, ValueError, "99"),
    ({"key_lengths": [1, 2]}, TypeError, "key_lengths is a list, which is no array"),
    ({"out": numpy.zeros((2, 9, 6, 11), "f4")}, ValueError, "o has shape"),
    ({"scale": "large"}, TypeError, "scale = large is not a number"),
    ({"dropout": 0.1, "dropout_seed": -1}, TypeError, "dropout_seed = -1"),
    ({"threads": -1}, ValueError, "threads = -1"),
    (
        {"mask": numpy.ones((9, 13), bool), "bias": numpy.ones((9, 13), bool)},
        ValueError,
        "both arrays",
    ),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSALS)
def test_refusals_name_the_value_and_write_nothing(qkv, options, error, words):
    out = options.get("out", numpy.full((2, 9, 6, 12), 7, "f4"))
    with pytest.raises(error, match=re.escape(words)):
        attune.attention(*qkv, **{**options, "out": out})
    assert len(set(out.ravel())) == 1


def test_read_only_results_are_refused(qkv):
    q, k, v = qkv
    out, lse = numpy.full((2, 9, 6, 12), 7, "f4"), numpy.full((2, 6, 9), 7, "f4")
    for name, array in (("out", out), ("lse", lse)):
        array.flags.writeable = False
        with pytest.raises(ValueError, match=f"{name} is read-only"):
            attune.attention(q, k, v, **{"out": out, "lse": lse, name: array})
        array.flags.writeable = True
        assert (array == 7).all()
    out.flags.writeable = False
    with pytest.raises(ValueError, match="o is read-only"):
        attune.plan(q, k, v).run(q=q, k=k, v=v, o=out)


def test_wrong_inputs(qkv):
    q, k, v = qkv
    with pytest.raises(ValueError, match="hkv = 4"):
        attune.attention(q, random(2, 13, 4, 16), random(2, 13, 4, 12))
    with pytest.raises(ValueError, match="v has dtype"):
        attune.attention(q, k, v.astype("f2"))
    with pytest.raises(ValueError, match="q has 5 dimensions"):
        attune.attention(q[None], k, v)
    with pytest.raises(TypeError, match="unexpected keyword argument 'causal'"):
        attune.attention(q, k, v, causal=True)


def test_many_threads_call_at_once(qkv):
    want = attune.attention(*qkv)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda _: attune.attention(*qkv), range(100))
    assert all((result == want).all() for result in results)


def test_empty_results():
    o, lse = attune.attention(random(2, 0, 4, 8), random(2, 3, 4, 8), random(2, 3, 4, 8), lse=True)
    assert o.shape == (2, 0, 4, 8) and lse.shape == (2, 4, 0)
    o = attune.attention(random(2, 3, 4, 8), random(2, 0, 4, 8), random(2, 0, 4, 8))
    assert (o == 0).all()
