// As kernels/attune/arch/global.cuh, on the host.
#pragma once

#include "tests/emulator/device.h"

namespace attune::kernel {

inline void store_global(void* to, const u32 (&r)[4], bool there) {
  if (there) std::memcpy(emulator::aligned(to, 16), r, 16);
}
inline void store_global(void* to, const u32 (&r)[2], bool there) {
  if (there) std::memcpy(emulator::aligned(to, 8), r, 8);
}
inline void store_global(void* to, float a, float b, bool there) {
  const float r[2] = {a, b};
  if (there) std::memcpy(emulator::aligned(to, 8), r, 8);
}
template <int kCount>
void load_global(u32 (&r)[kCount], const void* from) {
  std::memcpy(r, emulator::aligned(from, 4 * kCount), 4 * kCount);
}
inline void add_global(float* to, const float (&x)[4]) {
  if (__CUDA_ARCH__ >= 900) (void)emulator::aligned(to, 16);
  for (int i = 0; i < 4; ++i) to[i] += x[i];
}

inline u32 next_ticket(u32* counter) { return (*counter)++; }
inline void wait_for_turn(const u32* counter, u32 value) {
  // Blocks run one after another: nobody else will count on.
  if (*counter != value) emulator::fail("waits for a turn that never comes");
}
inline void pass_turn(u32* counter, u32 value) { *counter = value; }

}  // namespace attune::kernel
