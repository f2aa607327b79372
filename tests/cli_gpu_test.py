#!/usr/bin/env python3
"""The attune command with a GPU, which is a stand-in for the driver's library: it launches nothing.

usage: cli_gpu_test.py ATTUNE STAND_IN SOURCE_DIR
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ATTUNE, STAND_IN, SOURCE = sys.argv[1:4]
PROBLEM = "forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 device=cuda"


class Gpu(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def attune(self, *arguments, code=0, **variables):
        environment = {**os.environ, "ATTUNE_CUDA_DRIVER": STAND_IN, "ATTUNE_JIT": "off",
                       "ATTUNE_CACHE_DIR": str(self.folder / "cache"), **variables}
        result = subprocess.run([ATTUNE, *map(str, arguments)], capture_output=True, text=True,
                                timeout=300, cwd=self.folder, env=environment)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def test_doctor_names_the_gpu(self):
        self.assertIn("GPU 0: Stand-in 0, sm_90, 132 SMs", self.attune("doctor").stdout)
        report = json.loads(self.attune("doctor", "--json").stdout)
        self.assertEqual([gpu["arch"] for gpu in report["gpus"]], [90])

    def test_list_says_which_rows_run_here(self):
        rows = json.loads(self.attune("list", "--json").stdout)
        portable = [row for row in rows if row["family"] == "portable"]
        self.assertTrue(portable)
        for row in portable:
            runs = row["arch_begin"] <= 90 < (row["arch_end"] or 1000)
            self.assertEqual(row["available"], runs, row)

    def test_explain(self):
        said = self.attune("explain", PROBLEM).stdout
        self.assertIn("device GPU 0, Stand-in 0: sm_90", said)
        self.assertIn("kernel fwd.hopper.sm90a.bf16.d128.nolse", said)
        report = json.loads(self.attune("explain", PROBLEM, "--json").stdout)
        self.assertEqual(report["device"]["arch"], 90)
        self.assertTrue(report["chosen"].startswith("fwd.hopper."))

    def test_explain_for_another_gpu(self):
        # On a machine without any: the driver is not asked.
        for arch, row in (("sm_86", "sm80"), ("sm_75", "sm75")):
            report = json.loads(self.attune("explain", "forward dtype=f16 d=64", "--arch", arch,
                                            "--json", ATTUNE_CUDA_DRIVER="/no/driver").stdout)
            self.assertIn(f".{row}.", report["chosen"])
        said = self.attune("explain", PROBLEM, "--arch", "sm_12", code=1).stderr
        self.assertIn("known: sm_75", said)

    def test_run_without_a_compiler_names_the_kernel(self):
        tensors = pathlib.Path(SOURCE) / "examples" / "data" / "gpt_qkv.safetensors"
        said = self.attune("run", tensors, "--prefix", "layer0.", "--device", "cuda", "--dtype",
                           "bf16", code=1).stderr
        self.assertIn("fwd.hopper.sm90a.bf16.d64.", said)
        self.assertIn("ATTUNE_JIT", said)

    def test_explain_backward(self):
        said = self.attune("explain", PROBLEM.replace("forward", "backward")).stdout
        self.assertIn("kernel bwd.portable.sm80.bf16.d128.aligned.plain.q64k128", said)
        for word in ("rows", "keys", "finish", "dQ in float32"):
            self.assertIn(word, said)
        said = self.attune("explain", "backward sq=9 d=64 page_size=16 pages=2 device=cuda", code=1).stdout
        self.assertIn("gather the pages", said)

    def test_bench_peers_needs_pytorch_or_its_script(self):
        said = self.attune("bench", "--peers", code=2).stderr
        self.assertIn("--device cuda", said)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
