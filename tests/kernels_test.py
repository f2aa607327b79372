#!/usr/bin/env python3
"""attune generate, compile, cache and list --built from outside: files, output, exit codes, refusals.

usage: kernels_test.py ATTUNE CXX
What needs a compiler for GPUs is skipped, with the reason, where there is none.
"""

import filecmp
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ATTUNE, CXX = sys.argv[1], sys.argv[2]


def run(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
    environment.update(variables)
    return subprocess.run([ATTUNE, *arguments], capture_output=True, text=True, env=environment)


def tool(name):
    """A program of the CUDA toolkit, or None."""
    roots = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for path in [f"{root}/bin/{name}" for root in roots if root] + [shutil.which(name)]:
        if path and os.access(path, os.X_OK):
            return path
    return None


class KernelsTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.cache = str(self.folder / "cache")

    def attune(self, *arguments, **variables):
        return run(*arguments, ATTUNE_CACHE_DIR=self.cache, **variables)

    def generate(self, name="tree", *options):
        folder = self.folder / name
        done = self.attune("generate", "-o", str(folder), *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder, json.loads((folder / "manifest.json").read_text())["kernels"]

    def small_row(self):
        """A row that compiles quickly."""
        _, rows = self.generate("small")
        for row in rows:
            features = row["features"]
            if (row["dtype"], row["arch_begin"], features["head_dim"]) == ("bf16", 80, 64):
                return row["id"]
        self.fail("the table has no bf16 row for head dim 64")

    def compile(self, *arguments, **variables):
        done = self.attune("compile", *arguments, **variables)
        if "there is no NVRTC" in done.stderr:
            self.skipTest(done.stderr.strip())
        return done

    def refused(self, done, *words, code=1):
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        for word in words:
            self.assertIn(word, done.stderr)


class GenerateTest(KernelsTest):
    def test_the_same_table_gives_the_same_tree(self):
        first, rows = self.generate("first")
        second, _ = self.generate("second")
        names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        self.assertEqual(names, sorted(path.relative_to(second) for path in second.rglob("*")
                                       if path.is_file()))
        equal, different, odd = filecmp.cmpfiles(first, second, names, shallow=False)
        self.assertEqual((len(equal), different, odd), (len(names), [], []))
        self.assertEqual(len(list((first / "kernels").glob("*.cu"))), len(rows))
        self.assertGreater(len(rows), 100)

    def test_an_architecture_cuts_the_table(self):
        _, all_rows = self.generate("all")
        for arch in (75, 86, 90):
            _, rows = self.generate(f"sm{arch}", "--arch", f"sm_{arch}")
            self.assertEqual(
                [row["id"] for row in rows],
                [row["id"] for row in all_rows
                 if row["arch_begin"] <= arch and (row["arch_end"] is None or arch < row["arch_end"])])

    def test_refusals(self):
        tree = str(self.folder / "tree")
        self.refused(self.attune("generate", "-o", tree, "--family", "cpu"), "cpu", "portable")
        self.refused(self.attune("generate", "-o", tree, "--arch", "90"), '"90"', "sm_80")
        self.refused(self.attune("generate", "-o", tree, "--arch", "sm_50"), "sm_50")
        file = self.folder / "file"
        file.write_text("in the way")
        self.refused(self.attune("generate", "-o", str(file)), str(file))
        self.assertFalse((self.folder / "tree").exists())

    def test_the_dispatch_header_is_plain_cplusplus(self):
        tree, rows = self.generate()
        row = rows[-1]  # of backward: a unit of several kernels
        source = self.folder / "use.cpp"
        source.write_text(
            '#include "dispatch.h"\n'
            f'constexpr const auto* kernel = attune::generated::find("{row["id"]}");\n'
            f'static_assert(kernel->threads == {row["threads"]} &&\n'
            f'              kernel->shared_bytes == {row["shared_bytes"]} &&\n'
            f'              kernel->arch_begin == {row["arch_begin"]});\n'
            'static_assert(attune::generated::find("none") == nullptr);\n'
            f'static_assert(attune::generated::find("{row["id"]}", "{row["entries"][1]["name"]}")->shared_bytes == 0);\n'
            "static_assert(attune::generated::kKernels.size() =="
            f" {sum(len(row['entries']) for row in rows)});\n"
            "int main() {}\n")
        done = subprocess.run([CXX, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-I", tree,
                               "-fsyntax-only", source], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nvcc_alone_compiles_the_tree(self):
        nvcc = tool("nvcc")
        if not nvcc:
            self.skipTest("there is no nvcc")
        tree, _ = self.generate()
        unit = f"kernels/{self.small_row()}.cu"
        cubin = self.folder / "kernel.cubin"
        done = subprocess.run(
            [nvcc, "-std=c++20", "--expt-relaxed-constexpr", "-I", ".", "-cubin", "-arch=sm_80", unit,
             "-o", cubin], cwd=tree, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"attune_kernel", cubin.read_bytes())


class CompileTest(KernelsTest):
    def test_a_bundle_serves_where_compiling_is_forbidden(self):
        row = self.small_row()
        bundle = self.folder / "kernels.attune"
        done = self.compile("--spec", row, "--arch", "sm_80,sm_90", "-o", str(bundle))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(row, done.stdout)
        self.assertTrue(bundle.is_file())
        listed = self.attune("list", "--built", "--json", ATTUNE_BUNDLE=str(bundle),
                             ATTUNE_CACHE_LIMIT="0")
        built = json.loads(listed.stdout)
        self.assertEqual([(k["id"], k["target"], k["current"], k["from"]) for k in built],
                         [(row, "sm_80", True, str(bundle)), (row, "sm_90", True, str(bundle))])
        text = self.attune("list", "--built", ATTUNE_BUNDLE=str(bundle)).stdout
        self.assertIn("registers", text)
        self.assertIn(row, text)

        # The second time everything comes from the cache, and the bundle is the same.
        again = self.folder / "again.attune"
        report = json.loads(self.compile("--spec", row, "--arch", "sm_80,sm_90", "-o", str(again),
                                         "--json").stdout)
        self.assertEqual([kernel["compiled"] for kernel in report["kernels"]], [False, False])
        self.assertEqual(bundle.read_bytes(), again.read_bytes())

    def test_a_damaged_bundle_is_said_and_left_out(self):
        bundle = self.folder / "kernels.attune"
        bundle.write_bytes(b"not a bundle, but long enough to have a header in it")
        done = self.attune("list", "--built", ATTUNE_BUNDLE=str(bundle))
        self.assertEqual(done.returncode, 0)
        self.assertIn(f"a bundle of kernels is not used: {bundle}: is no bundle", done.stderr)

    def test_a_catalogue_names_its_line(self):
        row = self.small_row()
        catalogue = self.folder / "catalogue.txt"
        out = str(self.folder / "out")
        catalogue.write_text(f"# what we serve\n\n  {row}  # the small one\n{row}\nfwd.no.such\n")
        self.refused(self.compile("--catalog", str(catalogue), "--arch", "sm_80", "-o", out),
                     f"{catalogue}, line 5:", '"fwd.no.such" is no kernel\'s id')
        catalogue.write_text("# nothing\n")
        self.refused(self.compile("--catalog", str(catalogue), "--arch", "sm_80", "-o", out),
                     "names no kernel")
        catalogue.write_text(f"{row} # twice\n{row}\n")
        done = self.compile("--catalog", str(catalogue), "--arch", "sm_80", "-o", out, "--json")
        self.assertEqual(len(json.loads(done.stdout)["kernels"]), 1)

    def test_refusals(self):
        row = self.small_row()
        out = str(self.folder / "out")
        self.refused(self.attune("compile", "--spec", row, "--arch", "sm_80"), "-o", code=2)
        self.refused(self.attune("compile", "--arch", "sm_80", "-o", out), "--catalog", code=2)
        self.refused(self.attune("compile", "--all", "--spec", row, "--arch", "sm_80", "-o", out),
                     "one of", code=2)
        self.refused(self.attune("compile", "--spec", "fwd.cpu.f32.generic", "--arch", "sm_80", "-o",
                                 out), "CPU kernel")
        self.refused(self.compile("--spec", row, "--arch", "sm_42", "-o", out), "sm_42", "sm_80")
        self.refused(self.compile("--spec", row, "--arch", "sm_75", "-o", out), row,
                     "runs on none of sm_75")
        self.refused(self.compile("--spec", row, "--arch", "turing", "-o", out), '"turing"')
        self.assertFalse((self.folder / "out").exists())

    def test_a_missing_compiler_is_named(self):
        done = self.attune("compile", "--all", "--arch", "sm_80", "--check",
                           ATTUNE_NVRTC="/nowhere/libnvrtc.so")
        self.refused(done, "ATTUNE_NVRTC names /nowhere/libnvrtc.so")

    def test_the_facts_are_those_that_cuobjdump_reads(self):
        row = self.small_row()
        done = self.compile("--spec", row, "--arch", "sm_80,sm_90", "--check", "--json")
        kernels = json.loads(done.stdout)["kernels"]
        cuobjdump = tool("cuobjdump")
        if not cuobjdump:
            self.skipTest("there is no cuobjdump")
        for kernel in kernels:
            entry, = (pathlib.Path(self.cache) / "entries").glob(f"{row}.{kernel['target']}.*")
            done = subprocess.run([cuobjdump, "-res-usage", entry / "kernel.cubin"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            usage = dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", done.stdout))
            facts = kernel["facts"]
            self.assertEqual(int(usage["REG"]), facts["registers"])
            self.assertEqual(int(usage["STACK"]), facts["local_bytes"])
            self.assertEqual(int(usage["SHARED"]), facts["shared_bytes"])


class CacheTest(KernelsTest):
    def test_ls_verify_and_clear(self):
        row = self.small_row()
        self.assertIn("0 kernels", self.attune("cache", "ls").stdout)
        self.compile("--spec", row, "--arch", "sm_80", "--check")
        listed = json.loads(self.attune("cache", "ls", "--json").stdout)
        self.assertEqual(listed["folder"], self.cache)
        self.assertEqual([(e["id"], e["target"], e["ok"]) for e in listed["entries"]],
                         [(row, "sm_80", True)])
        self.assertIn(row, self.attune("cache", "ls").stdout)
        self.assertEqual(self.attune("cache", "verify").returncode, 0)

        cubin = pathlib.Path(listed["entries"][0]["path"]) / "kernel.cubin"
        damaged = bytearray(cubin.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        cubin.write_bytes(damaged)
        done = self.attune("cache", "verify")
        self.assertEqual(done.returncode, 1)
        self.assertIn("its hash differs", done.stderr)
        self.assertEqual(self.attune("cache", "verify").returncode, 0)

        self.compile("--spec", row, "--arch", "sm_80", "--check")
        cleared = json.loads(self.attune("cache", "clear", "--json").stdout)
        self.assertEqual(cleared["removed"], 1)
        self.assertIn("0 kernels", self.attune("cache", "ls").stdout)

    def test_the_folder_is_where_it_should_be(self):
        for variables, folder in [
            ({"XDG_CACHE_HOME": "/x/cache", "HOME": "/home/someone"}, "/x/cache/attune"),
            ({"XDG_CACHE_HOME": "relative", "HOME": "/home/someone"}, "/home/someone/.cache/attune"),
            ({"XDG_CACHE_HOME": "", "HOME": "/home/someone"}, "/home/someone/.cache/attune"),
            ({"ATTUNE_CACHE_DIR": "/y", "XDG_CACHE_HOME": "/x"}, "/y"),
        ]:
            listed = json.loads(run("cache", "ls", "--json", **variables).stdout)
            self.assertEqual(listed["folder"], folder)
        self.refused(run("cache", "ls", XDG_CACHE_HOME="", HOME=""), "ATTUNE_CACHE_DIR")

    def test_the_limit_is_read_and_a_bad_one_said(self):
        listed = json.loads(self.attune("cache", "ls", "--json", ATTUNE_CACHE_LIMIT="20M").stdout)
        self.assertEqual(listed["limit_bytes"], 20 << 20)
        done = self.attune("cache", "ls", "--json", ATTUNE_CACHE_LIMIT="many")
        self.assertEqual(json.loads(done.stdout)["limit_bytes"], 1 << 30)
        self.assertIn('ATTUNE_CACHE_LIMIT = "many" is no number of bytes', done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
