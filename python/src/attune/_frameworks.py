"""What DLPack leaves to each framework: making results, and the current stream.

PyTorch does both through DLPack's exchange API, inside attune._core, since 2.10; before, here.
"""

from __future__ import annotations


def name_of(array) -> str:
    """ "numpy", "cupy", "jax" ...: the package of an array's type."""
    name = type(array).__module__.partition(".")[0]
    return "jax" if name in ("jaxlib", "jax") else name


def on_cuda(array) -> bool:
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in (2, 13)


def check_writable(array, name: str) -> None:
    """Refuses a place for a result in an immutable array whose DLPack does not say so."""
    if name_of(array) == "jax":
        raise ValueError(f"{name} is read-only: arrays of JAX are immutable")


def current_stream(array) -> int:
    """The framework's current stream on the array's device, as cudaStream_t; 0 on the CPU."""
    framework = name_of(array)
    if framework == "cupy":
        import cupy

        with cupy.cuda.Device(array.device.id):
            return cupy.cuda.get_current_stream().ptr
    if framework == "torch" and array.is_cuda:
        import torch

        return torch.cuda.current_stream(array.device).cuda_stream
    return 0


def empty(like, shape: tuple, dtype=None):
    """An array of like's framework, device and (unless dtype, a name, is given) dtype."""
    framework = name_of(like)
    if framework == "cupy":
        import cupy

        with cupy.cuda.Device(like.device.id):
            return cupy.empty(shape, dtype or like.dtype)
    if framework == "torch":
        import torch

        kind = like.dtype if dtype is None else getattr(torch, dtype)
        return torch.empty(shape, dtype=kind, device=like.device)
    if on_cuda(like):
        raise NotImplementedError(
            f"results of {framework} arrays on a GPU can't be made here: the framework lets nobody "
            "else write to its arrays. Call attention on CuPy or PyTorch views of them (from_dlpack)"
        )
    import numpy

    return numpy.empty(shape, dtype or getattr(like, "dtype", numpy.float32))


def native(result, like):
    """A result as an array of like's framework; NumPy's are returned as they are."""
    if result is None or name_of(like) != "jax" or name_of(result) == "jax":
        return result
    import jax

    # Nobody else has the array, so it may become an immutable one without a copy.
    return jax.dlpack.from_dlpack(result) if result.dtype.kind != "V" else jax.numpy.asarray(result)
