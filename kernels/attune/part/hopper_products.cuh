// What a warpgroup of the Hopper forward kernel multiplies: S = Q K^T, P as the left operand of a product, O += P V.
#pragma once

#include <attune/arch/wgmma.cuh>
#include <attune/part/element.cuh>
#include <attune/part/hopper_tiles.cuh>
#include <attune/part/warpgroup_shape.cuh>

namespace attune::kernel {

template <HopperSpec kSpec>
struct HopperProducts {
  using E = Elements<kSpec.element>;
  static constexpr bool kEighths = is_eighths(kSpec);
  static constexpr int kKeys = kSpec.keys;
  static constexpr int kDepth = 32 / bytes_of(kSpec.element);  // of one product
  using W = WarpgroupShape<kSpec.element, kSpec.queries, kKeys, kSpec.value_dim>;
  // O, and behind it rows' sums in columns that are all alike, if they are not added up otherwise.
  using Values = float[1][product_columns(kSpec) / 8][4];

  // S = Q K^T of this warpgroup; complete after a wait.
  static __device__ __forceinline__ void multiply_keys(typename W::Scores& s, u32 q, u32 k) {
    const WgmmaTile a(q, 16, 1024), b(k, 16, 1024);
#pragma unroll
    for (int step = 0; step < kSpec.head_dim / kDepth; ++step) {
      const int panel = step / 4, at = step % 4 * 32;
      Wgmma<kKeys>::template multiply<kSpec.element>(
          flat(s), a.at(panel * (kGroupRows * kPanelBytes) + at),
          b.at(panel * (kKeys * kPanelBytes) + at), step > 0);
    }
  }

  using Weights = u32[kKeys / kDepth][4];
  // Sums of products of eighths keep 13 bits below the largest of their terms, whatever has been added up before
  // among them. So each block's are sums of their own, of so many columns at a time, and float32 adds them to O.
  static constexpr int kPartColumns = 64;
  static constexpr int kParts = kSpec.value_dim / kPartColumns;
  using PartOfValues = float[1][kPartColumns / 8][4];
  static __device__ __forceinline__ void multiply_part(PartOfValues& sums, const Weights& p, u32 v,
                                                       int part) {
    const WgmmaTile b(v, 16, 1024);
#pragma unroll
    for (int step = 0; step < kKeys / kDepth; ++step) {
      const int at =
          (step / 4 * kSpec.value_dim + part * kPartColumns) * kPanelBytes + step % 4 * 32;
      Wgmma<kPartColumns>::template add<kSpec.element>(flat(sums), p[step], b.at(at), step > 0);
    }
  }
  static __device__ __forceinline__ void add_part(Values& o, const PartOfValues& sums, int part) {
#pragma unroll
    for (int n = 0; n < kPartColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[0][part * (kPartColumns / 8) + n][i] += sums[0][n][i];
    }
  }

  // O = P V of this warpgroup, or O += where `adds`; likewise.
  static __device__ __forceinline__ void multiply_values(Values& o, const Weights& p, u32 v,
                                                         bool adds) {
    const WgmmaTile b(v, kKeys * kPanelBytes, 1024);
#pragma unroll
    for (int step = 0; step < kKeys / kDepth; ++step) {
      Wgmma<product_columns(kSpec)>::template add<kSpec.element>(
          flat(o), p[step], b.at(step * (kDepth * kPanelBytes)), adds || step > 0);
    }
  }

  // P as the left operand of P V.
  static __device__ __forceinline__ void pack(const typename W::Scores& p, Weights& weights) {
#pragma unroll
    for (int step = 0; step < kKeys / kDepth; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = i % 2 * 2;
        if constexpr (kEighths) {  // keys in the order of part/transpose_values.cuh
          const float(&a)[4] = p[0][4 * step + i / 2 * 2];
          const float(&b)[4] = p[0][4 * step + i / 2 * 2 + 1];
          weights[step][i] = E::pack(a[row], a[row + 1], b[row], b[row + 1]);
        } else {
          const float(&tile)[4] = p[0][2 * step + i / 2];
          weights[step][i] = E::pack(tile[row], tile[row + 1]);
        }
      }
    }
  }
};

}  // namespace attune::kernel
