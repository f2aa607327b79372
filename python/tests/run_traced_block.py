"""Runs a traced examples/triton_block.py step by step on the CPU, beside the function itself and that
beside float64; started by test_wrap_numbers.py, with TRITON_INTERPRET=1. Tensors are float32 here: Triton's
interpreter multiplies matrices of bfloat16 as if their bits were integers.

usage: run_traced_block.py EXAMPLES PROGRAM.json BATCH LENGTH
"""

import json
import pathlib
import re
import struct
import sys

import torch
from triton.runtime import interpreter

import attune

DTYPES = {"bf16": torch.float32}
NAMES = {"ceildiv": lambda a, b: -(-a // b), "min": min, "max": max}


def mend_interpreter():
    """Triton 3.6 makes numbers of arrays of one element, which NumPy 2.4 no longer does."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + length]), {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.bfloat16)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def execute(program, module, tensors, sizes):
    def number(expression):
        return eval(str(expression), NAMES, dict(sizes))

    for section in ("temporaries", "outputs"):
        for name, entry in program[section].items():
            shape = [number(extent) for extent in entry["shape"]]
            # What nobody writes shows.
            tensors[name] = torch.full(shape, float("nan"), dtype=DTYPES[entry["dtype"]])
    for step in program["steps"]:
        if "view" in step:
            view = step["view"]
            base = tensors[view["of"]]
            shape = [number(extent) for extent in view["shape"]]
            strides = [number(stride) for stride in view.get("strides", [])]
            strides = strides or torch.empty(shape, device="meta").stride()
            offset = base.storage_offset() + number(view.get("offset", 0))
            tensors[view["as"]] = torch.as_strided(base, shape, strides, offset)
        elif "attention" in step:
            q, k, v, o = (tensors[step["attention"][name]] for name in "qkvo")
            assert step["attention"]["problem"] == "forward mask=causal-bottom-right"
            attune.attention(q, k, v, out=o, mask="causal")
        else:
            kernel = program["kernels"][step["kernel"]]
            function = getattr(module, re.sub(r"_\d+$", "", step["kernel"]))
            function = (
                getattr(function, "fn", function) if hasattr(function, "configs") else function
            )
            types = {parameter["name"]: parameter["type"] for parameter in kernel["parameters"]}
            given = {}
            for name, value in kernel["configurations"][-1]["constants"].items():
                given[name] = float(value) if isinstance(value, str) else value
            for name, value in step["arguments"].items():
                is_float = types[name].startswith("fp")
                given[name] = (
                    tensors[value]
                    if types[name][0] == "*"
                    else value
                    if is_float
                    else number(value)
                )
            function[tuple(number(extent) for extent in step["grid"])](**given)
    return tensors


def main():
    sys.path.insert(0, sys.argv[1])
    import triton_block

    mend_interpreter()
    path, (b, s) = pathlib.Path(sys.argv[2]), map(int, sys.argv[3:5])
    program = json.loads(path.read_text())
    weights = triton_block.make_weights("cpu")
    constants = read_safetensors(path.with_suffix(".safetensors"))
    assert constants.keys() == weights.keys()
    assert all(torch.equal(constants[name], weights[name]) for name in weights)
    weights = {name: weight.float() for name, weight in weights.items()}
    x = torch.randn(b, s, triton_block.HIDDEN)
    triton_block.linear.configs = triton_block.linear.configs[:1]
    want = triton_block.block(x, **weights)
    exact = triton_block.reference(x, **weights)
    assert (want - exact).abs().max() <= 1e-5 * exact.abs().max()
    given = {"x": x, **{name: constant.float() for name, constant in constants.items()}}
    got = execute(program, triton_block, given, {"B": b, "S": s})["out"]
    assert torch.equal(got, want), (got - want).abs().max()
    print("the same bits")


if __name__ == "__main__":
    main()
