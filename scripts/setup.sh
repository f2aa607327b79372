#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that Attune needs and this machine lacks; says which and
# why. What builds and tests the Python package comes from PyPI, into build/python; so does NVIDIA's
# run-time compiler where GPU kernels are to be compiled (for tests always, else where there is a GPU)
# and no CUDA toolkit is found. Prints and does nothing when all are there.
#
# usage: scripts/setup.sh [build|test]    test (default: build) adds what scripts/test.sh needs
set -euo pipefail

what=${1:-build}
case "$what" in
  build | test) ;;
  *)
    echo "usage: scripts/setup.sh [build|test]" >&2
    exit 2
    ;;
esac

# package | a command, or a file below an include directory, that shows that it is there | why
build_packages='
g++                | g++               | the C++20 compiler
cmake              | cmake             | configures the build
ninja-build        | ninja             | runs the build
libfmt-dev         | fmt/core.h        | {fmt}: text
nlohmann-json3-dev | nlohmann/json.hpp | JSON, and the headers of .safetensors files
libxxhash-dev      | xxhash.h          | hashes of compiled kernels
libzstd-dev        | zstd.h            | bundles of compiled kernels
libcli11-dev       | CLI/CLI.hpp       | the command line of attune
libpng-dev         | png.h             | writes the attention map
'
test_packages='
git                | git               | names the tracked files
pkg-config         | pkg-config        | one of the ways to find the installed library
binutils           | readelf           | reads what the library needs and exports
libgtest-dev       | gtest/gtest.h     | GoogleTest
python3            | python3           | test scripts
python3-numpy      | @numpy            | the second implementation that judges the oracle
clang              | clang++           | fuzzers
clang-format       | clang-format      | checks the layout of the sources
clang-tidy         | clang-tidy        | lint
'

present() {
  case "$1" in
    @numpy)
      python3 -c 'import numpy' 2>/dev/null || /usr/bin/python3 -c 'import numpy' 2>/dev/null
      ;;
    @headers) [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ;;
    @venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    @none) return 1 ;;
    *.h | *.hpp) # libpng's header and {fmt}'s may lie in a directory of the architecture
      compgen -G "/usr/include/$1" || compgen -G "/usr/include/*/$1" ||
        compgen -G "/usr/local/include/$1"
      ;;
    *) command -v "$1" ;;
  esac >/dev/null
}

updated=no
install_missing() { # rows on stdin
  local missing=() package probe why
  while IFS='|' read -r package probe why; do
    package=${package// /} probe=${probe// /}
    [ -n "$package" ] || continue
    if ! present "$probe"; then
      echo "missing: $package (${why# })"
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "There is no apt-get here. Install the above with this system's package manager." >&2
    return 1
  fi
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Run this as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    root=(sudo)
  fi
  if [ $updated = no ]; then
    "${root[@]}" apt-get update -qq
    updated=yes
  fi
  echo "installing: ${missing[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_missing <<<"$build_packages"
if [ "$what" = test ]; then
  install_missing <<<"$test_packages"
  # libFuzzer and the sanitizers' runtimes come in a package with clang's version in its name.
  if ! [ -e "$(clang -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)" ] &&
    ! compgen -G "$(clang -print-resource-dir)/lib/*/libclang_rt.fuzzer*" >/dev/null; then
    version=$(clang -dumpversion)
    install_missing <<<"libclang-rt-${version%%.*}-dev | @none | libFuzzer and sanitizer runtimes"
  fi
fi

driver_cuda() { # the CUDA version that the driver is made for; nothing where there is no GPU
  command -v nvidia-smi >/dev/null || return 0
  nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\..*/\1/p'
}

has_nvrtc() {
  local toolkit=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
  [ -n "${ATTUNE_NVRTC:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so\.1[23]' ||
    compgen -G "$toolkit/lib64/libnvrtc.so.1[23]" >/dev/null
}

install_nvrtc() { # CUDA_MAJOR
  # Tiles leave just enough registers, so the version that they were measured with.
  local package='nvidia-cuda-nvrtc==13.0.*'
  if [ "$1" -lt 13 ]; then package='nvidia-cuda-nvrtc-cu12==12.9.*'; fi
  echo "missing: $package (compiles GPU kernels), which comes from PyPI into build/python"
  if ! in_build_python "$package"; then
    echo "PyPI did not give $package: GPU kernels are not compiled here, and tests of them skip." >&2
  fi
}

in_build_python() { # PACKAGE...: from PyPI into build/python
  install_missing <<<"
python3      | python3 | runs pip
python3-venv | @venv   | a place of its own for what PyPI brings"
  { [ -x build/python/bin/pip ] || python3 -m venv build/python; } &&
    build/python/bin/pip install --quiet --disable-pip-version-check "$@"
}

# What builds and tests the Python package. PyTorch is not among it: its tests run where it is found.
install_python_tools() {
  if build/python/bin/python -c 'import nanobind, numpy, pytest, scikit_build_core' 2>/dev/null; then return; fi
  local packages=(nanobind scikit-build-core pytest numpy)
  echo "missing: ${packages[*]} (the Python package), which come from PyPI into build/python"
  install_missing <<<"python3-dev | @headers | Python's headers"
  if ! in_build_python "${packages[@]}"; then
    echo "PyPI did not give them: the Python package is not tested here." >&2
  fi
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/nvrtc.sh
if [ "$what" = test ]; then install_python_tools; fi
cuda=$(driver_cuda)
if { [ "$what" = test ] || [ -n "$cuda" ]; } && ! has_nvrtc; then install_nvrtc "${cuda:-13}"; fi

version=$(cmake --version | sed -n '1s/[^0-9]*//p')
if [ "$(printf '3.25\n%s\n' "$version" | sort -V | head -n 1)" != 3.25 ]; then
  echo "cmake is $version; Attune needs 3.25 or newer (Debian 12, Ubuntu 24.04)." >&2
  exit 1
fi
