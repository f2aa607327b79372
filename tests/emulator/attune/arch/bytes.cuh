// As kernels/attune/arch/bytes.cuh, on the host.
#pragma once

#include <attune/params.h>

namespace attune::kernel {

template <int kFirst>
inline u32 spread_signs(u32 x) {
  const auto half = [x](int byte) { return (x >> (8 * byte + 7) & 1u) != 0 ? 0xffffu : 0u; };
  return half(kFirst) | half(kFirst + 1) << 16;
}

inline u32 reverse_bytes(u32 x) { return __builtin_bswap32(x); }

}  // namespace attune::kernel
