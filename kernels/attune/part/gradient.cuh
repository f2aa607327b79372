// The products of the backward pass on tiles of 16-bit elements in shared memory: sums over queries
// (dK, dV) and over keys (dQ).
//
// P and dS lie as [queries][keys], keys in the order of the fragments (shared_tile.h): so no product
// has to move an element, and only the rows of dK and dV are named by key_row() at the end.
#pragma once

#include <attune/part/products.cuh>

namespace attune::kernel {

// How the warps of a block share the three kinds of results. kPairs x 16 keys of S a warp, and so on.
template <Element kElementArg, int kQueriesArg, int kKeysArg, int kWarps, int kWidthArg>
struct GradientShape {
  static constexpr Element kElement = kElementArg;
  static constexpr bool kBf16 = kElement == Element::bf16;
  static constexpr int kQueries = kQueriesArg, kKeys = kKeysArg, kWidth = kWidthArg;
  static constexpr int kRowBytes = kWidth * bytes_of(kElement);
  // dK and dV: 32 keys a warp, or 16 where there are fewer; columns shared by the rest.
  static constexpr int kKeyRows = kKeys / kWarps >= 16 || kKeys / 32 * 2 > kWarps * 2 ? 32 : 32;
  static constexpr int kKeyWarps = kKeys / kKeyRows, kKeyColumns = kWidth / (kWarps / kKeyWarps);
  // dQ likewise.
  static constexpr int kQueryRows = 32;
  static constexpr int kQueryWarps = kQueries / kQueryRows;
  static constexpr int kQueryColumns = kWidth / (kWarps / kQueryWarps);
  static_assert(kWarps % kKeyWarps == 0 && kWarps % kQueryWarps == 0);
  static_assert(kKeyColumns % 16 == 0 && kQueryColumns % 16 == 0);
  using KeyGradients = float[kKeyRows / 16][kKeyColumns / 8][4];
  using QueryGradients = float[kQueryRows / 16][kQueryColumns / 8][4];
  using WeightTile = SharedTile<kQueries, kKeys * 2, false>;  // P or dS

  static __device__ __forceinline__ int key_row0() {
    return static_cast<int>(threadIdx.x) / 32 % kKeyWarps * kKeyRows;
  }
  static __device__ __forceinline__ int key_column0() {
    return static_cast<int>(threadIdx.x) / 32 / kKeyWarps * kKeyColumns;
  }
  static __device__ __forceinline__ int query_row0() {
    return static_cast<int>(threadIdx.x) / 32 % kQueryWarps * kQueryRows;
  }
  static __device__ __forceinline__ int query_column0() {
    return static_cast<int>(threadIdx.x) / 32 / kQueryWarps * kQueryColumns;
  }
};

// This warp's P or dS to the tile.
template <typename G, typename W>
__device__ __forceinline__ void store_weights(u32 tile, const typename W::Scores& x) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; ++n) {
      const int row = W::first_row() + 16 * m + g;
      const int chunk = W::half() * W::kKeyTiles + n;
      store_shared(tile + G::WeightTile::chunk(row, chunk) + 4 * t,
                   Elements<W::kElement>::pack(x[m][n][0], x[m][n][1]));
      store_shared(tile + G::WeightTile::chunk(row + 8, chunk) + 4 * t,
                   Elements<W::kElement>::pack(x[m][n][2], x[m][n][3]));
    }
  }
}

// x += A^T B: A = [queries][keys], B = [queries][columns].
template <typename G, typename RowTile>
__device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 weights,
                                                 u32 rows) {
  const int lane = threadIdx.x % 32;
  const MatrixReader<typename G::WeightTile> a_reader(weights, lane % 8 + lane / 16 * 8,
                                                      lane / 8 % 2);
  const MatrixReader<RowTile> b_reader(rows, lane % 16, lane / 16);
  const int pair0 = G::key_row0() / 16, column0 = G::key_column0() / 16;
#pragma unroll
  for (int q = 0; q < G::kQueries; q += 16) {
    u32 a[G::kKeyRows / 16][4];
#pragma unroll
    for (int m = 0; m < G::kKeyRows / 16; ++m) {
      ldmatrix_transposed(a[m], a_reader.template at<G::kQueries>(q, pair0 + m));
    }
#pragma unroll
    for (int n = 0; n < G::kKeyColumns / 8; n += 2) {
      u32 b[4];
      ldmatrix_transposed(b, b_reader.template at<G::kQueries>(q, column0 + n / 2));
#pragma unroll
      for (int m = 0; m < G::kKeyRows / 16; ++m) {
        mma16<G::kBf16>(x[m][n], a[m], b[0], b[1]);
        mma16<G::kBf16>(x[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// x += A B: A = [queries][keys], B = [keys][columns], both with keys in the fragments' order.
template <typename G, typename KeyTile>
__device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                              u32 keys) {
  const int lane = threadIdx.x % 32;
  const MatrixReader<typename G::WeightTile> a_reader(
      weights + G::query_row0() * G::WeightTile::kPanel, lane % 16, lane / 16);
  const MatrixReader<KeyTile> b_reader(keys, key_row(lane % 8, lane / 8 % 2), lane / 16);
  const int column0 = G::query_column0() / 16;
#pragma unroll
  for (int k = 0; k < G::kKeys; k += 16) {
    u32 a[G::kQueryRows / 16][4];
#pragma unroll
    for (int m = 0; m < G::kQueryRows / 16; ++m) {
      ldmatrix(a[m], a_reader.template at<G::kQueries>(16 * m, k / 16));
    }
#pragma unroll
    for (int n = 0; n < G::kQueryColumns / 8; n += 2) {
      u32 b[4];
      ldmatrix_transposed(b, b_reader.template at<G::kKeys>(k, column0 + n / 2));
#pragma unroll
      for (int m = 0; m < G::kQueryRows / 16; ++m) {
        mma16<G::kBf16>(x[m][n], a[m], b[0], b[1]);
        mma16<G::kBf16>(x[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

}  // namespace attune::kernel
