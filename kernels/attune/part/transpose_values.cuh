// A tile of V of 8-bit elements, [keys][columns], to what a product takes that knows no other way: [columns][keys].
// Both in panels of 128 bytes whose chunks are exchanged as the copy engine does.
//
// Keys change places within each group of 32, so that S's fragments are those of P as they lie. Thread t of four has
// keys 2t and 2t + 1 of each eight in S, and places 4t to 4t + 3 of each sixteen in P: there are now keys 2t, 2t + 1,
// 8 + 2t and 8 + 2t + 1 of the first half of the group, and of the second likewise.
//
// Matrix loads by pairs of bytes transpose two columns at once: of a pair of keys a lane gets column 2g in the lower
// bytes and 2g + 1 in the upper, for g = lane / 4. Bytes of two loads make four places of either.
#pragma once

#include <attune/arch/shared.cuh>

namespace attune::kernel {

// By a warp. kCuts: zeros for the keys from `rows` on.
template <int kKeys, int kColumns, bool kCuts>
__device__ __forceinline__ void transpose_values(u32 from, u32 to, int rows) {
  static_assert(kKeys % 32 == 0 && kColumns % 64 == 0);
  constexpr int kPanelBytes = 128, kPanelChunks = 8;
  constexpr int kAtOnce = 4;  // chunks of 16 columns, for whose loads there are registers
  const int lane = static_cast<int>(threadIdx.x % 32), row = lane % 8, matrix = lane / 8;
  // A lane's row of the matrices loaded is the key of its number.
  const u32 load_at = from + lane * kPanelBytes + (row << 4);
  // Even columns go to the first matrix from the upper four rows alone, odd ones from the others: columns eight
  // apart share banks. The second has the rest; the other two have the second half of the group.
  const int column = 2 * row + (matrix % 2 ^ row / 4);
  const u32 store_at = to + column * kPanelBytes + ((matrix / 2 ^ column % 8) << 4);
  constexpr u32 kEven = 0x6420, kOdd = 0x7531;
  const u32 first = lane < 16 ? kEven : kOdd, second = lane < 16 ? kOdd : kEven;
#pragma unroll 1
  for (int group = 0; group < kKeys / 32; ++group) {
    u32 kept[4] = {~0u, ~0u, ~0u, ~0u};
    if constexpr (kCuts) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int left = rows - (32 * group + 8 * j + 2 * (lane % 4));
        kept[j] = left > 1 ? ~0u : left > 0 ? 0xffffu : 0u;
      }
    }
    const u32 source = load_at + group * (32 * kPanelBytes);
    const u32 target = (store_at ^ group % 4 * 32) + group / 4 * (kColumns * kPanelBytes);
    constexpr int kUnrolled = kCuts ? 1 : kColumns / 16 / kAtOnce;
#pragma unroll kUnrolled
    for (int chunk = 0; chunk < kColumns / 16; chunk += kAtOnce) {
      u32 x[kAtOnce][4];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int panel = (chunk + i) / kPanelChunks, at = (chunk + i) % kPanelChunks;
        ldmatrix_transposed(x[i], (source ^ at << 4) + panel * (kKeys * kPanelBytes));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if constexpr (kCuts) {
#pragma unroll
          for (int j = 0; j < 4; ++j) x[i][j] &= kept[j];
        }
        const u32 y[4] = {
            __byte_perm(x[i][0], x[i][1], first), __byte_perm(x[i][0], x[i][1], second),
            __byte_perm(x[i][2], x[i][3], first), __byte_perm(x[i][2], x[i][3], second)};
        stmatrix(target + (chunk + i) * (16 * kPanelBytes), y);
      }
    }
  }
}

}  // namespace attune::kernel
