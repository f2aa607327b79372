#!/usr/bin/env python3
"""pip install ./python, against this build's library, and then its own tests.

usage: python_package_test.py SOURCE_DIR BUILD_DIR WORK_DIR CXX_COMPILER PYTHON...
The first PYTHON that has what it takes is used: pip, nanobind, scikit-build-core, pytest, NumPy. The
tests that need PyTorch, JAX or transformers run where that one imports them.
"""

import os
import pathlib
import shutil
import subprocess
import sys

NEEDED = {
    "pip": "pip",
    "nanobind": "nanobind",
    "scikit_build_core": "scikit-build-core",
    "pytest": "pytest",
    "numpy": "numpy",
}
SKIPPED = 77


def missing_from(python):
    """Packages that an interpreter lacks, or why it is none."""
    code = (
        "import importlib.util as u, sys; print(*(m for m in sys.argv[1:] if u.find_spec(m) is None))"
    )
    try:
        done = subprocess.run([python, "-c", code, *NEEDED], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return [f"an interpreter ({error})"]
    return [NEEDED[name] for name in done.stdout.split()]


def main():
    source, build, work = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
    compiler, candidates = sys.argv[4], sys.argv[5:]
    lacks = {python: missing_from(python) for python in candidates}
    python = next((python for python, missing in lacks.items() if not missing), None)
    if python is None:
        for candidate, missing in lacks.items():
            print(f"skipped: {candidate} lacks {', '.join(missing)} (scripts/setup.sh test installs them)")
        return SKIPPED
    shutil.rmtree(work, ignore_errors=True)
    prefix, site = work / "prefix", work / "site"
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
    launcher = shutil.which("ccache")
    settings = {
        "cmake.define.ATTUNE_INSTALLED": "ON",
        "cmake.define.CMAKE_PREFIX_PATH": prefix,
        "cmake.define.CMAKE_CXX_COMPILER": compiler,
        "build-dir": work / "build",
    }
    if launcher:
        settings["cmake.define.CMAKE_CXX_COMPILER_LAUNCHER"] = launcher
    options = [word for name, value in settings.items() for word in ("-C", f"{name}={value}")]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--target", site, *options, source / "python"],
        check=True,
    )
    environment = dict(os.environ, PYTHONPATH=str(site), PYTHONDONTWRITEBYTECODE="1")
    environment.pop("ATTUNE_CPU_ISA", None)
    # What attune.wrap writes goes through `attune wrap`.
    environment["PATH"] = os.pathsep.join([str(prefix / "bin"), environment.get("PATH", os.defpath)])
    environment["CMAKE_PREFIX_PATH"] = str(prefix)
    return subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", source / "python" / "tests"],
        cwd=work, env=environment, check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
