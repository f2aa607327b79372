// The four bytes of a register.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

// In each half of the result, the sign of a byte of x in all bits: of byte kFirst in the lower, of the one after it in
// the upper.
template <int kFirst>
__device__ __forceinline__ u32 spread_signs(u32 x) {
  constexpr u32 kSign = 8;
  constexpr u32 kBoth = kSign | kFirst, kNext = kBoth + 1;
  u32 out;
  asm("prmt.b32 %0, %1, 0, %2;"
      : "=r"(out)
      : "r"(x), "n"(kBoth | kBoth << 4 | kNext << 8 | kNext << 12));
  return out;
}

// The first byte becomes the last, and so on.
__device__ __forceinline__ u32 reverse_bytes(u32 x) {
  u32 out;
  asm("prmt.b32 %0, %1, 0, 0x0123;" : "=r"(out) : "r"(x));
  return out;
}

}  // namespace attune::kernel
