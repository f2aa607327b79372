"""Arrays that are neither NumPy's nor PyTorch's: DLPack in both of its versions, JAX."""

import numpy
import pytest

import attune
from dense64 import assert_close, attention

RNG = numpy.random.default_rng(3)


class Exported:
    """An array that offers DLPack and nothing else."""

    def __init__(self, array, versioned):
        self.array, self.versioned = array, versioned
        self.exports = 0
        self.shape = array.shape

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        if not self.versioned and "max_version" in options:
            raise TypeError("an unexpected keyword argument 'max_version'")
        self.exports += 1
        supported = numpy.lib.NumpyVersion(numpy.__version__) >= "2.1.0"
        return self.array.__dlpack__(**(options if supported else {}))


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack_alone(versioned):
    arrays = [RNG.standard_normal((2, 5, 4, 8), dtype="f4") for _ in range(3)]
    exported = [Exported(array, versioned) for array in arrays]
    out = numpy.empty((2, 5, 4, 8), "f4")
    attune.attention(*exported, out=out)
    assert_close(out, attention(*arrays)[0])
    assert all(array.exports > 0 for array in exported)


def test_a_device_that_attune_does_not_know():
    class Elsewhere(Exported):
        def __dlpack_device__(self):
            return (8, 0)  # Metal

        def __dlpack__(self, **options):
            raise BufferError("no")

    array = Elsewhere(numpy.zeros((1, 2, 1, 4), "f4"), True)
    with pytest.raises(BufferError):
        attune.attention(array, array, array, out=numpy.zeros((1, 2, 1, 4), "f4"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_jax(dtype):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    arrays = [
        jax.numpy.asarray(RNG.standard_normal((2, 5, 4, 8), dtype="f4"), dtype=dtype)
        for _ in range(3)
    ]
    o, lse = attune.attention(*arrays, lse=True)
    assert isinstance(o, jax.Array) and isinstance(lse, jax.Array) and o.dtype == dtype
    want, want_lse = attention(*(numpy.asarray(array, dtype="f8") for array in arrays))
    assert_close(o, want, dtype)
    assert_close(lse, want_lse)
    with pytest.raises(ValueError, match="out is read-only"):
        attune.attention(*arrays, out=o)
