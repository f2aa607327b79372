// Query heads of a group whose queries are rows of one tile: row r is query r / heads of the tile, of head
// r % heads. Heads are a power of two.
#pragma once

#include <attune/part/sequence.cuh>

namespace attune::kernel {

// kPacked: there may be several heads, as the host says; else there is one.
template <bool kPacked>
struct TileRows {
  int shift;

  __device__ __forceinline__ explicit TileRows(const ForwardParams& p)
      : shift(kPacked ? p.pack_shift : 0) {}

  // Of a tile of so many rows.
  [[nodiscard]] __device__ __forceinline__ int queries(int rows) const {
    return kPacked ? rows >> shift : rows;
  }
  [[nodiscard]] __device__ __forceinline__ int rows(int queries) const {
    return kPacked ? queries << shift : queries;
  }
  [[nodiscard]] __device__ __forceinline__ int head(int row) const {
    return kPacked ? row & ((1 << shift) - 1) : 0;
  }
};

// The two sides of the mask by rows in place of queries.
struct PackedSides {
  const MaskSides& sides;
  TileRows<true> map;

  [[nodiscard]] __device__ __forceinline__ int begin(int row) const {
    return sides.begin(map.queries(row));
  }
  [[nodiscard]] __device__ __forceinline__ int end(int row) const {
    return sides.end(map.queries(row));
  }
};

template <bool kPacked>
__device__ __forceinline__ auto sides_of_rows(const ForwardParams& p, const MaskSides& sides) {
  if constexpr (kPacked) {
    return PackedSides{sides, TileRows<true>(p)};
  } else {
    return sides;
  }
}

}  // namespace attune::kernel
