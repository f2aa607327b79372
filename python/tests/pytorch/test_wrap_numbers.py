"""What a traced program computes, at a size that was not traced: the function's own numbers."""

import os
import pathlib
import subprocess
import sys

from traced_kernels import ARCHS

TESTS = pathlib.Path(__file__).parents[1]
EXAMPLES = TESTS.parents[1] / "examples"


def test_the_block(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import triton_block

    path = triton_block.traced("cpu", ARCHS, s=64).save(tmp_path)
    words = [sys.executable, TESTS / "run_traced_block.py", EXAMPLES, path, "2", "7"]
    done = subprocess.run(
        words, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the same bits\n"
