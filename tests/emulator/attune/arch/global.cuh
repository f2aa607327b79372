// As kernels/attune/arch/global.cuh, on the host.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

inline void store_global(void* to, const u32 (&r)[4], bool there) {
  if (there) std::memcpy(to, r, 16);
}
inline void store_global(void* to, float a, float b, bool there) {
  const float r[2] = {a, b};
  if (there) std::memcpy(to, r, 8);
}
template <int kCount>
void load_global(u32 (&r)[kCount], const void* from) {
  std::memcpy(r, from, 4 * kCount);
}
inline void add_global(float* to, const float (&x)[4]) {
  for (int i = 0; i < 4; ++i) to[i] += x[i];
}

}  // namespace attune::kernel
