// As kernels/attune/arch/mma.cuh, on the host: products in float64, one rounding.
#pragma once

#include <attune/params.h>

#include <attune/arch/convert.cuh>

namespace attune::kernel {

namespace detail {

struct ProductSlot {
  float* c;
  const u32* a;
  u32 b[2];
};

// element(register, half): a 16-bit operand, or a tf32 with one element a register.
template <int kPerRegister, typename ToFloat>
void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, const ToFloat& to_float) {
  static const ToFloat* the_to_float;
  the_to_float = &to_float;
  ProductSlot slot{c, a, {b0, b1}};
  emulator::meet_warp(&slot, [](void** slots) {
    constexpr int kDepth = 8 * kPerRegister;
    static float a[16][kDepth], b[kDepth][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const auto& mine = *static_cast<ProductSlot*>(slots[lane]);
      for (int r = 0; r < 4; ++r) {
        for (int e = 0; e < kPerRegister; ++e) {
          const int k = r / 2 * (kDepth / 2) + kPerRegister * t + e;
          a[g + r % 2 * 8][k] = (*the_to_float)(mine.a[r], e);
          if (r < 2) b[r * (kDepth / 2) + kPerRegister * t + e][g] = (*the_to_float)(mine.b[r], e);
        }
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i) {
        const int row = g + i / 2 * 8, column = 2 * t + i % 2;
        float& c = static_cast<ProductSlot*>(slots[lane])->c[i];
        double sum = c;
        for (int k = 0; k < kDepth; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
        c = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace detail

template <bool kBf16>
void mma16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  detail::multiply<2>(c, a, b0, b1, [](u32 x, int e) {
    const auto bits = static_cast<unsigned short>(x >> 16 * e);
    return kBf16 ? __uint_as_float(static_cast<u32>(bits) << 16) : f16_to_float(bits);
  });
}

inline void mma_tf32(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  detail::multiply<1>(c, a, b0, b1, [](u32 x, int) { return __uint_as_float(x & 0xffffe000u); });
}

}  // namespace attune::kernel
