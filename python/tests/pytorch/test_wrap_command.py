"""Traced programs through `attune wrap`, where the command is on PATH."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest
import torch

import attune
from traced_kernels import ARCHS, half_of, rows, scale, scaled, triton, tuned, wrap


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
