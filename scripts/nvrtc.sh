# Sourced in the source tree, to name NVIDIA's run-time compiler where setup.sh had to bring one from
# PyPI. A compiler named before stays.
if [ -z "${ATTUNE_NVRTC:-}" ]; then
  ATTUNE_NVRTC=$(compgen -G "$PWD/build/python/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1[23]" || true)
  if [ -n "$ATTUNE_NVRTC" ]; then export ATTUNE_NVRTC; else unset ATTUNE_NVRTC; fi
fi
