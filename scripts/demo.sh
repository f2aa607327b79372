#!/usr/bin/env bash
# From a fresh clone to exact attention on a real model's tensors: installs what is missing, builds,
# computes, checks against the float64 oracle, explains the choice and draws a picture.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
show() { # prints the command as a user would type it, then runs it
  local word line='$ attune'
  for word in "$@"; do
    case "$word" in
      *' '*) line+=" \"$word\"" ;;
      *) line+=" $word" ;;
    esac
  done
  printf '\n%s\n' "$line"
  build/src/attune "$@"
}

scripts/setup.sh build
. scripts/nvrtc.sh

say "Building (Release, into build/)"
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
log=build/demo/build.log
mkdir -p build/demo
if ! { cmake --preset release -DATTUNE_BUILD_TESTS=OFF -DATTUNE_BUILD_BENCH=OFF "${launcher[@]}" &&
  cmake --build build --target attune attune_cli; } >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "The build failed; all of its output is in $log." >&2
  exit 1
fi

input=examples/data/gpt_qkv.safetensors
say "Exact attention on q, k and v of a small byte-level GPT ($input)"
for dtype in f32 bf16; do
  show run "$input" --prefix layer0. --dtype "$dtype" --mask causal-bottom-right --check
done

say "Why this kernel"
show explain "forward dtype=bf16 b=1 hq=5 hkv=5 sq=512 sk=512 d=64 mask=causal-bottom-right"

say "What one head looks at"
show map "$input" --prefix layer0. --mask causal-bottom-right -o build/demo/attention_map.png

say "This machine"
show doctor

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q .; then
  say "The same on the GPU"
  for dtype in f32 bf16; do
    show run "$input" --prefix layer0. --dtype "$dtype" --mask causal-bottom-right --device cuda --check
  done
  show bench --device cuda --quick
fi

echo
echo "The picture is $PWD/build/demo/attention_map.png"
