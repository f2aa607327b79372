"""attune.wrap.trace: recording, generalising over sizes, compiling for a GPU that is not here, refusing."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import types

import pytest
import torch

import attune

triton = pytest.importorskip("triton", reason="Triton is not installed, whose kernels are traced")
wrap = pytest.importorskip("attune.wrap")
tl = triton.language

from triton.runtime.jit import create_function_from_signature  # noqa: E402
from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

from attune.wrap import _kernels, _recording, _symbols, _trace  # noqa: E402
from attune.wrap._launches import Launches  # noqa: E402

ARCHS = ["sm_90"]


@triton.jit
def scale(x, out, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) * factor, mask=i < n)


@triton.jit
def rows(x, out, stride, columns, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    at = tl.program_id(0) * stride + i
    tl.store(out + at, tl.load(x + at, mask=i < columns), mask=i < columns)


tuned = triton.autotune(
    [triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 1024}, num_warps=8)], key=["n"]
)(scale)


def scaled(x, factor=2.0):
    out = torch.empty_like(x)
    n = x.numel()
    scale[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n, factor, BLOCK=256)
    return out


def of(program, kind):
    return [
        step[kind] if kind != "kernel" else step for step in program.json["steps"] if kind in step
    ]


def trace(function, shape=(64,), words=("N",), **options):
    options.setdefault("archs", ARCHS)
    return wrap.trace(function, {"x": torch.zeros(shape)}, shapes={"x": words}, **options)


def test_a_launch():
    program = trace(scaled, sizes={"N": wrap.Size(max=4096)})
    assert program.json["sizes"] == {"N": {"min": 1, "max": 4096}}
    assert program.json["inputs"] == {"x": {"dtype": "f32", "shape": ["N"]}}
    assert program.json["outputs"] == {"out": {"dtype": "f32", "shape": ["N"]}}
    (step,) = program.json["steps"]
    assert step == {
        "kernel": "scale",
        "arguments": {"x": "x", "out": "out", "n": "N", "factor": 2.0},
        "grid": ["ceildiv(N, 256)"],
    }
    configurations = program.json["kernels"]["scale"]["configurations"]
    assert [c["divisible_by"] for c in configurations] == [
        {"x": 16, "out": 16, "n": 16},
        {"x": 16, "out": 16},
    ]
    assert all(c["constants"] == {"BLOCK": 256} for c in configurations)


def test_files(tmp_path):
    weight = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)

    def function(x, weight):
        out = torch.empty_like(x)
        scale[(1,)](weight, out, 6, 1.0, BLOCK=64)
        return out

    program = trace(function, constants={"weight": weight})
    path = program.save(tmp_path / "new")
    assert json.loads(path.read_text()) == program.json
    for kernel in program.json["kernels"].values():
        for configuration in kernel["configurations"]:
            for binary in configuration["binaries"]:
                metadata = path.parent / binary["triton"]
                assert json.loads(metadata.read_text())["target"]["arch"] == 90
                assert metadata.with_suffix(".cubin").read_bytes()[:4] == b"\x7fELF"
    data = (path.parent / "function.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header == {"weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    assert data[8 + length :] == weight.view(torch.uint8).numpy().tobytes()


def test_several_architectures():
    program = trace(scaled, archs=["sm_80", "sm_90"])
    binaries = program.json["kernels"]["scale"]["configurations"][0]["binaries"]
    assert [b["triton"].split(".")[-2] for b in binaries] == ["sm_80", "sm_90"]


def test_integers_that_may_pass_32_bits():
    def function(x):
        out = torch.empty_like(x)
        rows[(x.shape[0],)](x, out, x.stride(0), x.shape[1] * 65536, BLOCK=64)
        return out

    program = trace(function, (4, 32), ("A", "C"))
    configurations = program.json["kernels"]["rows"]["configurations"]
    assert configurations[-1]["types"] == {"columns": "i64"}
    assert "types" not in configurations[0]
    small = trace(function, (4, 32), ("A", "C"), sizes={"C": wrap.Size(max=1024)})
    assert all("types" not in c for c in small.json["kernels"]["rows"]["configurations"])


def test_multiples():
    program = trace(scaled, sizes={"N": wrap.Size(max=4096, multiple_of=16)})
    assert program.json["sizes"]["N"]["multiple_of"] == 16
    assert program.json["steps"][0]["grid"] == ["ceildiv(N, 256)"]
    (configuration,) = program.json["kernels"]["scale"]["configurations"]
    assert configuration["divisible_by"] == {"x": 16, "out": 16, "n": 16}


@pytest.mark.parametrize(
    "grid, text",
    [
        (lambda b, s: b * s, "B * S"),
        (lambda b, s: triton.cdiv(b * s, 64), "ceildiv(B * S, 64)"),
        (lambda b, s: -(-s // 64), None),
        (lambda b, s: s // 8 + 1, "S // 8 + 1"),
        (lambda b, s: s % 7 + b, None),
        (lambda b, s: torch.sym_max(s, 64), None),
        (lambda b, s: torch.sym_min(s, 64) * 3, None),
        (lambda b, s: triton.cdiv(s, 64) * triton.cdiv(b, 2), None),
        (lambda b, s: (s + b) * (s + 1), None),
        (lambda b, s: triton.cdiv(triton.cdiv(s, 16), 3), None),
        (lambda b, s: 5000 * b - s, "B * 5000 - S"),
        (lambda b, s: s * s * b, None),
        (lambda b, s: __import__("math").ceil(s / 64), "ceildiv(S, 64)"),
        (lambda b, s: s // 24, None),
    ],
)
@pytest.mark.parametrize("unit", [1, 24])
def test_expressions(grid, text, unit):
    def function(x):
        out = torch.empty_like(x)
        scale[(grid(x.shape[0], x.shape[1]),)](x, out, 1, 1.0, BLOCK=64)
        return out

    size = wrap.Size(max=4800, multiple_of=unit)
    program = trace(function, (4, 96), ("B", "S"), sizes={"B": wrap.Size(max=64), "S": size})
    (said,) = program.json["steps"][0]["grid"]
    if unit == 1 and text is not None:
        assert said == text
    names = {"ceildiv": lambda a, b: -(-a // b), "min": min, "max": max}
    for b, s in [(1, unit), (3, 7 * unit), (64, 4800), (5, 100 * unit)]:
        assert eval(str(said), names, {"B": b, "S": s}) == grid(b, s), said


def test_views_and_temporaries():
    def function(x):
        b, s, _ = x.shape
        both = torch.empty(b * s, 2, 64)
        scale[(b * s,)](x.view(b * s, 64), both, b * s, 1.0, BLOCK=64)
        q, k = both.view(b, s, 128).chunk(2, dim=-1)
        q, k = q.unflatten(-1, (4, 16)), k.unflatten(-1, (4, 16))
        return attune.attention(q, k, k, mask="causal", window=(128, 0), softcap=30.0, scale=0.25)

    program = trace(function, (2, 8, 64), ("B", "S", None))
    (attention,) = of(program, "attention")
    assert (
        attention["problem"]
        == "forward mask=causal-bottom-right window=128,0 softcap=30.0 scale=0.25"
    )
    assert attention["o"] == "out" and "lse" not in attention and attention["k"] == attention["v"]
    views = {view["as"]: view for view in of(program, "view")}
    q, k = views[attention["q"]], views[attention["k"]]
    assert q["shape"] == k["shape"] == ["B", "S", 4, 16]
    assert q["strides"] == k["strides"] == ["S * 128", 128, 16, 1]
    assert "offset" not in q and k["offset"] == 64
    assert list(program.json["temporaries"].values()) == [
        {"dtype": "f32", "shape": ["B * S", 2, 64]}
    ]
    assert program.json["outputs"]["out"]["shape"] == ["B", "S", 4, 16]


def test_attention_of_the_drop_ins():
    from attune.compat.torch import scaled_dot_product_attention

    def function(x):
        heads = x.view(x.shape[0], x.shape[1], 4, 16).transpose(1, 2)
        o = scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        return o.transpose(1, 2).reshape(x.shape)

    program = trace(function, (2, 8, 64), ("B", "S", None))
    (attention,) = of(program, "attention")
    assert attention["problem"] == "forward mask=causal-top-left"
    views = {view["as"]: view for view in of(program, "view")}
    assert views[attention["q"]]["shape"] == views[attention["o"]]["shape"] == ["B", "S", 4, 16]
    assert program.json["outputs"]["out"]["shape"] == ["B", "S", 64]


def test_packed_attention_and_a_second_output():
    def function(x, starts, longest):
        o, lse = attune.attention(x, x, x, cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=longest,
                                  max_seqlen_k=longest, lse=True)  # fmt: skip
        return {"o": o, "lse": lse}

    inputs = {
        "x": torch.zeros(20, 2, 16),
        "starts": torch.tensor([0, 8, 20], dtype=torch.int32),
        "longest": 12,
    }
    program = wrap.trace(function, inputs, shapes={"x": ("T", None, None), "starts": ("L",)}, archs=ARCHS,
                         sizes={"L": wrap.Size(min=2, max=100)})  # fmt: skip
    (attention,) = of(program, "attention")
    assert attention["max_seqlen_q"] == attention["max_seqlen_k"] == "longest"
    assert attention["cu_seqlens_q"] == "starts" and attention["lse"] == "lse"
    assert program.json["inputs"]["longest"]["dtype"] == "i64"
    assert program.json["outputs"]["lse"] == {"dtype": "f32", "shape": [2, "T"]}


def test_scalars_copies_and_fills():
    def function(x, factor, count):
        out = torch.zeros(x.shape[0], 64)
        scale[(count,)](x, out, count * 64, factor, BLOCK=64)
        return out, x.clone(), out[:, 32:]

    inputs = {"x": torch.zeros(8, 64), "factor": 0.5, "count": 3}
    program = wrap.trace(
        function, inputs, shapes={"x": ("N", None)}, archs=ARCHS, sizes={"count": wrap.Size(0, 100)}
    )
    assert program.json["inputs"]["factor"] == {"dtype": "f32"}
    assert program.json["inputs"]["count"] == {
        "dtype": "i64",
        "min": 0,
        "max": 100,
        "multiple_of": 1,
    }
    assert of(program, "fill") == [{"tensor": "out0", "value": 0.0}]
    assert [copy["to"] for copy in of(program, "copy")] == ["out1", "out2"]
    (launch,) = of(program, "kernel")
    assert launch["arguments"] == {"x": "x", "out": "out0", "n": "count * 64", "factor": "factor"}
    assert launch["grid"] == ["count"]


def test_what_depends_on_no_input_is_a_constant():
    weight = torch.randn(8, 16)

    def function(x):
        table = torch.cos(weight.t() * torch.arange(8))
        out = torch.empty_like(x)
        scale[(1,)](table.contiguous(), out, 128, 1.0, BLOCK=128)
        return out

    program = trace(function)
    (constant,) = program.constants.values()
    assert torch.equal(constant.reshape(16, 8), torch.cos(weight.t() * torch.arange(8)))


def test_names_of_a_module():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.LayerNorm(64)

        def forward(self, x):
            out = torch.empty_like(x)
            scale[(1,)](self.norm.weight, out, 64, 1.0, BLOCK=64)
            return out

    program = trace(Layer(), name="layer")
    assert list(program.constants) == ["norm_weight"]


def test_autotuned_kernels(monkeypatch):
    def function(x):
        out = torch.empty_like(x)
        n = x.numel()
        tuned[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n, 1.0)
        return out

    first = trace(function)
    assert {c["constants"]["BLOCK"] for c in first.json["kernels"]["scale"]["configurations"]} == {
        256
    }
    # As if it had been tuned at both sizes.
    dtypes = ("torch.float32", "torch.float32")
    monkeypatch.setattr(
        tuned, "cache", {(64, *dtypes): tuned.configs[0], (4096, *dtypes): tuned.configs[1]}
    )
    examples = [{"x": torch.zeros(64)}, {"x": torch.zeros(4096)}]
    both = wrap.trace(function, examples, shapes={"x": ("N",)}, archs=ARCHS)
    configurations = both.json["kernels"]["scale"]["configurations"]
    large = [c for c in configurations if c.get("when") == "n >= 4096"]
    small = [c for c in configurations if "when" not in c]
    assert large + small == configurations
    assert {c["constants"]["BLOCK"] for c in large} == {1024} and {c["grid"][0] for c in large} == {
        "ceildiv(N, 1024)"
    }
    assert {c["constants"]["BLOCK"] for c in small} == {256} and {c["grid"][0] for c in small} == {
        "ceildiv(N, 256)"
    }


def test_what_an_autotuner_found_is_found_again(monkeypatch):
    """Under the key that Triton's own tuner writes down, with kernels that cost what the test says."""
    cost, launched = {256: 2.0, 1024: 1.0}, []
    monkeypatch.setattr(tuned, "cache", {})
    x = torch.zeros(64)
    with monkeypatch.context() as patch:
        patch.setattr(
            scale, "run", lambda *args, **options: launched.append(options["BLOCK"]), raising=False
        )
        patch.setattr(
            tuned, "_do_bench", lambda call, quantiles: (call(), [cost[launched[-1]]] * 3)[1]
        )
        tuned[(1,)](x, x, x.numel(), factor=1.0)
    assert launched == [256, 1024, 1024]

    def function(x):
        out = torch.empty_like(x)
        tuned[(1,)](x, out, x.numel(), factor=1.0)
        return out

    program = trace(function)
    assert {
        c["constants"]["BLOCK"] for c in program.json["kernels"]["scale"]["configurations"]
    } == {1024}
    monkeypatch.setattr(
        _trace, "Launches", lambda recorder, chosen, must_be_tuned: Launches(recorder, chosen, True)
    )
    with pytest.raises(wrap.TraceError, match=r"kernel scale was not tuned for \{'n': 63\}"):
        trace(function, shape=(63,))


def test_examples_bring_their_specialisations():
    examples = [{"x": torch.zeros(n)} for n in (64, 1)]
    program = wrap.trace(scaled, examples, shapes={"x": ("N",)}, archs=ARCHS)
    configurations = program.json["kernels"]["scale"]["configurations"]
    assert configurations[0]["constants"] == {"n": 1, "BLOCK": 256}
    assert [c.get("divisible_by", {}).get("n") for c in configurations] == [None, 16, None]


def test_specialisation_is_tritons():
    values = {"x": torch.zeros(64), "out": torch.zeros(65)[1:], "n": 48, "factor": 1.0}
    for n in (1, 16, 17, 1 << 31, (1 << 31) - 1, True, None, 2.5):
        values["n"] = n
        backend = triton.compiler.make_backend(triton.backends.compiler.GPUTarget("cuda", 90, 32))
        bind = create_function_from_signature(scale.signature, scale.params, backend)
        bound, theirs, _ = bind(*values.values(), BLOCK=64)
        recording, arguments = _recording.Recording(), {}
        for name, value in bound.items():
            arguments[name] = value
            if isinstance(value, torch.Tensor):
                recording.storages.append(
                    _recording.Storage(
                        "input", value.dtype, [], 0, alignment=4 if name == "out" else 16
                    )
                )
                index = len(recording.storages) - 1
                arguments[name] = _recording.View(
                    index, value.dtype, [], [], _symbols.Symbols.expression(0)
                )
        launch = _recording.Launch(scale, arguments, {}, [1], {}, ())
        symbols = _symbols.Symbols({}, {}, False)
        ours = _kernels.Specialization(launch, recording, symbols, "test").example()
        for (name, kind), (their_kind, their_mark) in zip(ours.types, theirs):
            assert kind.replace("i1", "u1") == their_kind.replace("i1", "u1"), (n, name)
            assert (name in ours.divisible) == (their_mark == "D"), (n, name)


@triton.jit
def blocks(source, target, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS
    target.store([row, 0], source.load([row, 0]))


def half_of(x):
    out = torch.empty_like(x)
    half = TensorDescriptor.from_tensor(x[:, 32:], [16, 32])
    blocks[(triton.cdiv(x.shape[0], 16),)](half, TensorDescriptor.from_tensor(out, [16, 32]), 16)
    return out


def test_descriptors():
    program = trace(half_of, (8, 64), ("N", None))
    kernel = program.json["kernels"]["blocks"]
    assert [p["type"] for p in kernel["parameters"]] == ["tensordesc<fp32[16, 32]>"] * 2 + [
        "constexpr"
    ]
    (view,) = of(program, "view")
    assert (view["shape"], view["strides"], view["offset"]) == (["N", 32], [64, 1], 32)
    assert program.json["steps"][-1]["arguments"] == {"source": view["as"], "target": "out"}


@triton.heuristics({"EVEN": lambda arguments: arguments["n"] % 64 == 0})
@triton.jit
def even(x, out, n, EVEN: tl.constexpr):
    i = tl.program_id(0) * 64 + tl.arange(0, 64)
    tl.store(out + i, tl.load(x + i, mask=EVEN or i < n), mask=EVEN or i < n)


def test_heuristics():
    def function(x):
        out = torch.empty_like(x)
        even[(triton.cdiv(x.shape[0], 64),)](x, out, x.shape[0])
        return out

    program = trace(function, sizes={"N": wrap.Size(max=4096, multiple_of=64)})
    (configuration,) = program.json["kernels"]["even"]["configurations"]
    assert configuration["constants"] == {"EVEN": True}
    assert program.json["steps"][0]["grid"] == ["N // 64"]
    with pytest.raises(wrap.TraceError, match="N % 64 == 0 held at N = 64"):
        trace(function)


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
        (_converts, ["aten.add.Tensor(f32[", "compute it in a kernel"]),
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


def test_the_example():
    examples = pathlib.Path(__file__).parents[3] / "examples"
    sys.path.insert(0, str(examples))
    try:
        import triton_block
    finally:
        sys.path.remove(str(examples))
    program = triton_block.traced("cpu", ARCHS, s=64)
    steps = [next(iter(step)) for step in program.json["steps"] if "view" not in step]
    assert steps == ["kernel"] * 3 + ["attention"] + ["kernel"] * 5
    assert set(program.constants) == {"attention_norm", "wqkv", "wo", "mlp_norm", "wup", "wdown"}
    assert dataclasses.is_dataclass(program)


def command(*words):
    """The attune command on PATH."""
    found = shutil.which("attune")
    if not found:
        pytest.skip("there is no attune command on PATH")
    return subprocess.run([found, *map(str, words)], capture_output=True, text=True)


def several(x):
    b, s, _ = x.shape
    both = torch.zeros(b * s, 2, 64)
    rows[(b * s,)](x, both, 128, 64, BLOCK=64)
    tuned[lambda meta: (triton.cdiv(b * s, meta["BLOCK"]),)](x, both, b * s, 1.0)
    scaled(both, 3)
    return both[:, 1].clone(), both, half_of(x.view(b * s, 64))


def test_a_traced_program_is_wrapped(tmp_path):
    examples = [{"x": torch.zeros(2, s, 64)} for s in (1, 16, 100)]
    program = wrap.trace(several, examples, shapes={"x": ("B", "S", None)}, archs=["sm_90"])
    done = command("wrap", program.save(tmp_path), "-o", tmp_path / "package")
    assert done.returncode == 0, done.stderr
    if compiler := shutil.which("g++"):
        words = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", "several.cpp"]
        assert subprocess.run([*words, "-o", os.devnull], cwd=tmp_path / "package").returncode == 0


def test_a_program_of_attention_is_checked_on_the_cpu(tmp_path):
    weight = torch.randn(2, 2, 9, 16)

    def function(q, sink):
        mixed = torch.empty(q.shape[0], 2, q.shape[1], 16)
        mixed.copy_(q.transpose(1, 2))
        o, lse = attune.attention(
            mixed.transpose(1, 2),
            weight.transpose(1, 2),
            weight.transpose(1, 2),
            sink=sink,
            lse=True,
        )
        again = attune.attention(o, q, q, mask="causal", window=(3, 0))
        return {"o": again, "lse": lse, "q_again": q[:, :, 1]}

    q = torch.randn(2, 5, 2, 16)
    inputs = [
        {"q": q, "sink": torch.randn(2)},
        {"q": torch.randn(2, 1, 2, 16), "sink": torch.zeros(2)},
    ]
    program = wrap.trace(function, inputs, shapes={"q": (None, "S", None, None)}, name="attend")
    assert set(program.recording) == {
        f"example{i}/{n}" for i in (0, 1) for n in ("q", "sink", "o", "lse", "q_again")
    }
    if not shutil.which("cmake"):
        pytest.skip("there is no CMake, with which --check builds")
    path = program.save(tmp_path)
    done = command("wrap", path, "-o", tmp_path / "package", "--device", "cpu", "--check",
                   tmp_path / "attend.recording.safetensors")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 6 and "example1 o" in done.stdout


def test_the_documentation_works(tmp_path, monkeypatch):
    text = (pathlib.Path(__file__).parents[3] / "docs" / "wrap.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    kernels = types.ModuleType("kernels")
    kernels.scale = scale
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    monkeypatch.chdir(tmp_path)
    if not torch.cuda.is_available():
        monkeypatch.setattr(wrap, "trace", functools.partial(wrap.trace, archs=ARCHS))
        code = code.replace(', device="cuda"', "")
    exec(code, {})
    program = json.loads((tmp_path / "traced" / "scaling.json").read_text())
    by_hand = json.loads(text.split("```json\n")[1].split("```")[0])
    assert program["inputs"] == by_hand["inputs"] and program["outputs"] == by_hand["outputs"]
    done = command("wrap", tmp_path / "traced" / "scaling.json", "-o", tmp_path / "scaling")
    assert done.returncode == 0, done.stderr
