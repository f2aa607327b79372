#!/usr/bin/env bash
# Everything that must hold, as CI runs it. Each step stops the script when it fails; the last lines
# are ctest's summary of the Release build.
#
# usage: scripts/test.sh [--quick]    --quick: the Release build and its tests only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=no
case "${1:-}" in
  '') ;;
  --quick) quick=yes ;;
  *)
    echo "usage: scripts/test.sh [--quick]" >&2
    exit 2
    ;;
esac

jobs=$(nproc)
launcher=()
if command -v ccache >/dev/null; then
  launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 # a hit in one clone serves another
fi
fuzz_seconds=30

step() { printf '\n== [%3d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

build() { # PRESET CONFIGURE_ARG...: quiet unless it fails
  local preset=$1 log
  shift
  step "build: $preset"
  log=$(mktemp)
  if ! { cmake --preset "$preset" "${launcher[@]}" "$@" && cmake --build --preset "$preset" -j "$jobs"; } \
    >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    echo "The $preset build failed." >&2
    return 1
  fi
  rm -f "$log"
}

sanitized_tests() { # PRESET
  build "$1"
  step "test: $1"
  ctest --preset "$1" -j "$jobs" --progress
}

check_format() {
  step "clang-format"
  local version
  version=$(clang-format --version | sed 's/.*version \([0-9]*\).*/\1/')
  if [ "$version" != 14 ]; then
    # Every version lays out a few constructs differently; one has to be the judge.
    echo "skipped: the layout is that of clang-format 14 (Debian 12); this is $version"
    return
  fi
  git ls-files -z -- '*.c' '*.cpp' '*.h' '*.hpp' '*.cuh' | xargs -0 -r clang-format --dry-run -Werror
}

quietly() { # COMMAND...: what clang-tidy finds, or else everything, if it fails
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    grep -E '(warning|error):' -A 6 "$log" >&2 || cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

check_lint() {
  step "clang-tidy"
  # The kernels of src/cpu/kernel are compiled five times and made of intrinsics: five readings of
  # the same advice. Compilers' warnings and sanitizers watch over them.
  quietly run-clang-tidy -quiet -p build -j "$jobs" "$PWD/src/(?!cpu/kernel/).*\.cpp$"
  local python=$PWD/build/python/bin/python
  if ! "$python" -c 'import nanobind' 2>/dev/null; then
    echo "skipped: the Python package's extension, whose nanobind is not in build/python"
    return
  fi
  # Configured for its compile commands; the test of the package builds it.
  quietly cmake -S python -B build/python-lint -DPython_EXECUTABLE="$python" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
  quietly run-clang-tidy -quiet -p build/python-lint -j "$jobs" "$PWD/python/extension/.*\.cpp$"
}

fuzz_one() { # NAME
  local corpus=build-fuzz/corpus/$1 log=build-fuzz/$1.log
  mkdir -p "$corpus"
  # New inputs go to the first folder, so the checkout stays as it is.
  if ! "build-fuzz/tests/fuzz/$1_fuzz" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="build-fuzz/$1-" "$corpus" "tests/fuzz/corpus/$1" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "$1 found an input; it lies in build-fuzz/$1-*" >&2
    return 1
  fi
  echo "$1: $(grep -E '^Done ' "$log")"
}

fuzz() {
  build fuzz
  step "fuzz: $fuzz_seconds s each"
  export -f fuzz_one
  export fuzz_seconds
  find tests/fuzz -name "*_fuzz.cpp" -printf "%f\n" | sed "s/_fuzz\.cpp$//" |
    xargs -P "$jobs" -I{} bash -c "set -euo pipefail; fuzz_one {}"
}

scripts/setup.sh test
. scripts/nvrtc.sh
if [ $quick = no ]; then check_format; fi
build release -DATTUNE_BUILD_TESTS=ON -DATTUNE_BUILD_BENCH=ON
if [ $quick = no ]; then
  check_lint
  fuzz
  sanitized_tests asan
  sanitized_tests tsan
fi
step "test: release"
ctest --preset release -j "$jobs"
