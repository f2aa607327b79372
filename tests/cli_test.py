#!/usr/bin/env python3
"""The attune command from outside: results, output, exit codes and refusals of every subcommand.

usage: cli_test.py ATTUNE [SOURCE_DIR]    or with ATTUNE in the environment variable ATTUNE
"""

import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

ATTUNE = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ATTUNE", "attune")
COMMANDS = ["run", "map", "explain", "list", "doctor", "bench"]
# NumPy's name, safetensors' name and struct's letter.
DTYPES = {"f32": ("<f4", "F32", "f"), "f64": ("<f8", "F64", "d"), "i32": ("<i4", "I32", "i"),
          "i64": ("<i8", "I64", "q"), "bool": ("|b1", "BOOL", "B"),
          "f8e4m3": ("", "F8_E4M3", "B")}  # its values are codes


class Array:
    """Row-major numbers with a shape."""

    def __init__(self, shape, values, dtype="f32"):
        assert math.prod(shape) == len(values)
        self.shape, self.values, self.dtype = tuple(shape), list(values), dtype

    def data(self):
        return struct.pack(f"<{len(self.values)}{DTYPES[self.dtype][2]}", *self.values)

    def at(self, *index):
        flat = 0
        for extent, i in zip(self.shape, index):
            flat = flat * extent + i
        return self.values[flat]


def normal(*shape, seed=0):
    source = random.Random(f"{seed} {shape}")
    # Rounded to float32, as the file will hold them.
    values = [source.gauss(0, 1) for _ in range(math.prod(shape))]
    return Array(shape, struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values)))


def npy_bytes(array):
    header = (f"{{'descr': '{DTYPES[array.dtype][0]}', 'fortran_order': False, "
              f"'shape': {array.shape}, }}")
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + array.data()


def safetensors_bytes(arrays):
    header, data = {}, b""
    for name, array in arrays.items():
        part = array.data()
        header[name] = {"dtype": DTYPES[array.dtype][1], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    arrays = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", entry
        first, last = (8 + size + n for n in entry["data_offsets"])
        arrays[name] = Array(entry["shape"], struct.unpack(f"<{(last - first) // 4}f",
                                                           raw[first:last]))
    return arrays


def read_npy(path):
    raw = path.read_bytes()
    size = struct.unpack("<H", raw[8:10])[0]
    header = eval(raw[10 : 10 + size], {"__builtins__": {}})  # a dict literal of our own output
    assert header["descr"] == "<f4" and not header["fortran_order"], header
    count = math.prod(header["shape"])
    return Array(header["shape"], struct.unpack(f"<{count}f", raw[10 + size :]))


def attention(q, k, v, attends):
    """o and the LSE of [B, S, H, D] arrays by the book."""
    (b, sq, hq, d), (_, sk, hkv, dv) = q.shape, v.shape
    o, lse = [0.0] * (b * sq * hq * dv), [-math.inf] * (b * hq * sq)
    for n in range(b):
        for h in range(hq):
            g = h // (hq // hkv)
            for i in range(sq):
                scores = {
                    j: sum(q.at(n, i, h, x) * k.at(n, j, g, x) for x in range(d)) / math.sqrt(d)
                    for j in range(sk) if attends(i, j)}
                total = sum(math.exp(s) for s in scores.values())
                if not scores:
                    continue
                lse[(n * hq + h) * sq + i] = math.log(total)
                for x in range(dv):
                    o[((n * sq + i) * hq + h) * dv + x] = sum(
                        math.exp(s) / total * v.at(n, j, g, x) for j, s in scores.items())
    return Array((b, sq, hq, dv), o), Array((b, hq, sq), lse)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def attune(self, *arguments, code=0):
        # The same on every machine: as if it had no GPU. With one: cli_gpu_test.py.
        result = subprocess.run([ATTUNE, *map(str, arguments)], capture_output=True, text=True,
                                timeout=300, cwd=self.folder,
                                env={**os.environ, "ATTUNE_CUDA_DRIVER": "/no/driver/here"})
        said = f"attune {' '.join(map(str, arguments))}\n{result.stdout}{result.stderr}"
        self.assertEqual(result.returncode, code, said)
        if code != 0 and not result.stdout:
            self.assertTrue(result.stderr.strip(), f"{said}: exit code {code} without a word")
        return result

    def json(self, *arguments, code=0):
        return json.loads(self.attune(*arguments, "--json", code=code).stdout)

    def save(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else safetensors_bytes(content))
        return path

    def assert_close(self, got, want, tolerance=1e-5):
        self.assertEqual(got.shape, want.shape)
        for a, b in zip(got.values, want.values):
            if math.isinf(b):
                self.assertEqual(a, b)
            else:
                self.assertLess(abs(a - b), tolerance)


def qkv(b=2, sq=7, sk=9, hq=4, hkv=2, d=8, dv=6):
    return {"q": normal(b, sq, hq, d, seed="q"), "k": normal(b, sk, hkv, d, seed="k"),
            "v": normal(b, sk, hkv, dv, seed="v")}


class Usage(Case):
    def test_help_has_an_example(self):
        self.assertIn("run", self.attune("--help").stdout)
        for command in COMMANDS:
            text = self.attune(command, "--help").stdout
            self.assertIn("Example", text, command)
            self.assertIn(f"attune {command}", text)

    def test_version(self):
        self.assertRegex(self.attune("--version").stdout, r"^attune \d+\.\d+\.\d+")

    def test_bad_usage(self):
        path = self.save("x.safetensors", qkv())
        for line in (
            [], ["walk"], ["--walk"], ["run"], ["run", path, "--walk"], ["list", "--walk"],
            ["run", path, "--mask", "causal"], ["run", path, "--window", "3"],
            ["run", path, "--window", "3,x"], ["run", path, "--dtype", "f8"],
            ["run", path, "--repeat", "0"], ["run", path, "--repeat", "many"],
            ["run", path, "-o", "out.txt"], ["run", path, "--threads", "-1"],
            ["run", path, "--layout", "sbhd"], ["run", path, "--device", "tpu"],
            ["run", path, "--dropout", "0.5", "--dropout-stream", "mt19937"],
            ["map", path], ["map", path, "-o", "out.jpg"],
            ["map", path, "-o", "out.png", "--colours", "pink"],
            ["explain"], ["explain", "sideways"], ["explain", "forward sq=-"],
            ["explain", "forward colour=red"], ["bench", "--threads", "x"],
            ["bench", "--dtypes", "f8"], ["bench", "--problem", "nonsense"],
            ["list", "--json", "--markdown"],
        ):
            with self.subTest(line=line):
                self.attune(*line, code=2)
                self.assertEqual(sorted(p.name for p in self.folder.iterdir()), [path.name])


class Run(Case):
    def test_results_are_attention(self):
        arrays = qkv()
        path = self.save("x.safetensors", arrays)
        before = path.read_bytes()
        sq, sk = 7, 9
        masks = {
            (): lambda i, j: True,
            ("--mask", "causal-top-left"): lambda i, j: j <= i,
            ("--mask", "causal-bottom-right"): lambda i, j: j <= i + sk - sq,
            ("--mask", "causal-bottom-right", "--offset", "-3"): lambda i, j: j <= i + sk - sq - 3,
            ("--window", "2,1"): lambda i, j: -2 <= j - (i + sk - sq) <= 1,
            ("--window", "2,1", "--diagonal", "top-left"): lambda i, j: -2 <= j - i <= 1,
            ("--mask", "causal-top-left", "--window", "2,-1"): lambda i, j: -2 <= j - i <= 0,
        }
        for options, attends in masks.items():
            with self.subTest(options=options):
                self.attune("run", path, *options, "--lse", "-o", "out.safetensors")
                results = read_safetensors(self.folder / "out.safetensors")
                o, lse = attention(arrays["q"], arrays["k"], arrays["v"], attends)
                self.assertEqual(sorted(results), ["lse", "o"])
                self.assert_close(results["o"], o)
                self.assert_close(results["lse"], lse)
        self.assertEqual(path.read_bytes(), before)

    def test_says_what_it_did(self):
        path = self.save("x.safetensors", qkv())
        text = self.attune("run", path, "--mask", "causal-bottom-right", "--check").stdout
        for part in ("forward dtype=f32 b=2 hq=4 hkv=2 sq=7 sk=9 d=8 dv=6 mask=causal-bottom-right",
                     "fwd.cpu.f32.", "GFLOP/s", "workspace", "PASS"):
            self.assertIn(part, text)

    def test_json(self):
        path = self.save("x.safetensors", qkv())
        result = self.json("run", path, "--repeat", 3, "--check", "-o", "out.safetensors")
        (forward,) = result["passes"]
        self.assertEqual(forward["runs"], 3)
        self.assertEqual(forward["attended_pairs"], 2 * 4 * 7 * 9)
        self.assertGreater(forward["median_seconds"], 0)
        self.assertGreaterEqual(forward["workspace_bytes"], 0)
        self.assertTrue(result["pass"])
        self.assertLessEqual(result["check"]["o"]["max_of_limit"], 1)
        self.assertEqual(result["written"], ["out.safetensors"])
        causal = self.json("run", path, "--mask", "causal-top-left")
        self.assertEqual(causal["passes"][0]["attended_pairs"], 2 * 4 * (7 * 8 // 2))

    def test_npy(self):
        arrays = qkv()
        paths = [self.save(f"{name}.npy", npy_bytes(array)) for name, array in arrays.items()]
        self.attune("run", *paths, "--lse", "-o", "out.npy")
        o, lse = attention(arrays["q"], arrays["k"], arrays["v"], lambda i, j: True)
        self.assert_close(read_npy(self.folder / "out.npy"), o)
        self.assert_close(read_npy(self.folder / "out_lse.npy"), lse)

    def test_layout_and_missing_batch(self):
        arrays = qkv(b=1)
        o, _ = attention(arrays["q"], arrays["k"], arrays["v"], lambda i, j: True)
        flat = {name: Array(a.shape[1:], a.values) for name, a in arrays.items()}
        self.attune("run", self.save("flat.safetensors", flat), "-o", "out.safetensors")
        self.assert_close(read_safetensors(self.folder / "out.safetensors")["o"],
                          Array(o.shape[1:], o.values))

        def swapped(a):
            b, s, h, d = a.shape
            return Array((b, h, s, d), [a.at(n, i, x, y) for n in range(b) for x in range(h)
                                        for i in range(s) for y in range(d)])

        path = self.save("swapped.safetensors", {name: swapped(a) for name, a in arrays.items()})
        self.attune("run", path, "--layout", "bhsd", "--backward", "--check", "-o", "o.safetensors")
        results = read_safetensors(self.folder / "o.safetensors")
        self.assert_close(results["o"], swapped(o))
        self.assertEqual(results["grad_k"].shape, swapped(arrays["k"]).shape)

    def test_prefix(self):
        arrays = {f"layer{n}.{name}": a for n in range(2) for name, a in qkv().items()}
        arrays["layer1.tokens"] = Array((3,), [1, 2, 3], "i64")
        path = self.save("x.safetensors", arrays)
        self.assertIn("--prefix", self.attune("run", path, code=1).stderr)
        self.assertIn("layer1.", self.attune("run", path, code=1).stderr)
        self.assertIn("layer7.q", self.attune("run", path, "--prefix", "layer7.", code=1).stderr)
        self.assertIn("tokens", self.attune("run", path, "--prefix", "layer1.").stdout)

    def test_dtypes(self):
        path = self.save("x.safetensors", qkv())
        for dtype in ("f32", "f16", "bf16"):
            with self.subTest(dtype=dtype):
                result = self.json("run", path, "--dtype", dtype, "--backward", "--check")
                self.assertTrue(result["pass"], result)
                self.assertIn(f"dtype={dtype}", result["passes"][0]["problem"])
        doubles = {name: Array(a.shape, a.values, "f64") for name, a in qkv().items()}
        path = self.save("doubles.safetensors", doubles)
        self.assertIn("--dtype", self.attune("run", path, code=1).stderr)
        self.attune("run", path, "--dtype", "f32", "--check")

    def test_float8(self):
        path = self.save("x.safetensors", qkv())
        result = self.json("run", path, "--dtype", "f8e4m3", "--check", "--lse")
        self.assertTrue(result["pass"], result)
        self.assertIn("dtype=f8e4m3", result["passes"][0]["problem"])
        self.assertIn("has no backward pass", self.attune(
            "run", path, "--dtype", "f8e4m3", "--backward", code=1).stderr)

        source = random.Random(8)
        arrays = {name: Array(a.shape, [source.choice((0, 128)) + source.randrange(0x58)
                                        for _ in a.values], "f8e4m3") for name, a in qkv().items()}
        b, _, hq, _ = arrays["q"].shape
        hkv = arrays["k"].shape[2]
        for name, heads in (("q_scale", hq), ("k_scale", hkv), ("v_scale", hkv)):
            arrays[name] = Array((b, heads), [source.choice((0.25, 0.5, 1.5)) for _ in range(b * heads)])
        path = self.save("eighths.safetensors", arrays)
        result = self.json("run", path, "--mask", "causal-bottom-right", "--check", "--lse", "-o",
                           "out.safetensors")
        self.assertTrue(result["pass"], result)
        self.assertIn(" descale ", result["passes"][0]["problem"])
        raw = (self.folder / "out.safetensors").read_bytes()
        header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
        self.assertEqual((header["o"]["dtype"], header["lse"]["dtype"]), ("BF16", "F32"))
        self.assertIn("only q, k and v of f8e4m3 have scales",
                      self.attune("run", path, "--dtype", "f32", code=1).stderr)
        del arrays["k_scale"]
        path = self.save("two.safetensors", arrays)
        self.assertIn("k_scale is missing", self.attune("run", path, code=1).stderr)

        self.attune("bench", "--check", "--json", "bench.json", "--problem",
                    "forward dtype=f8e4m3 b=2 hq=4 hkv=2 sq=40 sk=50 d=32 descale")
        row, = json.loads((self.folder / "bench.json").read_text())["rows"]
        self.assertTrue(row["pass"], row)

    def test_backward(self):
        arrays = qkv()
        path = self.save("x.safetensors", arrays)
        result = self.json("run", path, "--backward", "--check", "-o", "out.safetensors")
        self.assertEqual([p["problem"].split()[0] for p in result["passes"]],
                         ["forward", "backward"])
        self.assertEqual(sorted(result["check"]), ["grad_k", "grad_q", "grad_v", "lse", "o"])
        self.assertTrue(result["pass"], result)
        self.assertIn("grad_o", " ".join(result["notes"]))
        results = read_safetensors(self.folder / "out.safetensors")
        self.assertEqual(results["grad_q"].shape, arrays["q"].shape)
        # With a grad_o of zeros, every gradient is zero.
        arrays["grad_o"] = Array((2, 7, 4, 6), [0.0] * 2 * 7 * 4 * 6)
        path = self.save("zero.safetensors", arrays)
        result = self.json("run", path, "--backward", "-o", "out.safetensors")
        self.assertEqual(result["notes"], [])
        results = read_safetensors(self.folder / "out.safetensors")
        for name in ("grad_q", "grad_k", "grad_v"):
            self.assertEqual(set(results[name].values), {0.0}, name)

    # --check cuts the problem into one slice a sequence and KV head: every kind of tensor must be
    # cut the same way, or the comparison fails.
    def test_check_with_every_feature(self):
        b, sq, sk, hq, hkv, d = 2, 7, 9, 4, 2, 8
        base = qkv(b, sq, sk, hq, hkv, d, 6)
        page = 4
        slopes = [2.0**-n for n in range(1, b * hq + 1)]
        cu_q, cu_k = [0, 5, 11], [0, 4, 13]
        cases = {
            "sink": ({**base, "sink": normal(hq)}, []),
            "alibi": ({**base, "alibi_slopes": Array((hq,), slopes[:hq])}, []),
            "alibi per batch": ({**base, "alibi_slopes": Array((b, hq), slopes)}, []),
            "bias": ({**base, "bias": normal(b, hq, sq, sk)}, ["--mask", "causal-bottom-right"]),
            "bias, rank 2": ({**base, "bias": normal(sq, sk)}, []),
            "bias, broadcast heads": ({**base, "bias": normal(b, 1, 1, sk)}, []),
            "boolean bias": ({**base, "bias": Array((b, 1, sq, sk), [
                int(n % 3 > 0) for n in range(b * sq * sk)], "bool")}, []),
            "key lengths": ({**base, "key_lengths": Array((b,), [3, 9], "i64")}, []),
            "dropout": (base, ["--dropout", "0.4", "--seed", "7", "--dropout-offset", "5"]),
            "dropout of FA2's stream": (base, ["--dropout", "0.4", "--dropout-stream", "fa2", "--seed", "7",
                                              "--dropout-offset", "5"]),
            "softcap and scale": (base, ["--softcap", "2", "--scale", "0.7"]),
            "grad_lse": ({**base, "grad_lse": normal(b, hq, sq)}, []),
            "packed": ({"q": normal(1, 12, hq, d), "k": normal(1, 14, hkv, d),
                        "v": normal(1, 14, hkv, d), "cu_seqlens_q": Array((3,), cu_q, "i32"),
                        "cu_seqlens_k": Array((3,), cu_k, "i64")},
                       ["--mask", "causal-bottom-right", "--dropout", "0.3"]),
            "packed, FA2's stream": (
                {"q": normal(1, 50, hq, d), "k": normal(1, 90, hkv, d), "v": normal(1, 90, hkv, d),
                 "cu_seqlens_q": Array((3,), [0, 23, 50], "i32"),
                 "cu_seqlens_k": Array((3,), [0, 49, 90], "i32")},
                ["--dropout", "0.3", "--dropout-stream", "fa2", "--seed", "3"]),
            "paged": ({"q": base["q"], "k": normal(6, page, hkv, d), "v": normal(6, page, hkv, d),
                       "page_table": Array((b, 3), [5, 0, 2, 1, 3, 4], "i32"),
                       "key_lengths": Array((b,), [10, 5], "i32")}, []),
        }
        for name, (arrays, options) in cases.items():
            with self.subTest(name):
                path = self.save("x.safetensors", arrays)
                for extra in ([], ["--backward"]):
                    result = self.json("run", path, *options, *extra, "--check", "--lse")
                    self.assertTrue(result["pass"], (name, extra, result))

    def test_threads_and_kernel(self):
        path = self.save("x.safetensors", qkv())
        forward = self.json("run", path, "--threads", 1, "--kernel", "fwd.cpu.f32.generic")
        self.assertEqual(forward["passes"][0]["kernel"], "fwd.cpu.f32.generic")
        self.assertEqual(forward["passes"][0]["threads"], 1)
        both = self.json("run", path, "--backward", "--kernel", "bwd.cpu.f32.generic")
        self.assertEqual(both["passes"][1]["kernel"], "bwd.cpu.f32.generic")

    def test_empty_sizes(self):
        for name, sizes in {"no queries": {"sq": 0}, "no keys": {"sk": 0}, "no batch": {"b": 0},
                            "no values": {"dv": 0}}.items():
            with self.subTest(name):
                path = self.save("x.safetensors", qkv(**sizes))
                for extra in ([], ["--backward"]):
                    self.attune("run", path, "--check", "--lse", *extra, "-o", "out.safetensors")
        path = self.save("x.safetensors", qkv(sk=0))
        self.attune("run", path, "--lse", "-o", "out.safetensors")
        results = read_safetensors(self.folder / "out.safetensors")
        self.assertEqual(set(results["o"].values), {0.0})
        self.assertEqual(set(results["lse"].values), {-math.inf})


class Refusals(Case):
    def refused(self, *arguments, naming=()):
        error = self.attune(*arguments, code=1).stderr
        for word in naming:
            self.assertIn(word, error)
        self.assertFalse((self.folder / "out.safetensors").exists(), error)

    def test_files(self):
        good = safetensors_bytes(qkv())
        npy = npy_bytes(normal(1, 3, 2, 4))
        size = struct.unpack("<Q", good[:8])[0]
        huge = struct.pack("<Q", 2**62) + good[8:]
        deep = b"[" * 100000
        cases = {
            "cut.safetensors": good[:-1], "head.safetensors": good[: 8 + size // 2],
            "tiny.safetensors": good[:5], "empty.safetensors": b"", "huge.safetensors": huge,
            "deep.safetensors": struct.pack("<Q", len(deep)) + deep,
            "text.safetensors": b"this is no tensor file at all", "q.npy": npy[:-3],
            "k.npy": npy[:9], "v.npy": b"", "bias.npy": npy.replace(b"(1, 3", b"(9, 9"),
            "sink.txt": b"1 2 3",
        }
        for name, content in cases.items():
            with self.subTest(name):
                path = self.save(name, content)
                self.refused("run", path, "-o", "out.safetensors", naming=[name])
                self.refused("map", path, "-o", "map.png", naming=[name])
        self.refused("run", "absent.safetensors", naming=["absent.safetensors"])
        self.refused("run", self.folder, naming=[str(self.folder)])

    def test_what_is_in_them(self):
        def case(name, arrays, *options, naming=()):
            with self.subTest(name):
                self.refused("run", self.save("x.safetensors", arrays), *options, "-o",
                             "out.safetensors", naming=naming)

        base = qkv()
        case("heads", {**base, "q": normal(2, 7, 3, 8)}, naming=["hq = 3", "hkv = 2"])
        case("d", {**base, "q": normal(2, 7, 4, 5)}, naming=["k"])
        case("batch", {**base, "v": normal(3, 9, 2, 6)}, naming=["v"])
        case("rank", {**base, "q": normal(7, 8)}, naming=["q", "[7, 8]"])
        case("rank 5", {**base, "bias": normal(1, 1, 1, 7, 9)}, naming=["bias"])
        case("dtypes", {**base, "k": Array(base["k"].shape, base["k"].values, "f64")},
             naming=["k is f64", "--dtype"])
        case("integers", {**base, "q": Array((2, 7, 4, 8), [1] * 448, "i32")}, naming=["i32"])
        case("no v", {"q": base["q"], "k": base["k"]}, naming=["'v'"])
        case("lengths", {**base, "key_lengths": Array((2,), [3, 10], "i32")}, naming=["10"])
        case("long lengths", {**base, "key_lengths": Array((2,), [3, 2**40], "i64")},
             naming=[str(2**40)])
        case("float lengths", {**base, "key_lengths": Array((2,), [3, 4], "f32")}, naming=["f32"])
        case("cu_seqlens", {**base, "q": normal(1, 7, 4, 8),
                            "cu_seqlens_q": Array((3,), [0, 5, 4], "i32")}, naming=["cu_seqlens_q"])
        case("page", {**base, "page_table": Array((2, 1), [0, 7], "i32")}, naming=["7"])
        case("dropout", base, "--dropout", "1", naming=["dropout", "1"])
        case("stream without dropout", base, "--dropout-stream", "fa2", naming=["dropout_stream", "no dropout"])
        case("dropout of the stream", base, "--dropout", "0.999", "--dropout-stream", "fa2",
             naming=["0.999", "255/256"])
        case("scale", base, "--scale", "nan", naming=["scale"])
        case("softcap", base, "--softcap", "-1", naming=["softcap"])
        case("window", base, "--window", "-2,0", naming=["-2"])
        case("kernel", base, "--kernel", "fwd.cpu.f99.best", naming=["fwd.cpu.f99.best"])
        case("device", base, "--device", "cuda", naming=["cuda"])
        case("grad_o", {**base, "grad_o": normal(2, 7, 4, 5)}, "--backward", naming=["grad_o"])

    def test_names(self):
        npy = npy_bytes(normal(1, 3, 2, 4))
        paths = [self.save(f"{name}.npy", npy) for name in "qkv"]
        other = self.save("weights.npy", npy)
        self.refused("run", *paths, other, naming=["weights", "cu_seqlens_q"])
        self.refused("run", *paths, paths[0], naming=["q.npy", "twice"])

    def test_output(self):
        path = self.save("x.safetensors", qkv())
        self.refused("run", path, "-o", "no/such/folder/o.safetensors", naming=["no/such/folder"])
        self.refused("map", path, "-o", "no/such/folder/o.png", naming=["no/such/folder"])
        self.refused("bench", "--problem", "forward", "--json", "no/such/folder/o.json",
                     naming=["no/such/folder"])


class Explain(Case):
    PROBLEM = "forward dtype=bf16 b=2 hq=16 hkv=4 sq=128 sk=128 d=64 mask=causal-bottom-right"

    def test_text(self):
        text = self.attune("explain", self.PROBLEM).stdout
        self.assertIn(self.PROBLEM, text)
        self.assertIn("fwd.cpu.bf16.generic", text)
        self.assertIn("workspace", text)
        # The same without quotes.
        self.assertEqual(text, self.attune("explain", *self.PROBLEM.split()).stdout)

    def test_json(self):
        result = self.json("explain", self.PROBLEM, "--threads", 2)
        ids = [candidate["id"] for candidate in result["candidates"]]
        self.assertIn(result["chosen"], ids)
        self.assertEqual(result["threads"], 2)
        for candidate in result["candidates"]:
            self.assertEqual(candidate["supported"], not candidate["reasons"])
        chosen = next(c["id"] for c in result["candidates"] if c["supported"])
        self.assertEqual(result["chosen"], chosen)

    def test_refusals(self):
        said = self.attune("explain", self.PROBLEM + " device=cuda", code=1).stdout
        self.assertIn("device=cuda", said)
        result = self.json("explain", self.PROBLEM + " device=cuda", code=1)
        self.assertIsNone(result["chosen"])
        self.assertTrue(all(c["reasons"] for c in result["candidates"]))
        said = self.attune("explain", self.PROBLEM.replace("hkv=4", "hkv=5"), code=2).stderr
        self.assertIn("hkv = 5", said)
        forced = self.json("explain", self.PROBLEM, "--kernel", "fwd.cpu.bf16.generic")
        self.assertEqual(forced["chosen"], "fwd.cpu.bf16.generic")


class List(Case):
    def test_json_and_text(self):
        rows = self.json("list")
        text = self.attune("list").stdout
        for row in rows:
            self.assertIn(row["id"], text)
            self.assertEqual(row["available"], not row["missing"])
        self.assertTrue(any(row.get("isa") == "generic" and row["available"] for row in rows))

    def test_markdown(self):
        text = self.attune("list", "--markdown").stdout
        for line in text.strip().splitlines():
            if line:
                self.assertTrue(line.startswith("|") and line.endswith("|"), line)
        self.assertIn("| ALiBi |", text)


class Doctor(Case):
    def test_text_and_json(self):
        text = self.attune("doctor").stdout
        for part in ("CPU", "generic", "libcuda", "libnvrtc", "ATTUNE_CPU_ISA"):
            self.assertIn(part, text)
        result = self.json("doctor")
        self.assertGreaterEqual(result["cores"], 1)
        self.assertIn("generic", [isa["name"] for isa in result["instruction_sets"]])
        for library in result["libraries"]:
            self.assertTrue(library["package"])


class Bench(Case):
    def test_problems(self):
        problems = ["forward dtype=f32 hq=2 hkv=2 sq=40 sk=40 d=16 mask=causal-bottom-right",
                    "backward dtype=bf16 hq=2 hkv=1 sq=40 sk=40 d=16 lse",
                    "forward dtype=f16 b=2 sq=30 sk=30 d=8 packed=qk total_q=50 total_k=60"]
        options = [word for problem in problems for word in ("--problem", problem)]
        self.attune("bench", *options, "--quick", "--threads", "1,2", "--check", "--json", "b.json")
        report = json.loads((self.folder / "b.json").read_text())
        for field in ("device", "cores", "compiler", "version", "commit"):
            self.assertTrue(report[field], field)
        self.assertEqual([row["threads"] for row in report["rows"]], [1, 2] * 3)
        for row in report["rows"]:
            self.assertTrue(row["pass"], row)
            self.assertGreater(row["median_seconds"], 0)
            self.assertGreater(row["gflops"], 0)
            self.assertIn(".cpu.", row["kernel"])
        report = json.loads(self.attune("bench", *options[:2], "--quick", "--json", "-").stdout)
        self.assertEqual(len(report["rows"]), 1)

    def test_refused_problem(self):
        said = self.attune("bench", "--quick", "--problem", "forward d=8 device=cuda", code=1)
        self.assertIn("cuda", said.stderr)


class Map(Case):
    def test_picture(self):
        path = self.save("x.safetensors", qkv(sq=30, sk=40))
        for options in ([], ["--head", 3, "--batch", 1, "--colours", "sqrt"],
                        ["--mask", "causal-bottom-right", "--window", "5,0"]):
            with self.subTest(options=options):
                result = self.json("map", path, *options, "-o", "map.png")
                raw = (self.folder / "map.png").read_bytes()
                self.assertEqual(raw[:8], b"\x89PNG\r\n\x1a\n")
                self.assertEqual(struct.unpack(">II", raw[16:24]),
                                 (result["width"], result["height"]))
                self.assertTrue(500 < result["width"] < 1400, result)
                self.assertTrue(0 < result["largest"] <= 1)

    def test_shapes(self):
        for sq, sk in ((1, 3), (1, 2000), (1500, 2), (1, 1)):
            with self.subTest(sq=sq, sk=sk):
                path = self.save("x.safetensors", qkv(b=1, sq=sq, sk=sk, hq=1, hkv=1, d=2, dv=1))
                self.attune("map", path, "-o", "map.png")
                self.assertTrue((self.folder / "map.png").read_bytes().startswith(b"\x89PNG"))
                (self.folder / "map.png").unlink()

    def test_refusals(self):
        path = self.save("x.safetensors", qkv())
        for options in (["--head", 4], ["--head", -1], ["--batch", 2]):
            self.assertIn("counted from 0", self.attune("map", path, *options, "-o", "m.png",
                                                        code=1).stderr)
        path = self.save("x.safetensors", qkv(sk=0))
        self.assertIn("0 keys", self.attune("map", path, "-o", "m.png", code=1).stderr)
        self.assertFalse((self.folder / "m.png").exists())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]])
