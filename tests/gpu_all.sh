#!/usr/bin/env bash
# Checks on a machine with a GPU all that can be checked there: its kernels, compiled on all cores;
# the GPU's tests on every row that serves, by processes side by side; dropout's masks beside
# PyTorch's; compute-sanitizer on a few problems. Four minutes on 16 cores of an H200's machine.
#
# usage: tests/gpu_all.sh PROGRAMS LOGS [STEP...]
#   PROGRAMS  a build tree, or a folder with attune, libattune.so and attune_gpu_tests from one
#   LOGS      where the bundle and what the programs print go; a bundle that is there is used
#   STEP      kernels, tests, huge (50 GB of the GPU's memory), masks or sanitizer; unless said all but huge
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -lt 2 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
programs=$1
logs=$2
shift 2
steps=${*:-kernels tests masks sanitizer}
processes=8
failed=no

find_program() { # NAME FOLDER: in a build tree, or beside the others
  local path
  for path in "$programs/$2/$1" "$programs/$1"; do
    if [ -e "$path" ]; then
      echo "$path"
      return
    fi
  done
  echo "gpu_all.sh: there is no $1 in $programs" >&2
  return 1
}

step() { printf '\n== [%3d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

report() { # LOG STATUS: what a program found; 77: it skipped itself
  local found
  found=$(grep -hE '^\[  (PASSED|FAILED|SKIPPED) |ERROR SUMMARY|RACECHECK SUMMARY' "$1" | sort -u | head -n 20) || found=$(tail -n 2 "$1")
  printf '%s\n' "$found" | sed "s|^|$(basename "$1"): |"
  if [ "$2" != 0 ] && [ "$2" != 77 ]; then
    failed=yes
    echo "$1: exit status $2; it ends"
    tail -n 5 "$1"
  fi
}

side_by_side() { # NAME, then commands of plain words, a process each
  local name=$1 command log pid status
  local -a pids=() logs_of=()
  shift
  for command in "$@"; do
    log=$logs/$name.${#pids[@]}.log
    # shellcheck disable=SC2086  # a command is several words
    env $command >"$log" 2>&1 &
    pids+=($!)
    logs_of+=("$log")
  done
  for pid in "${!pids[@]}"; do
    status=0
    wait "${pids[$pid]}" || status=$?
    report "${logs_of[$pid]}" "$status"
  done
}

attune=$(find_program attune src)
library=$(find_program libattune.so src)
gpu_tests=$(find_program attune_gpu_tests tests)
mkdir -p "$logs"
. scripts/nvrtc.sh
bundle=$logs/kernels.attune
if [ -e "$bundle" ]; then export ATTUNE_BUNDLE=$bundle; fi

for name in $steps; do
  step "$name"
  case $name in
    kernels)
      arch=sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
      side_by_side kernels "$attune compile --all --arch $arch --check -o $bundle"
      if [ -e "$bundle" ]; then export ATTUNE_BUNDLE=$bundle; fi
      ;;
    tests)
      lines=()
      for ((shard = 0; shard < processes; ++shard)); do
        lines+=("GTEST_TOTAL_SHARDS=$processes GTEST_SHARD_INDEX=$shard $gpu_tests --every-kernel --gtest_brief=1")
      done
      side_by_side tests "${lines[@]}"
      ;;
    huge)
      side_by_side huge "$gpu_tests --huge --gtest_filter=Large* --gtest_brief=1"
      ;;
    masks)
      side_by_side masks "python3 tests/gpu_dropout_torch.py . $library"
      ;;
    sanitizer)
      memcheck="compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 $gpu_tests --every-kernel"
      few="--grid-count=40 --gtest_filter=*KernelGrid*"
      side_by_side sanitizer \
        "$memcheck $few" \
        "$memcheck --gtest_filter=*Dropout*Forward*:*Clusters*Match*:*Mates*Tiles*" \
        "compute-sanitizer --tool synccheck --error-exitcode 1 $gpu_tests --every-kernel $few" \
        "compute-sanitizer --tool racecheck --error-exitcode 1 $gpu_tests --every-kernel $few"
      ;;
    *)
      echo "gpu_all.sh: $name is none of kernels, tests, huge, masks, sanitizer" >&2
      exit 2
      ;;
  esac
done
step "$([ $failed = no ] && echo passed || echo FAILED)"
[ $failed = no ]
