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

#include <attune/arch/barrier.cuh>
#include <attune/arch/shared.cuh>

namespace attune::kernel {

// By kWarps warps, of which this is number `warp`; each takes every so many-th group. kCuts: zeros for the keys from
// `rows` on.
template <int kKeys, int kColumns, int kWarps, bool kCuts>
__device__ __forceinline__ void transpose_values(u32 from, u32 to, u32 warp, int rows) {
  constexpr u32 kPanelBytes = 128, kPanelChunks = 8;
  // Chunks of 16 columns: so many are loaded while as many before them are stored.
  constexpr u32 kChunks = kColumns / 16 < kPanelChunks ? kColumns / 16 : kPanelChunks;
  constexpr u32 kPanels = kColumns / (16 * kChunks), kAtOnce = kCuts ? 1 : 2,
                kSteps = kChunks / kAtOnce;
  static_assert(kKeys % 32 == 0 && kColumns % (16 * kChunks) == 0 && kChunks % kAtOnce == 0);
  // Registers are few: what follows from the lane is found out anew for each tile.
  const u32 lane = static_cast<u32>(opaque(static_cast<int>(threadIdx.x % 32)));
  const u32 row = lane % 8, matrix = lane / 8;
  // A lane's row of the matrices loaded is the key of its number.
  u32 source = from + (32 * warp + lane) * kPanelBytes + (row << 4);
  // Even columns go to the first matrix from its upper four rows alone, odd ones from the others: columns eight
  // apart share banks. The second has the rest; the other two have the second half of the group.
  const u32 column = 2 * row + (matrix % 2 ^ row / 4);
  const u32 store_at = to + column * kPanelBytes + ((matrix / 2 ^ column % 8) << 4);
  constexpr u32 kEven = 0x6420, kOdd = 0x7531;
  const u32 first = lane < 16 ? kEven : kOdd, second = first ^ kEven ^ kOdd;
#pragma unroll 1
  for (u32 group = warp; group < kKeys / 32; group += kWarps) {
    u32 kept[4];
    if constexpr (kCuts) {
#pragma unroll
      for (u32 j = 0; j < 4; ++j) {
        const int left = rows - static_cast<int>(32 * group + 8 * j + 2 * (lane % 4));
        kept[j] = left > 1 ? ~0u : left > 0 ? 0xffffu : 0u;
      }
    }
    u32 target = (store_at ^ group % 4 * 32) + group / 4 * (kColumns * kPanelBytes);
#pragma unroll 1
    for (u32 panel = 0; panel < kPanels; ++panel) {
      u32 x[2][kAtOnce][4];
      const auto load = [&](u32 step) {
#pragma unroll
        for (u32 i = 0; i < kAtOnce; ++i) {
          ldmatrix_transposed(x[step % 2][i], source ^ (step * kAtOnce + i) << 4);
        }
      };
      load(0);
#pragma unroll
      for (u32 step = 0; step < kSteps; ++step) {
        if (step + 1 < kSteps) load(step + 1);
#pragma unroll
        for (u32 i = 0; i < kAtOnce; ++i) {
          u32(&four)[4] = x[step % 2][i];
          if constexpr (kCuts) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) four[j] &= kept[j];
          }
          const u32 y[4] = {
              __byte_perm(four[0], four[1], first), __byte_perm(four[0], four[1], second),
              __byte_perm(four[2], four[3], first), __byte_perm(four[2], four[3], second)};
          stmatrix(target + (step * kAtOnce + i) * (16 * kPanelBytes), y);
        }
      }
      source += kKeys * kPanelBytes;
      target += kPanelChunks * (16 * kPanelBytes);
    }
    source += kWarps * 32 * kPanelBytes - kPanels * (kKeys * kPanelBytes);
  }
}

}  // namespace attune::kernel
