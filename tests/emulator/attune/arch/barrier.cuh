// As kernels/attune/arch/barrier.cuh, on the host.
#pragma once

#include "tests/emulator/device.h"

namespace attune::kernel {

inline void barrier_sync(int number, int threads) {
  (void)emulator::barrier(number, threads, true, false);
}
inline void barrier_arrive(int number, int threads) {
  (void)emulator::barrier(number, threads, false, false);
}
inline bool barrier_or(int number, int threads, bool x) {
  return emulator::barrier(number, threads, true, x) != 0;
}
inline void let_followers_begin() {}
inline void await_predecessors() {}
inline void hold() {}
inline int opaque(int x) { return x; }

}  // namespace attune::kernel
