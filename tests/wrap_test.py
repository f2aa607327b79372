#!/usr/bin/env python3
"""`attune wrap`: generated text against golden files, compiled by every compiler that is here, and run: on
the driver's stand-in and on the CPU.

usage: wrap_test.py ATTUNE STAND_IN SOURCE_DIR BUILD_DIR LIBATTUNE CXX [--update] [TEST...]

--update writes the golden files anew.
"""

import array
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

UPDATE = "--update" in sys.argv
ARGUMENTS = [a for a in sys.argv[1:] if a != "--update"]
ATTUNE, STAND_IN, SOURCE, BUILD, LIBATTUNE, CXX = ARGUMENTS[:6]
SOURCE = pathlib.Path(SOURCE)
HERE = SOURCE / "tests" / "wrap"
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
INCLUDE = [f"-I{SOURCE}", f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'kernels'}"]
LIBRARY = [f"-L{pathlib.Path(LIBATTUNE).parent}", "-lattune", f"-Wl,-rpath,{pathlib.Path(LIBATTUNE).parent}"]
INSTRUMENT = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Of the block: in the order in which block_run.cpp reads them.
WEIGHTS = {"attention_norm": [64], "wqkv": [128, 64], "wo": [64, 64], "mlp_norm": [64], "wgate": [160, 64],
           "wup": [160, 64], "wdown": [64, 160]}


def compilers():
    return [c for c in ("g++", "clang++") if shutil.which(c)]


def safetensors(tensors):
    """tensors: name -> (shape, array of floats)"""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


class Wrap(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def execute(self, *command, code=0, **variables):
        result = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600,
                                env={**os.environ, **variables})
        self.assertEqual(result.returncode, code, " ".join(map(str, command)) + "\n" + result.stdout + result.stderr)
        return result.stdout + result.stderr

    def wrap(self, program, *options, code=0, **variables):
        return self.execute(ATTUNE, "wrap", program, "-o", self.folder / "out", *options, code=code, **variables)

    def compile(self, output, *arguments, compiler=CXX):
        out = self.folder / "out"
        link = [] if "-c" in arguments else ["-ldl", "-lpthread"]
        self.execute(compiler, *arguments, "-I", out, *INCLUDE, "-o", out / output, *link)
        return out / output

    def block(self):
        """A copy of the block's program with weights beside it."""
        for name in ("block.json", "block_kernels.cpp"):
            shutil.copy(HERE / name, self.folder)
        source = random.Random(7)
        tensors = {}
        for name, shape in WEIGHTS.items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            scale = 0.2 if len(shape) > 1 else 1.0
            tensors[name] = (shape, array.array("f", (scale * source.uniform(-1, 1) for _ in range(count))))
        (self.folder / "weights.safetensors").write_bytes(safetensors(tensors))
        (self.folder / "weights.bin").write_bytes(b"".join(v.tobytes() for _, v in tensors.values()))
        return self.folder / "block.json"

    def golden(self, name):
        for file in (f"{name}.h", f"{name}.cpp", "CMakeLists.txt", "main.cpp"):
            text = (self.folder / "out" / file).read_text()
            path = HERE / "golden" / (f"{name}.{file}.golden" if file[0] in "Cm" else f"{file}.golden")
            if UPDATE:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            self.assertEqual(text.splitlines(), path.read_text().splitlines(),
                             f"{path} differs: look at it, and run this with --update")

    def strictly(self, name, *sources):
        """Every compiler takes it, without a warning."""
        for compiler in compilers():
            for source in (f"{name}.cpp", "main.cpp", *sources):
                self.compile("object.o", *STRICT, "-c", self.folder / "out" / source, compiler=compiler)
        lines = (self.folder / "out" / f"{name}.cpp").read_text().count("\n")
        self.assertLessEqual(lines, 1500)

    def test_kernels(self):
        self.wrap(HERE / "kernels.json")
        self.golden("kernels")
        self.strictly("kernels")
        out = self.folder / "out"
        sources = [out / "finish.cpp", HERE / "kernels_run.cpp"]
        run = self.compile("run", *STRICT, "-g", *INSTRUMENT, out / "kernels.cpp", *sources)
        self.assertIn("0 failures", self.execute(run, STAND_IN, out))
        racing = self.compile("racing", *STRICT, "-g", "-O1", "-fsanitize=thread", out / "kernels.cpp", *sources)
        self.assertIn("0 failures", self.execute(racing, STAND_IN, out, "threads"))
        # A program that lies about a parameter is told so by the kernel's own code.
        text = (out / "kernels.cpp").read_text()
        lie = text.replace("{8, 8, 4, 4, 8, 8}", "{8, 8, 8, 4, 8, 8}")
        self.assertNotEqual(text, lie)
        (out / "lying.cpp").write_text(lie)
        lying = self.compile("lying", *STRICT, *INSTRUMENT, out / "lying.cpp", *sources)
        self.assertIn("0 failures", self.execute(lying, STAND_IN, out, "lying"))
        for damage in (lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:100] + b"\0" + b[101:]):
            shutil.copytree(out, self.folder / "copy", dirs_exist_ok=True)
            for file in (self.folder / "copy").glob("kernels.scale.sm_90a*.cubin"):
                file.write_bytes(damage((out / file.name).read_bytes()))
            self.assertIn("0 failures", self.execute(run, STAND_IN, self.folder / "copy", "damaged"))

    def test_embedded_programs_need_no_files(self):
        self.wrap(HERE / "kernels.json", "--embed")
        out = self.folder / "out"
        self.assertEqual(sorted(p.name for p in out.iterdir()),
                         ["CMakeLists.txt", "finish.cpp", "kernels.cpp", "kernels.h", "kernels_embedded.cpp",
                          "kernels_runtime.h", "main.cpp"])
        self.strictly("kernels", "kernels_embedded.cpp")
        run = self.compile("run", *STRICT, *INSTRUMENT, out / "kernels.cpp", out / "kernels_embedded.cpp",
                           out / "finish.cpp", HERE / "kernels_run.cpp")
        self.assertIn("0 failures", self.execute(run, STAND_IN, self.folder / "nowhere"))

    def test_no_checks(self):
        self.wrap(HERE / "kernels.json", "--no-checks")
        text = (self.folder / "out" / "kernels.cpp").read_text()
        self.assertNotIn("check_tensor", text)
        self.assertIn("check_size", text)
        self.strictly("kernels")
        if shutil.which("cmake"):
            out = self.folder / "out"
            self.execute("cmake", "-S", out, "-B", out / "build")
            self.execute("cmake", "--build", out / "build")
            self.assertIn("step 4, with weights: kernel scale",
                          self.execute(out / "build" / "kernels_example", code=1, ATTUNE_CUDA_DRIVER="/no/driver"))

    def test_attention_is_what_the_library_launches(self):
        said = self.execute(ATTUNE, "doctor")
        if "libnvrtc is missing" in said:
            self.skipTest("there is no NVRTC to compile attention")
        cache = {"ATTUNE_CACHE_DIR": os.environ.get("ATTUNE_CACHE_DIR") or str(pathlib.Path(BUILD) / "wrap_cache")}
        self.wrap(HERE / "attention.json", "--arch", "sm_80,sm_90", **cache)
        self.strictly("attention")
        out = self.folder / "out"
        run = self.compile("run", "-std=c++20", out / "attention.cpp", HERE / "attention_run.cpp", *LIBRARY)
        self.assertIn("0 failures", self.execute(run, STAND_IN, out, **cache))

    def test_block_on_the_cpu(self):
        self.wrap(self.block(), "--device", "cpu")
        self.golden("block")
        self.strictly("block", "block_kernels.cpp")
        out = self.folder / "out"
        run = self.compile("run", *STRICT, "-O1", out / "block.cpp",
                           out / "block_kernels.cpp", HERE / "block_run.cpp", *LIBRARY)
        self.assertIn("0 failures", self.execute(run, out, self.folder / "weights.bin"))

    def test_check_runs_a_recording(self):
        if not shutil.which("cmake"):
            self.skipTest("there is no CMake")
        prefix = self.folder / "prefix"
        self.execute("cmake", "--install", BUILD, "--prefix", prefix)
        program = self.block()
        x = array.array("f", (0.25 * (i % 7) - 0.5 for i in range(2 * 5 * 64)))
        zeros = array.array("f", bytes(4 * len(x)))
        recording = self.folder / "recording.safetensors"
        tensors = {"first/x": ([2, 5, 64], x), "first/y": ([2, 5, 64], zeros),
                   "first/epsilon": ([], array.array("f", [1e-5]))}
        recording.write_bytes(safetensors(tensors))
        said = self.wrap(program, "--device", "cpu", "--check", recording, code=1, CMAKE_PREFIX_PATH=str(prefix))
        self.assertIn("FAIL  first y: largest error", said)
        del tensors["first/y"]
        recording.write_bytes(safetensors(tensors))
        said = self.wrap(program, "--device", "cpu", "--check", recording, code=1, CMAKE_PREFIX_PATH=str(prefix))
        self.assertIn("the recording has no tensor y", said)
        # What it computes itself is what it computes again.
        out = self.folder / "out"
        example = self.execute(out / "build" / "block_example")
        self.assertIn("workspace:", example)
        script = self.folder / "record.cpp"
        script.write_text(RECORD)
        record = self.compile("record", *STRICT, script, f"-L{out / 'build'}", "-lblock",
                              f"-Wl,-rpath,{out / 'build'}", f"-Wl,-rpath-link,{pathlib.Path(LIBATTUNE).parent}")
        (self.folder / "x.bin").write_bytes(x.tobytes())
        self.execute(record, self.folder / "x.bin", self.folder / "y.bin", out / "build")
        y = array.array("f", (self.folder / "y.bin").read_bytes())
        recording.write_bytes(safetensors({**tensors, "first/y": ([2, 5, 64], y)}))
        said = self.wrap(program, "--device", "cpu", "--check", recording, CMAKE_PREFIX_PATH=str(prefix))
        self.assertIn("ok    first y: the same bits", said)

    def test_dropout_of_a_stream_on_the_cpu(self):
        if not shutil.which("cmake"):
            self.skipTest("there is no CMake")
        prefix = self.folder / "prefix"
        self.execute("cmake", "--install", BUILD, "--prefix", prefix)
        source, shape = random.Random(3), [2, 40, 3, 16]
        tensors = {name: (shape, array.array("f", (source.gauss(0, 1) for _ in range(2 * 40 * 3 * 16))))
                   for name in "qkv"}
        inputs, recording = self.folder / "inputs.safetensors", self.folder / "recording.safetensors"
        inputs.write_bytes(safetensors(tensors))
        step = {"problem": "forward dropout=0.25 dropout_stream=fa2", "dropout_seed": 9, "dropout_offset": 64,
                **{name: name for name in "qkvo"}}
        tensor = {"dtype": "f32", "shape": ["B", "S", 3, 16]}
        program = self.folder / "dropping.json"
        program.write_text(json.dumps({
            "attune_program": 1, "name": "dropping", "sizes": {"B": {"max": 8}, "S": {"max": 64}},
            "inputs": {name: tensor for name in "qkv"}, "outputs": {"o": tensor}, "steps": [{"attention": step}]}))
        # What the command computes by the same stream, and by the other one.
        for stream, code, says in (("fa2", 0, "ok    first o: "), ("curand", 1, "FAIL  first o: largest error")):
            out = self.folder / f"{stream}.safetensors"
            self.execute(ATTUNE, "run", inputs, "--dropout", "0.25", "--dropout-stream", stream, "--seed", "9",
                         "--dropout-offset", "64", "-o", out)
            o = array.array("f", out.read_bytes()[-4 * len(tensors["q"][1]):])
            recording.write_bytes(safetensors({**{f"first/{name}": x for name, x in tensors.items()},
                                               "first/o": (shape, o)}))
            said = self.wrap(program, "--device", "cpu", "--check", recording, code=code,
                             CMAKE_PREFIX_PATH=str(prefix))
            self.assertIn(says, said)
        self.assertIn("forward dropout=0.25 dropout_stream=fa2 dtype=f32",
                      (self.folder / "out" / "dropping.cpp").read_text())

    def test_the_documentation_works(self):
        text = (SOURCE / "docs" / "wrap.md").read_text()
        program, code = (text.split(f"```{language}\n")[1].split("```")[0] for language in ("json", "cpp"))
        (self.folder / "program.json").write_text(program)
        for kind in ("json", "cubin"):
            shutil.copy(HERE / "data" / f"scale_any.sm90.{kind}", self.folder / f"scale.{kind}")
        self.wrap(self.folder / "program.json")
        include, body = code.split("\n", 1)
        (self.folder / "out" / "user.cpp").write_text(
            f"#include <cstdio>\n{include}\nint main() {{\n  void *x = nullptr, *y = nullptr, *stream = nullptr;\n"
            f"  int64_t n = 0;\n{body}}}\n")
        out = self.folder / "out"
        user = self.compile("user", *STRICT, out / "user.cpp", out / "scaling.cpp")
        # Nothing but the C and C++ libraries is linked.
        needed = {line.split()[-1].strip("[]").split(".so")[0]
                  for line in self.execute("readelf", "-d", user).splitlines() if "(NEEDED)" in line}
        self.assertLessEqual(needed, {"libstdc++", "libc", "libm", "libgcc_s", "libdl", "libpthread", "ld-linux-x86-64"})

    def test_ptx_serves_where_no_cubin_does(self):
        text = (SOURCE / "docs" / "wrap.md").read_text()
        (self.folder / "program.json").write_text(text.split("```json\n")[1].split("```")[0])
        metadata = (HERE / "data" / "scale_any.sm80.json").read_text()
        (self.folder / "scale.json").write_text(metadata)
        (self.folder / "scale.ptx").write_text(PTX)
        shutil.copy(HERE / "data" / "scale_any.sm80.cubin", self.folder / "scale.cubin")
        self.wrap(self.folder / "program.json")
        out = self.folder / "out"
        (out / "user.cpp").write_text(ON_THE_STAND_IN)
        run = self.compile("run", *STRICT, *INSTRUMENT, out / "user.cpp", out / "scaling.cpp")
        for arch in ("80", "89", "120"):
            said = self.execute(run, STAND_IN, out, arch)
            self.assertIn("scale grid 4 1 1 block 128 1 1 shared 0 |", said)
            self.assertIn("PTX" if arch == "120" else "ELF", said)
        said = self.execute(run, STAND_IN, out, "75", code=1)
        self.assertIn("scaling: step 0, scale: kernel scale, configuration 0: the GPU is sm_75, and there is code for "
                      "sm_80, PTX for sm_80", said)
        # PTX is held against the signature too.
        (self.folder / "scale.ptx").write_text(PTX.replace(".u32", ".u64"))
        self.assertIn("parameter 2, n, has 4 bytes in the signature and 8 in the file",
                      self.wrap(self.folder / "program.json", code=1))

    def test_a_fatbin_of_several_architectures(self):
        tool = shutil.which("fatbinary") or next(
            (str(p) for p in sorted(pathlib.Path("/usr/local").glob("cuda*/bin/fatbinary"))), None)
        if tool is None:
            self.skipTest("there is no fatbinary, which the CUDA toolkit has")
        images = [f"--image3=kind=elf,sm={arch},file={HERE / 'data' / f'scale_any.sm{arch[:2]}.cubin'}"
                  for arch in ("80", "90a")]
        self.execute(tool, "-64", f"--create={self.folder / 'scale.fatbin'}", *images)
        program = json.loads((SOURCE / "docs" / "wrap.md").read_text().split("```json\n")[1].split("```")[0])
        kernel = program["kernels"]["scale"]
        kernel["binaries"] = [{"file": "scale.fatbin", "entry": "scale", "block": [128, 1, 1]}]
        path = self.folder / "program.json"
        path.write_text(json.dumps(program))
        self.wrap(path)
        out = self.folder / "out"
        (out / "user.cpp").write_text(ON_THE_STAND_IN)
        # Its parameters are seen when it is loaded: Triton's two for scratch memory are not declared.
        run = self.compile("run", *STRICT, *INSTRUMENT, out / "user.cpp", out / "scaling.cpp")
        self.assertIn("scaling: step 0, scale: kernel scale", self.execute(run, STAND_IN, out, "80", code=1))
        kernel["parameters"] += [{"name": "scratch", "type": "*"}, {"name": "profile", "type": "*"}]
        program["steps"][0]["arguments"].update(scratch=None, profile=None)
        path.write_text(json.dumps(program))
        for options in ((), ("--embed",)):
            self.wrap(path, *options)
            sources = [out / "user.cpp", out / "scaling.cpp", *([out / "scaling_embedded.cpp"] if options else [])]
            run = self.compile("run", *STRICT, *INSTRUMENT, *sources)
            for arch in ("80", "90"):
                said = self.execute(run, STAND_IN, out, arch)
                self.assertIn("scale grid 4 1 1 block 128 1 1 shared 0 |", said)
                self.assertIn("fatbin", said)
        (self.folder / "scale.fatbin").write_bytes(b"\x50\xed\x55\xba")
        del kernel["binaries"][0]["entry"]
        path.write_text(json.dumps(program))
        self.assertIn('is a fatbin: which kernel of it is meant? say "entry"', self.wrap(path, code=1))

    def test_mistakes_name_their_line(self):
        text = (HERE / "kernels.json").read_text()
        shutil.copytree(HERE / "data", self.folder / "data")
        shutil.copy(HERE / "finish.cpp", self.folder)
        program = self.folder / "program.json"
        for old, new, line, says in MISTAKES:
            self.assertIn(old, text)
            changed = text.replace(old, new, 1)
            program.write_text(changed)
            said = self.wrap(program, code=1)
            where = f"program.json:{line}: " if line else "program.json:"
            with self.subTest(new=new):
                self.assertIn(where, said)
                self.assertIn(says, said)
        self.assertFalse((self.folder / "out").exists(), "a refused program leaves nothing")

    def test_lying_files_are_named(self):
        shutil.copytree(HERE / "data", self.folder / "data")
        shutil.copy(HERE / "finish.cpp", self.folder)
        program = self.folder / "program.json"
        program.write_text((HERE / "kernels.json").read_text())
        for file, change, says in LIES:
            path = self.folder / "data" / file
            honest = path.read_bytes()
            path.write_bytes(change(honest))
            said = self.wrap(program, code=1)
            path.write_bytes(honest)
            with self.subTest(file=file, says=says):
                self.assertIn(pathlib.Path(file).stem, said)
                self.assertIn(says, said)
                self.assertRegex(said, r"program.json:\d+: ")
        self.wrap(program)

    def test_the_schema_has_what_the_reader_knows(self):
        try:
            import jsonschema
        except ImportError:
            self.skipTest("this Python has no jsonschema")
        schema = json.loads((SOURCE / "docs" / "wrap.schema.json").read_text())
        validator = jsonschema.Draft202012Validator(schema)
        validator.check_schema(schema)
        for name in ("kernels", "attention", "block"):
            program = json.loads((HERE / f"{name}.json").read_text())
            self.assertEqual([e.message for e in validator.iter_errors(program)], [])
            for section in ("sizes", "steps", "name", "attune_program"):
                broken = {**program, section: None}
                self.assertFalse(validator.is_valid(broken), section)


# What is changed in kernels.json, the line that is named (None: any), and what is said.
MISTAKES = [
    ('"attune_program": 1,', '"attune_program": 2,', 2, "2 is not from 1 to 1"),
    ('"name": "kernels",', '"name": "a b",', 3, '"a b" is no name'),
    ('"name": "kernels",', '"name": "class",', 3, "C++ or the generated text uses for itself"),
    ('"name": "kernels",', '"nam": "kernels",', 3, 'there is no field "nam"; known: attune_program, name'),
    ('"B": {"min": 0, "max": 65536},', '"B": {"min": 9, "max": 8},', 5, "least value 9 is above its largest, 8"),
    ('"B": {"min": 0, "max": 65536},', '"B": {"min": 0, "max": 65536}, "B": {},', 5, 'the field "B" is there twice'),
    ('"B": {"min": 0, "max": 65536},', '"B": {"min": 0, "max": 65536}, "Q": {},', 5, "sizes.Q: no call says how large"),
    ('"dtype": "f32", "shape": ["N"], "align": 4},', '"dtype": "f23", "shape": ["N"], "align": 4},', 10, '"f23" is no dtype'),
    ('"shape": ["N"], "align": 4},', '"shape": ["N +"], "align": 4},', 10, 'inputs.x.shape[0]: "N +": column 4'),
    ('"shape": ["N"], "align": 4},', '"shape": ["M"], "align": 4},', 10, "x: shape: M is no size"),
    ('"shape": ["N"], "align": 4},', '"shape": ["N - 1"], "align": 4},', 10, "x: shape: N - 1 may be -1"),
    ('"shape": ["N"], "align": 4},', '"shape": ["N"], "align": 3},', 10, "3 is no power of two"),
    ('"shape": ["max(N, 128)"]', '"shape": ["N * N * N * N"]', 28, "may pass 2^63"),
    ('"shape": ["max(N, 128)"]', '"shape": ["128 // N"]', 28, "divides by N, which may be 0"),
    ('"type": "*fp32"}', '"type": "*fp31"}', 34, '"*fp31" is no type'),
    ('"when": "n >= 1024 and mode != 3"', '"when": "n >= 1024 and mood != 3"', None, "even: when: mood is no size"),
    ('"constants": {"BLOCK": 1024}', '"constants": {"BLOK": 1024}', None, 'the kernel has no parameter "BLOK"'),
    ('"constants": {"BLOCK": 1024}', '"constants": {}', None, "the constant BLOCK has no value"),
    ('data/scale_even.sm80.json', 'data/scale_odd.sm80.json', None, "scale_odd.sm80.json: cannot be opened"),
    ('"n": "N", "factor": "factor"}', '"n": "N"}', None, "kernel scale: the argument factor is missing"),
    ('"n": "N", "factor": "factor"}', '"n": "N", "factor": "ratio"}', None, "the name of a scalar input was expected"),
    ('"x_ptr": "x", "y_ptr": "first"', '"x_ptr": "z", "y_ptr": "first"', None,
     "argument x_ptr: the kernel takes f32, and z is f16"),
    ('"x_ptr": "x", "y_ptr": "first"', '"x_ptr": "xx", "y_ptr": "first"', None, 'there is no tensor "xx" up to here'),
    ('"offset": 32}', '"offset": 33}', None, "right half: it ends at byte"),
    ('{"copy": {"from": "grid", "to": "z"}}', '{"copy": {"from": "z", "to": "part"}}', None,
     "z is f16[B, 64], and part is f16[B, 32]"),
    ('{"copy": {"from": "grid", "to": "z"}}', '{"copy": {"from": "z", "to": "grid"}}', None,
     "it reads z, which no step before has written"),
    ('{"fill": {"tensor": "first", "value": 1.5}}', '{"fill": {"tensor": "x", "value": 1.5}}', None,
     "it writes x, which is an input"),
    ('{"fill": {"tensor": "first", "value": 1.5}}', '{"fill": {"tensor": "first", "value": 1.5}, "copy": {}}', None,
     "it is a copy and a fill at once"),
    ('"ratio": 0.25}}}', '"ratio": 0.25}}}]', None, "this is no JSON"),
    ('"source": "finish.cpp"', '"source": "begin.cpp"', None, "begin.cpp: cannot be opened"),
]

# A file, what is done to it, and what is said.
LIES = [
    ("scale_even.sm90.json", lambda b: b.replace(b'"num_warps": 4', b'"num_warps": 8'),
     "is compiled for blocks of 128 threads, and the launch has 256"),
    ("scale_even.sm90.json", lambda b: b.replace(b'"name": "scale"', b'"name": "skale"'),
     'has no kernel "skale"; it has "scale"'),
    ("scale_even.sm90.json", lambda b: b.replace(b'"arch": 90', b'"arch": 80'), "is for sm_90a, and the program says sm_80"),
    ("scale_even.sm90.json", lambda b: b.replace(b'"cuda"', b'"hip"'), 'and only "cuda" is wrapped'),
    ("scale_even.sm90.json", lambda b: b.replace(b'"num_warps": 4', b'"num_warps": "4"'), "a whole number was expected"),
    ("scale_even.sm90.json", lambda b: b.replace(b'"shared": 0', b'"shared": -1'), "shared = -1 is not from 0 to"),
    ("scale_even.sm90.json", lambda b: b.replace(b'"global_scratch_align": 1', b'"global_scratch_align": 3'),
     "3 is no power of two"),
    ("tiles.sm90.json", lambda b: b.replace(b'"swizzle": 3', b'"swizzle": 4', 1), "swizzle = 4 is not from 0 to 3"),
    ("tiles.sm90.json", lambda b: b.replace(b'"tensordesc_meta": [{', b'"tensordesc_meta": [], "x": [{'),
     "the file's kernel tiles has"),
    ("scale_even.sm90.cubin", lambda b: b[:2000], "is no ELF file"),
    ("scale_even.sm90.cubin", lambda b: b"no code", "is neither a cubin nor PTX nor a fatbin"),
    ("weights.safetensors", lambda b: b[:-4], "weights.safetensors"),
]

PTX = """// For the stand-in, which runs nothing.
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(
  .param .u64 .ptr .global .align 1 scale_param_0, .param .u64 scale_param_1, .param .u32 scale_param_2,
  .param .f32 scale_param_3, .param .align 8 .b8 scale_param_4[8], .param .u64 scale_param_5
)
.reqntid 128
{ ret; }
"""

ON_THE_STAND_IN = """
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include "scaling.h"
#include "tests/stand_in/control.h"
int main(int, char** argv) {
  setenv("ATTUNE_CUDA_DRIVER", argv[1], 1);
  void* library = dlopen(argv[1], RTLD_NOW);
  const auto* control = static_cast<const attune::testing::StandInControl*>(
      dlsym(library, attune::testing::kStandInSymbol));
  attune::testing::StandInDevice device;
  device.arch = std::atoi(argv[3]);
  control->reset(&device, 1);
  alignas(16) static float x[1000], y[1000];
  const int64_t n = 1000;
  Scaling scaling(argv[2]);
  scaling_arguments a{};
  a.x = attune_wrapped_contiguous(x, ATTUNE_WRAPPED_F32, 1, &n);
  a.y = attune_wrapped_contiguous(y, ATTUNE_WRAPPED_F32, 1, &n);
  const int code = scaling.run(a);
  std::puts(code == ATTUNE_WRAPPED_OK ? control->launch_text(0) : scaling.last_error());
  std::puts(control->latest_image());
  return code == ATTUNE_WRAPPED_OK ? 0 : 1;
}
"""

RECORD = """
#include <cstdio>
#include <vector>
#include "block.h"
int main(int, char** argv) {
  std::vector<float> x(640), y(640);
  std::FILE* file = std::fopen(argv[1], "rb");
  if (file == nullptr || std::fread(x.data(), 4, 640, file) != 640) return 1;
  std::fclose(file);
  const int64_t shape[] = {2, 5, 64};
  block_arguments a{};
  a.x = attune_wrapped_contiguous(x.data(), ATTUNE_WRAPPED_F32, 3, shape);
  a.y = attune_wrapped_contiguous(y.data(), ATTUNE_WRAPPED_F32, 3, shape);
  a.epsilon = 1e-5F;
  Block block(argv[3]);
  if (block.status() != 0 || block.run(a) != 0) return 1;
  file = std::fopen(argv[2], "wb");
  const bool written = file != nullptr && std::fwrite(y.data(), 4, 640, file) == 640;
  return written && std::fclose(file) == 0 ? 0 : 1;
}
"""


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *ARGUMENTS[6:]])
