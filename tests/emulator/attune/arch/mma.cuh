// As kernels/attune/arch/mma.cuh, on the host: products summed in float64, one rounding.
#pragma once

#include <attune/arch/convert.cuh>

#include "tests/emulator/device.h"

namespace attune::kernel {

namespace detail {

struct ProductSlot {
  float* c;
  const u32* a;
  u32 b[2];
};

// Element e of a register, as float.
struct F16Pair {
  static constexpr int kCount = 2;
  static float at(u32 x, int e) { return f16_to_float(static_cast<unsigned short>(x >> 16 * e)); }
};
struct Bf16Pair {
  static constexpr int kCount = 2;
  static float at(u32 x, int e) { return __uint_as_float(e == 0 ? x << 16 : x & 0xffff0000u); }
};
struct Tf32 {
  static constexpr int kCount = 1;
  static float at(u32 x, int) { return __uint_as_float(x & 0xffffe000u); }
};

template <typename Register>
void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  ProductSlot slot{c, a, {b0, b1}};
  emulator::meet_warp(&slot, [](void* const* lanes) {
    constexpr int kCount = Register::kCount, kDepth = 8 * kCount;
    float rows[16][kDepth];
    double columns[kDepth][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const auto& mine = *static_cast<const ProductSlot*>(lanes[lane]);
      for (int r = 0; r < 4; ++r) {
        for (int e = 0; e < kCount; ++e) {
          const int k = kCount * t + e;
          rows[g + r % 2 * 8][r / 2 * (kDepth / 2) + k] = Register::at(mine.a[r], e);
          if (r < 2) columns[r * (kDepth / 2) + k][g] = Register::at(mine.b[r], e);
        }
      }
    }
    for (int row = 0; row < 16; ++row) {
      double sum[8];
      for (int n = 0; n < 8; ++n) {
        sum[n] =
            static_cast<const ProductSlot*>(lanes[row % 8 * 4 + n / 2])->c[row / 8 * 2 + n % 2];
      }
      for (int k = 0; k < kDepth; ++k) {
        const double x = rows[row][k];
        for (int n = 0; n < 8; ++n) sum[n] += x * columns[k][n];
      }
      for (int n = 0; n < 8; ++n) {
        static_cast<const ProductSlot*>(lanes[row % 8 * 4 + n / 2])->c[row / 8 * 2 + n % 2] =
            static_cast<float>(sum[n]);
      }
    }
  });
}

}  // namespace detail

template <bool kBf16>
void mma16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  static_assert(!kBf16 || __CUDA_ARCH__ >= 800, "no bf16 tensor cores before sm_80");
  if constexpr (kBf16) {
    detail::multiply<detail::Bf16Pair>(c, a, b0, b1);
  } else {
    detail::multiply<detail::F16Pair>(c, a, b0, b1);
  }
}

inline void mma_tf32(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if (__CUDA_ARCH__ >= 800) detail::multiply<detail::Tf32>(c, a, b0, b1);
}

}  // namespace attune::kernel
