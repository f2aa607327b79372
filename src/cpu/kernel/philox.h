// Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) by lanes.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

struct PhiloxBlock {
  U word[4];
};

ATTUNE_INLINE void multiply_wide(U a, std::uint32_t m, U* high, U* low) {
  const U64 product = __builtin_convertvector(a, U64) * static_cast<std::uint64_t>(m);
  *high = __builtin_convertvector(product >> 32, U);
  *low = __builtin_convertvector(product, U);
}

// Counter words 2 and 3 are the subsequence.
template <int kRounds>
ATTUNE_INLINE PhiloxBlock philox(U c0, U c1, U c2, U c3, std::uint64_t seed) {
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kRounds; ++round) {
    U high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, &high0, &low0);
    multiply_wide(c2, 0xCD9E8D57u, &high1, &low1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace attune::cpu::ATTUNE_ISA
