"""What attune.wrap.trace refuses, by name."""

import threading

import pytest
import torch

import attune
from traced_kernels import ARCHS, TensorDescriptor, blocks, scale, scaled, tl, trace, triton, wrap


def _address(x):
    out = torch.empty(64)
    scale[(1,)](x, out, out.data_ptr(), 1.0, BLOCK=64)
    return out


def _transposed(x):
    return torch.zeros(4, x.shape[0]).t()


@triton.jit
def adds_in_a_loop(x, total, other, steps, BLOCK: tl.constexpr):
    at = x + tl.arange(0, BLOCK)
    place, read = total + tl.arange(0, BLOCK), other + tl.arange(0, BLOCK)
    for i in range(steps):
        if i % 2 == 0:
            tl.atomic_add(place, tl.load(at) + tl.load(read))
        at += BLOCK
        place += BLOCK
        read += BLOCK


def _kernel_writes(which):
    def function(x):
        tensors = [torch.zeros(64), torch.zeros(64), torch.zeros(64)]
        tensors[which] = x
        adds_in_a_loop[(1,)](*tensors, x.shape[0] // 64, BLOCK=64)
        return tensors[1] if which != 1 else tensors[0]

    return function


def test_what_a_kernel_writes_to():
    for which in (0, 2):
        trace(_kernel_writes(which), shape=(640,))
    says = "kernel adds_in_a_loop: it writes to its argument total, which is the input x"
    with pytest.raises(wrap.TraceError, match=says):
        trace(_kernel_writes(1), shape=(640,))
    weight = torch.zeros(64)
    with pytest.raises(
        wrap.TraceError, match="kernel scale: it writes to its argument out, which is a constant"
    ):
        trace(lambda x: (scale[(1,)](x, weight, 64, 1.0, BLOCK=64), x.clone())[1])
    with pytest.raises(wrap.TraceError, match="kernel blocks: it writes to its argument target"):
        trace(_into_its_input, shape=(16, 32), words=("N", None))


def _into_its_input(x):
    out = torch.zeros(16, 32)
    blocks[(1,)](
        TensorDescriptor(out, out.shape, out.stride(), [16, 32]),
        TensorDescriptor.from_tensor(x, [16, 32]),
        16,
    )
    return out


def _branches(x):
    out = torch.empty_like(x)
    scale[(2 if x.shape[0] > 100 else 1,)](x, out, 1, 1.0, BLOCK=64)
    return out


def _converts(x):
    return scaled(x + 1)


def _constexpr(x):
    out = torch.empty_like(x)
    scale[(1,)](x, out, 1, 1.0, BLOCK=x.shape[0])
    return out


def _in_place(x):
    x.zero_()
    return scaled(x)


def _casts(x):
    return scaled(x.to(torch.float16))


def _reads(x):
    return scaled(x, factor=x[0].item())


def _fixed(x):
    out = torch.empty_like(x)
    scale[(1,)](x, out, int(x.shape[0]), 1.0, BLOCK=64)
    return out


def _computes(x, factor=0.5):
    return scaled(x, factor=factor * 2)


def _power(x):
    out = torch.empty_like(x)
    scale[(triton.next_power_of_2(x.shape[0]),)](x, out, 1, 1.0, BLOCK=64)
    return out


def _unknown_option(x):
    out = torch.empty_like(x)
    scale[(1,)](x, out, 1, 1.0, BLOCK=64, num_wraps=4)
    return out


def _wrong_arguments(x):
    scale[(1,)](x, x)
    return x


def _does_not_compile(x):
    out = torch.empty_like(x)
    scale[(1,)](x, out, 1, 1.0, BLOCK=65)
    return out


def _loops(x):
    out = torch.empty_like(x)
    for _ in range(x.shape[0] // 64):
        scale[(1,)](x, out, 1, 1.0, BLOCK=64)
    return out


def _scaled_attention(x):
    q = x.view(1, -1, 1, 1)
    return attune.attention(q, q, q, window=(x.shape[0] // 2, 0))


_seen = []


def _remembers(x):
    """A number that a list brings past the symbols."""
    _seen.append(x.shape[0])
    out = torch.empty_like(x)
    scale[(_seen[0] if isinstance(_seen[0], int) else 1,)](x, out, len(_seen), 1.0, BLOCK=64)
    return out


@pytest.mark.parametrize(
    "function, says",
    [
        (
            _branches,
            [
                "branches: its course depends on the sizes: N <= 100 held at N = 64",
                "not at every size",
            ],
        ),
        (_converts, ["aten.add.Tensor(f32[N])", "compute it in a kernel"]),
        (_constexpr, ["kernel scale: argument BLOCK is a constexpr and depends on the sizes"]),
        (_in_place, ["aten.zero_.default writes to the input x"]),
        (_casts, ["aten._to_copy.default converts to torch.float16"]),
        (_reads, ["aten._local_scalar_dense.default reads a tensor's values"]),
        (_fixed, ["its course depends on the sizes: N == 64"]),
        (_power, ["kernel scale: its grid", "is no expression of"]),
        (_unknown_option, ["kernel scale", "num_wraps"]),
        (_wrong_arguments, ["kernel scale: missing a required argument: 'n'"]),
        (_does_not_compile, ["kernel scale does not compile for sm_90"]),
        (_loops, ["its course depends on the sizes"]),
        (lambda x: scaled(torch.rand(64)), ["aten.rand.default draws random numbers"]),
        (_address, ["fails in line", "on tensors without data", "data"]),
        (_transposed, ["the output out has strides [1, 'N']; return it contiguous"]),
        (_scaled_attention, ["attention: left = ", "depends on the sizes"]),
        (_remembers, ["argument n is"]),
        (lambda x: 3, ["a tensor, or a tuple or dict of them, was expected"]),
        (lambda x: {"x": scaled(x)}, ["x is the name of an output and of an input"]),
        (lambda x: scaled(torch.arange(x.shape[0])), ["whose values or shape depend on the sizes"]),
        (lambda x: scaled(x.missing), ["tensors without data", "AttributeError"]),
    ],
)
def test_refusals(function, says):
    with pytest.raises(wrap.TraceError) as error:
        trace(function)
    for words in says:
        assert words in str(error.value)


def test_a_float_that_is_computed():
    with pytest.raises(
        wrap.TraceError, match="argument factor is .*computed from sizes or scalars"
    ):
        wrap.trace(
            _computes, {"x": torch.zeros(64), "factor": 0.5}, shapes={"x": ("N",)}, archs=ARCHS
        )


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"shapes": {"y": ("N",)}}, "shapes has 'y', which is no tensor among the inputs"),
        ({"shapes": {"x": ("N", "M")}}, "of 2 dimensions"),
        ({"shapes": {"x": (65,)}}, "is 65, and the example has 64"),
        ({"shapes": {"x": ("N",)}, "sizes": {"M": wrap.Size()}}, "sizes has 'M'"),
        ({"shapes": {"x": ("N",)}, "sizes": {"N": wrap.Size(max=32)}}, "not in N's range"),
        ({"shapes": {"x": ("a b",)}}, "'a b' is no name of a size"),
        ({"inputs": {"x": torch.zeros(64), "flag": True}}, "the input flag is True"),
        ({"inputs": {"x": torch.zeros(64, 2)[:, 0]}}, "has gaps"),
        (
            {"inputs": [{"x": torch.zeros(64)}, {"x": torch.zeros(64).half()}]},
            "the examples are of unlike inputs",
        ),
        ({"archs": None}, "there is no GPU here"),
    ],
)
def test_bad_arguments(arguments, says):
    if says.startswith("there is no GPU") and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        wrap.trace(scaled, **{"inputs": {"x": torch.zeros(64)}, "archs": ARCHS, **arguments})


def test_a_size_of_few_values_is_refused():
    with pytest.raises(ValueError, match="fewer than two values"):
        wrap.Size(min=1, max=1)


def test_narrowed_sizes_settle_a_branch():
    program = trace(_branches, sizes={"N": wrap.Size(max=100)})
    assert program.json["steps"][0]["grid"] == [1]


def test_triton_is_left_as_it_was():
    run, tune = triton.runtime.jit.JITFunction.run, triton.runtime.autotuner.Autotuner.run
    with pytest.raises(wrap.TraceError):
        trace(_converts)
    trace(scaled)
    assert (run, tune) == (
        triton.runtime.jit.JITFunction.run,
        triton.runtime.autotuner.Autotuner.run,
    )


def test_other_threads_launch_meanwhile(monkeypatch):
    launched = []
    run = lambda self, *args, grid, warmup, **options: launched.append(self.__name__)  # noqa: E731
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", run)
    x = torch.zeros(64)

    def function(y):
        other = threading.Thread(target=lambda: scale[(1,)](x, x, 64, 1.0, BLOCK=64))
        other.start()
        other.join()
        return scaled(y)

    program = wrap.trace(function, {"y": x}, archs=ARCHS)
    assert len(program.json["steps"]) == 1
    assert launched and set(launched) == {"scale"}
