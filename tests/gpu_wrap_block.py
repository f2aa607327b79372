#!/usr/bin/env python3
"""The transformer block of examples/triton_block.py, traced on this GPU, wrapped, built with g++ and run from C++:
the same numbers as in Python, at lengths that were not traced, in and outside CUDA graphs, on four threads and streams.
Each check is printed as PASS or FAIL; the exit status is 1 when one fails, and 77 where PyTorch, Triton, attune's
package or a GPU is missing.

`attune wrap` compiles attention with NVRTC: ATTUNE_NVRTC names it, else that of PyTorch's wheel is taken.

usage: gpu_wrap_block.py ATTUNE SOURCE_DIR [-o OUT.json] [--work DIR] [--cxx g++]
                         [--stand-in LIBRARY]   without a GPU: all but the numbers, on the driver's stand-in
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
# None of them traced; the traced one is (2, 256).
SIZES = [(1, 77), (3, 500), (2, 1333)]
MOST_LINES, MOST_SECONDS, MOST_STEP_US = 1500, 5.0, 3.0
# Of the root mean square: a handful of roundings to bfloat16, each of 0.2%.
MOST_OFF = 0.01
# Of the output's largest value: two units in the last place of bfloat16, as `attune wrap --check` allows.
TOLERANCE = 2 * 2.0**-7


class Report:
    def __init__(self):
        self.values, self.failed = {}, []

    def check(self, name, ok, said=""):
        print(f"{'PASS' if ok else 'FAIL'}  {name}{': ' if said else ''}{said}", flush=True)
        self.values[name] = {"passed": bool(ok), "said": said}
        if not ok:
            self.failed.append(name)
        return ok


def run(*command, **variables):
    command = [str(word) for word in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, **variables})


def why_not(stand_in):
    missing = [m for m in ("torch", "triton", "attune") if importlib.util.find_spec(m) is None]
    if missing:
        return f"this Python lacks {', '.join(missing)}"
    import torch

    if not stand_in and not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU here"
    return ""


def name_nvrtc():
    """What PyTorch's CUDA wheels bring, where nobody says otherwise."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for library in sorted(pathlib.Path(folder).glob("*/lib/libnvrtc.so.1[23]")):
            os.environ.setdefault("ATTUNE_NVRTC", str(library))


def example(source):
    sys.path.insert(0, str(source / "examples"))
    import triton_block

    return triton_block


def wrap(report, options, program, folder, work):
    """The package; and with a GPU, `--check` on what the traced run brought."""
    command = [options.attune, "wrap", program, "-o", folder]
    recording = program.with_name("block.recording.safetensors")
    checked = recording.exists() and shutil.which("cmake")
    if checked:
        command += ["--check", recording]
    done = run(*command)
    said = (done.stdout + done.stderr).strip()
    if not report.check("attune wrap", (folder / "block.cpp").exists(), said.splitlines()[0] if said else ""):
        return False
    if checked:
        report.check("attune wrap --check", done.returncode == 0, " | ".join(said.splitlines()[1:]))
    lines = (folder / "block.cpp").read_text().count("\n")
    report.check(f"at most {MOST_LINES} lines", lines <= MOST_LINES, f"{lines} lines")
    begin = time.perf_counter()
    done = run(options.cxx, "-std=c++17", "-O2", "-c", folder / "block.cpp", "-o", work / "block.o")
    seconds = time.perf_counter() - begin
    report.check(f"compiles in {MOST_SECONDS:.0f} s", done.returncode == 0 and seconds <= MOST_SECONDS,
                 f"{seconds:.2f} s {done.stderr[-400:]}".strip())  # fmt: skip
    report.values["compile_seconds"], report.values["lines"] = seconds, lines
    done = run(options.cxx, "-std=c++17", folder / "main.cpp", work / "block.o", "-o", work / "example", "-ldl")
    report.check("the package's example links libdl alone", done.returncode == 0, done.stderr[-400:])
    source = options.source / "tests" / "wrap" / "gpu_block_run.cpp"
    done = run(options.cxx, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", folder, source, work / "block.o",
               "-o", work / "run", "-ldl", "-lpthread")  # fmt: skip
    return report.check("the program of this test builds", done.returncode == 0, done.stderr[-400:])


def compare(report, name, got, want, exact):
    """Beside Python's numbers, and both beside float64."""
    import torch

    got, want, exact = got.to("cpu"), want.to("cpu"), exact.to("cpu")
    same = torch.equal(got.view(torch.int16), want.view(torch.int16))
    error = (got.double() - want.double()).abs().max().item()
    largest = want.double().abs().max().item()
    said = "the same bits" if same else f"largest error {error:.3g} of values up to {largest:.3g}"
    report.check(name, same or error <= TOLERANCE * largest, said)
    report.values[name].update(same_bits=same, error=error, largest=largest)
    off, theirs = (((y.double() - exact).square().mean() / exact.square().mean()).sqrt().item() for y in (got, want))
    report.check(f"{name}, and beside float64", off <= MOST_OFF, f"off by {off:.2%} of its size, Python's by {theirs:.2%}")


def finish(report, options):
    if options.output:
        options.output.write_text(json.dumps(report.values, indent=2, ensure_ascii=False) + "\n")
    print(f"{len(report.failed)} failed")
    return 1 if report.failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attune")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--cxx", default="g++")
    parser.add_argument("--stand-in", type=pathlib.Path)
    options = parser.parse_args()
    if reason := why_not(options.stand_in):
        print(f"skipped: {reason}")
        return SKIPPED
    name_nvrtc()
    import torch

    work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="attune_wrap_block_"))
    work.mkdir(parents=True, exist_ok=True)
    report = Report()
    device = "cpu" if options.stand_in else "cuda"
    triton_block = example(options.source)
    if device == "cuda":
        report.values["gpu"] = torch.cuda.get_device_name()
    report.values["torch"] = torch.__version__
    begin = time.perf_counter()
    program = triton_block.traced(device, ["sm_90"] if options.stand_in else None)
    report.values["trace_seconds"] = time.perf_counter() - begin
    path = program.save(work / "program")
    steps = [step for step in program.json["steps"] if "view" not in step]
    report.check("traced", len(steps) == 9, f"{len(steps)} steps, {len(program.kernels)} kernels")

    folder = work / "package"
    if wrap(report, options, path, folder, work):
        weights = triton_block.make_weights(device)
        arguments, wanted = [], []
        for b, s in SIZES:
            x = torch.randn(b, s, triton_block.HIDDEN, device=device).to(torch.bfloat16)
            if device == "cuda":
                with torch.no_grad():
                    wanted.append((triton_block.block(x, **weights).clone(), triton_block.reference(x, **weights)))
            given, made = work / f"x_{s}.bin", work / f"y_{s}.bin"
            given.write_bytes(x.cpu().view(torch.int16).numpy().tobytes())
            arguments += [b, s, given, made]
        if device == "cuda":
            torch.cuda.synchronize()
        (cubin,) = folder.glob("block.rms_norm.*.cubin")
        variables = {"ATTUNE_CUDA_DRIVER": str(options.stand_in)} if options.stand_in else {}
        name = program.json["kernels"]["rms_norm"]["configurations"][0]["binaries"][0]["triton"]
        metadata = json.loads((path.parent / name).read_text())
        launch = (cubin, 32 * metadata["num_warps"], metadata["shared"])
        done = run(work / "run", folder, *launch, triton_block.HIDDEN, *arguments, **variables)
        found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
        said = found.get("failed", done.stderr[-400:])
        if report.check("runs from C++", done.returncode == 0 and found.get("done") == "1", said):
            for (b, s), (want, exact) in zip(SIZES, wanted):
                raw = torch.frombuffer(bytearray((work / f"y_{s}.bin").read_bytes()), dtype=torch.bfloat16)
                compare(report, f"B = {b}, S = {s}: as in Python", raw.reshape(b, s, -1), want, exact)
            report.check("in a CUDA graph: the same bits", found["graph_same_bits"] == "1")
            report.check("4 threads on 4 streams: the same bits", found["threads_same_bits"] == "1")
            if options.stand_in:
                return finish(report, options)
            step, launch = float(found["run_us"]) / len(steps), float(found["launch_us"])
            report.values.update(run_us=float(found["run_us"]), run_allocating_us=float(found["run_allocating_us"]),
                                 launch_us=launch, step_us=step)  # fmt: skip
            report.check(f"a step costs at most {MOST_STEP_US:.0f} µs more than cuLaunchKernel", step - launch <= MOST_STEP_US,
                         f"{step:.2f} µs a step, {launch:.2f} µs cuLaunchKernel, {step - launch:+.2f} µs")  # fmt: skip
    return finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
