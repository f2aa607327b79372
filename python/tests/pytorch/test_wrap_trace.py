"""attune.wrap.trace: recording, generalising over sizes, compiling for a GPU that is not here."""

import dataclasses
import json
import pathlib
import struct
import sys

import pytest
import torch

import attune

pytest.importorskip("triton", reason="Triton is not installed, whose kernels are traced")

from triton.runtime.jit import create_function_from_signature  # noqa: E402

from attune.wrap import _kernels, _recording, _symbols, _trace  # noqa: E402
from attune.wrap._launches import Launches  # noqa: E402
from traced_kernels import (  # noqa: E402
    ARCHS,
    half_of,
    of,
    rows,
    scale,
    scaled,
    tl,
    trace,
    triton,
    tuned,
    wrap,
)


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


@pytest.mark.parametrize(("stream", "words"), [("curand", ""), ("fa2", " dropout_stream=fa2")])
def test_attention_names_the_stream_of_its_dropout(stream, words):
    def function(x):
        return attune.attention(
            x, x, x, dropout=0.25, dropout_stream=stream, dropout_seed=3, dropout_offset=32
        )

    program = trace(function, (2, 8, 4, 16), ("B", "S", None, None))
    (attention,) = of(program, "attention")
    assert attention["problem"] == "forward dropout=0.25" + words
    assert (attention["dropout_seed"], attention["dropout_offset"]) == (3, 32)


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


def test_copies_that_one_row_has_no_need_of():
    def function(x):
        heads = x.view(x.shape[0], x.shape[1], 4, 16).transpose(1, 2)
        q = heads.contiguous()
        both = torch.empty_like(q)
        scale[(1,)](q, both, q.numel(), 1.0, BLOCK=64)
        rows = heads.reshape(-1, 16)
        scale[(1,)](rows, both, rows.shape[0], 1.0, BLOCK=64)
        return both, heads.contiguous()

    program = trace(function, (2, 8, 64), ("B", "S", None))
    assert len(of(program, "copy")) == 3
    least = wrap.trace(
        function, {"x": torch.zeros(2, 1, 64)}, shapes={"x": ("B", "S", None)}, archs=ARCHS
    )
    assert least.json["steps"] == program.json["steps"]


def test_a_copy_that_is_asked_for_is_made_at_every_size():
    def function(x):
        made = torch.empty(2, 4, x.shape[1], 16)
        made.copy_(x.view(2, x.shape[1], 4, 16).transpose(1, 2))
        return made

    program = trace(function, (2, 8, 64), (None, "S", None))
    assert len(of(program, "copy")) == 1
