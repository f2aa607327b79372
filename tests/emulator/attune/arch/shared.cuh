// As kernels/attune/arch/shared.cuh, on the host.
#pragma once

#include <attune/arch/global.cuh>

#include "tests/emulator/device.h"

namespace attune::kernel {

inline u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

namespace detail {

struct MatrixSlot {
  u32 address;
  u32* r;
};

template <bool kTransposed>
void ldmatrix(u32 (&r)[4], u32 address) {
  MatrixSlot slot{address, r};
  emulator::meet_warp(&slot, [](void* const* lanes) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      unsigned short x[8][8];
      for (int row = 0; row < 8; ++row) {
        const u32 from = static_cast<const MatrixSlot*>(lanes[matrix * 8 + row])->address;
        std::memcpy(x[row], emulator::at(from, 16), 16);
      }
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const unsigned short a = kTransposed ? x[2 * t][g] : x[g][2 * t];
        const unsigned short b = kTransposed ? x[2 * t + 1][g] : x[g][2 * t + 1];
        static_cast<const MatrixSlot*>(lanes[lane])->r[matrix] = a | static_cast<u32>(b) << 16;
      }
    }
  });
}

}  // namespace detail

inline void ldmatrix(u32 (&r)[4], u32 address) { detail::ldmatrix<false>(r, address); }
inline void ldmatrix_transposed(u32 (&r)[4], u32 address) { detail::ldmatrix<true>(r, address); }

inline void stmatrix(u32 address, const u32 (&r)[4]) {
  struct Slot {
    u32 address;
    const u32* r;
  } slot{address, r};
  emulator::meet_warp(&slot, [](void* const* lanes) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int row = 0; row < 8; ++row) {
        const u32 to = static_cast<const Slot*>(lanes[matrix * 8 + row])->address;
        unsigned char* const bytes = emulator::at(to, 16);
        for (int t = 0; t < 4; ++t) {
          std::memcpy(bytes + 4 * t, &static_cast<const Slot*>(lanes[row * 4 + t])->r[matrix], 4);
        }
      }
    }
  });
}

inline u32 load_shared(u32 address) {
  u32 x;
  std::memcpy(&x, emulator::at(address, 4), 4);
  return x;
}
inline void load_shared(u32 (&r)[4], u32 address) { std::memcpy(r, emulator::at(address, 16), 16); }
inline void store_shared(u32 address, u32 x) { std::memcpy(emulator::at(address, 4), &x, 4); }
inline void store_shared(u32 address, u32 a, u32 b) {
  const u32 x[2] = {a, b};
  std::memcpy(emulator::at(address, 8), x, 8);
}
inline void store_shared(u32 address, const u32 (&r)[4]) {
  std::memcpy(emulator::at(address, 16), r, 16);
}
inline void copy_async(u32 to, const void* from, bool there) {
#if __CUDA_ARCH__ >= 800
  emulator::copy_later(to, there ? from : nullptr);
#else
  u32 r[4] = {0, 0, 0, 0};
  if (there) load_global(r, from);
  store_shared(to, r);
#endif
}
inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  emulator::commit_copies();
#endif
}
template <int kPending>
void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  emulator::wait_for_copies(kPending);
#endif
}

}  // namespace attune::kernel
