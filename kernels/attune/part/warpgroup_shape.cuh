// Sizes of one warp's share of a warpgroup's S and O: 16 of 64 rows, all keys and columns. The first
// warpgroup of the block has none.
#pragma once

#include <attune/part/products.cuh>

namespace attune::kernel {

template <Element kElementArg, int kQueriesArg, int kKeysArg, int kWidthArg>
struct WarpgroupShape : TwoNeighbours {
  static constexpr Element kElement = kElementArg;
  static constexpr bool kPaired = false;
  static constexpr int kQueries = kQueriesArg, kKeys = kKeysArg;
  static constexpr int kWarpRows = 16, kWarpKeys = kKeys, kWarpWidth = kWidthArg;
  static constexpr int kRowTiles = 1, kKeyTiles = kKeys / 8, kWidthTiles = kWidthArg / 8;
  using Scores = float[1][kKeyTiles][4];
  using Values = float[1][kWidthTiles][4];
  static_assert(kQueries % 64 == 0 && kKeys % 16 == 0 && kWidthArg % 16 == 0);

  static __device__ __forceinline__ int first_row() {
    return (static_cast<int>(threadIdx.x / 32) - 4) * kWarpRows;
  }
  static constexpr int half() { return 0; }
};

}  // namespace attune::kernel
