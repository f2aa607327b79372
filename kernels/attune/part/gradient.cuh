// The products of the backward pass on tiles in shared memory: sums over queries (dK, dV) and over
// keys (dQ), three ways as in products.cuh.
//
// P and dS lie as [queries][keys], keys in the order of the fragments (shared_tile.cuh): no product has
// to move an element, and only who writes dK and dV must know which key a row is (key_row()).
#pragma once

#include <attune/part/products.cuh>

namespace attune::kernel {

// How the warps of a block share dK and dV, by keys and columns, and dQ, by queries and columns: 32
// rows a warp where enough columns are left, so that shared memory keeps up with the tensor cores.
template <Element kElementArg, int kQueriesArg, int kKeysArg, int kWarps, int kWidthArg>
struct GradientShape {
  static constexpr Element kElement = kElementArg;
  static constexpr bool kBf16 = kElement == Element::bf16;
  static constexpr int kQueries = kQueriesArg, kKeys = kKeysArg, kWidth = kWidthArg;
  static constexpr int rows_of(int count) {
    const bool all = kWarps % (count / 32 > 0 ? count / 32 : 1) == 0;
    return count % 32 == 0 && all && kWidth * (count / 32) / kWarps % 16 == 0 ? 32 : 16;
  }
  static constexpr int kKeyRows = rows_of(kKeys), kKeyWarps = kKeys / kKeyRows;
  static constexpr int kKeyColumns = kWidth * kKeyWarps / kWarps;
  static constexpr int kQueryRows = rows_of(kQueries), kQueryWarps = kQueries / kQueryRows;
  static constexpr int kQueryColumns = kWidth * kQueryWarps / kWarps;
  static_assert(kWarps % kKeyWarps == 0 && kWarps % kQueryWarps == 0);
  static_assert(kKeyColumns % 16 == 0 && kQueryColumns % 16 == 0);
  using KeyGradients = float[kKeyRows / 16][kKeyColumns / 8][4];
  using QueryGradients = float[kQueryRows / 16][kQueryColumns / 8][4];
  static constexpr int kRowBytes = kWidth * bytes_of(kElement);
  using QueryTile = SharedTile<kQueries, kRowBytes, false>;                    // Q or dO
  using KeyTile = SharedTile<kKeys, kRowBytes, true>;                          // K
  using WeightTile = SharedTile<kQueries, kKeys * bytes_of(kElement), false>;  // P or dS

  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
  static __device__ __forceinline__ int key_row0() { return warp() % kKeyWarps * kKeyRows; }
  static __device__ __forceinline__ int key_column0() { return warp() / kKeyWarps * kKeyColumns; }
  static __device__ __forceinline__ int query_row0() { return warp() % kQueryWarps * kQueryRows; }
  static __device__ __forceinline__ int query_column0() {
    return warp() / kQueryWarps * kQueryColumns;
  }

  // This thread's row of 16-row tile m, upper or lower half, as a key of the tile.
  static __device__ __forceinline__ int key(int m, int half) {
    return key_row0() + 16 * m + key_row(static_cast<int>(threadIdx.x % 32 / 4), half);
  }
  static __device__ __forceinline__ int query(int m, int half) {
    return query_row0() + 16 * m + 8 * half + static_cast<int>(threadIdx.x % 32 / 4);
  }
};

// This warp's P or dS to the tile.
template <typename G, typename W>
__device__ __forceinline__ void store_weights(u32 tile, const typename W::Scores& x) {
  using E = Elements<W::kElement>;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = W::first_row() + 16 * m + 8 * half + g;
        const int at = W::half() * W::kKeyTiles + n;
        const float a = x[m][n][2 * half], b = x[m][n][2 * half + 1];
        if constexpr (W::kElement == Element::f32) {
          store_shared(tile + G::WeightTile::chunk(row, 2 * at + t / 2) + t % 2 * 8,
                       __float_as_uint(a), __float_as_uint(b));
        } else {
          store_shared(tile + G::WeightTile::chunk(row, at) + 4 * t, E::pack(a, b));
        }
      }
    }
  }
}

// add_over_queries: x += A^T B with A = [queries][keys], B = [queries][columns].
// add_over_keys: x += A B with A = [queries][keys], B = [keys][columns], both in the fragments' order.
template <typename G>
struct TensorGradients {
  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 weights,
                                                          u32 rows) {
    const int lane = threadIdx.x % 32;
    const MatrixReader<typename G::WeightTile> a_reader(weights, lane % 8 + lane / 16 * 8,
                                                        lane / 8 % 2);
    const MatrixReader<typename G::QueryTile> b_reader(rows, lane % 16, lane / 16);
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

  static __device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                                       u32 keys) {
    const int lane = threadIdx.x % 32;
    const MatrixReader<typename G::WeightTile> a_reader(
        weights + G::query_row0() * G::WeightTile::kPanel, lane % 16, lane / 16);
    const MatrixReader<typename G::KeyTile> b_reader(keys, key_row(lane % 8, lane / 8 % 2),
                                                     lane / 16);
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
};

// f32. Where a step in depth lies is free as long as both operands agree: k = t is row 2t of its eight,
// k = t + 4 row 2t + 1, so that no bank is met twice.
template <typename G>
struct SplitGradients {
  static constexpr int kDepth = G::kQueries % 32 == 0 && G::kKeys % 32 == 0 ? 4 : 2;

  // The address of one float of a tile whose rows are `row0` + some multiple of eight apart.
  template <typename Tile>
  static __device__ __forceinline__ u32 at(u32 tile, int row, int column) {
    return tile + Tile::chunk(row, column / 4) + column % 4 * 4;
  }

  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 weights,
                                                          u32 rows) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int position0 = G::key_row0() + g, column0 = G::key_column0() + g;
#pragma unroll 1
    for (int q = 0; q < G::kQueries; q += 8 * kDepth) {
#pragma unroll
      for (int m = 0; m < G::kKeyRows / 16; ++m) {
        u32 raw[kDepth][4];
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
          const int row = q + 8 * k + 2 * t, position = position0 + 16 * m;
          raw[k][0] = load_shared(at<typename G::WeightTile>(weights, row, position));
          raw[k][1] = load_shared(at<typename G::WeightTile>(weights, row, position + 8));
          raw[k][2] = load_shared(at<typename G::WeightTile>(weights, row + 1, position));
          raw[k][3] = load_shared(at<typename G::WeightTile>(weights, row + 1, position + 8));
        }
        const SplitRows<kDepth> a(raw);
#pragma unroll
        for (int n = 0; n < G::kKeyColumns / 8; ++n) {
          u32 b[kDepth][2];
#pragma unroll
          for (int k = 0; k < kDepth; ++k) {
            const int row = q + 8 * k + 2 * t;
            b[k][0] = load_shared(at<typename G::QueryTile>(rows, row, column0 + 8 * n));
            b[k][1] = load_shared(at<typename G::QueryTile>(rows, row + 1, column0 + 8 * n));
          }
          multiply_split(x[m][n], a, b);
        }
      }
    }
  }

  static __device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                                       u32 keys) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int row0 = G::query_row0() + g, column0 = G::query_column0() + g;
#pragma unroll 1
    for (int k0 = 0; k0 < G::kKeys; k0 += 8 * kDepth) {
#pragma unroll
      for (int m = 0; m < G::kQueryRows / 16; ++m) {
        u32 raw[kDepth][4];
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
          const int position = k0 + 8 * k + 2 * t, row = row0 + 16 * m;
          raw[k][0] = load_shared(at<typename G::WeightTile>(weights, row, position));
          raw[k][1] = load_shared(at<typename G::WeightTile>(weights, row + 8, position));
          raw[k][2] = load_shared(at<typename G::WeightTile>(weights, row, position + 1));
          raw[k][3] = load_shared(at<typename G::WeightTile>(weights, row + 8, position + 1));
        }
        const SplitRows<kDepth> a(raw);
#pragma unroll
        for (int n = 0; n < G::kQueryColumns / 8; ++n) {
          u32 b[kDepth][2];
#pragma unroll
          for (int k = 0; k < kDepth; ++k) {
            const int key = k0 + k / 2 * 16 + 4 * t + k % 2 * 2;  // of position k0 + 8k + 2t
            b[k][0] = load_shared(at<typename G::KeyTile>(keys, key, column0 + 8 * n));
            b[k][1] = load_shared(at<typename G::KeyTile>(keys, key + 1, column0 + 8 * n));
          }
          multiply_split(x[m][n], a, b);
        }
      }
    }
  }
};

template <typename G>
struct SimtGradients {
  using E = Elements<G::kElement>;
  static constexpr int kPerChunk = 16 / bytes_of(G::kElement);

  template <typename Tile>
  static __device__ __forceinline__ float at(u32 tile, int row, int column) {
    const u32 chunk = tile + Tile::chunk(row, column / kPerChunk);
    if constexpr (kPerChunk == 4) {
      return __uint_as_float(load_shared(chunk + column % 4 * 4));
    } else {
      const u32 bits = load_shared(chunk + column % 8 / 2 * 4);
      return E::to_float(static_cast<typename E::Bits>(bits >> column % 2 * 16));
    }
  }

  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 weights,
                                                          u32 rows) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
    for (int q = 0; q < G::kQueries; ++q) {
#pragma unroll
      for (int m = 0; m < G::kKeyRows / 16; ++m) {
        const int position = G::key_row0() + 16 * m + g;
        const float a = at<typename G::WeightTile>(weights, q, position);
        const float b = at<typename G::WeightTile>(weights, q, position + 8);
#pragma unroll
        for (int n = 0; n < G::kKeyColumns / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = G::key_column0() + 8 * n + 2 * t + e;
            const float y = at<typename G::QueryTile>(rows, q, column);
            x[m][n][e] += a * y;
            x[m][n][2 + e] += b * y;
          }
        }
      }
    }
  }

  static __device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                                       u32 keys) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
    for (int position = 0; position < G::kKeys; ++position) {
      const int key = position / 16 * 16 + key_row(position % 8, position / 8 % 2);
#pragma unroll
      for (int m = 0; m < G::kQueryRows / 16; ++m) {
        const int row = G::query_row0() + 16 * m + g;
        const float a = at<typename G::WeightTile>(weights, row, position);
        const float b = at<typename G::WeightTile>(weights, row + 8, position);
#pragma unroll
        for (int n = 0; n < G::kQueryColumns / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float y =
                at<typename G::KeyTile>(keys, key, G::query_column0() + 8 * n + 2 * t + e);
            x[m][n][e] += a * y;
            x[m][n][2 + e] += b * y;
          }
        }
      }
    }
  }
};

template <bool kTensor, bool kSplit, typename G>
struct GradientsOf {
  using Type = SimtGradients<G>;
};
template <typename G>
struct GradientsOf<true, false, G> {
  using Type = TensorGradients<G>;
};
template <typename G>
struct GradientsOf<false, true, G> {
  using Type = SplitGradients<G>;
};

// The way that Products goes.
template <int kArch, typename G>
using Gradients = typename GradientsOf<uses_tensor_cores(G::kElement, kArch),
                                       uses_split(G::kElement, kArch), G>::Type;

// Of a thread's fragments: whether its part of rows 16m + 8 half holds a value that is not finite.
template <int kRows, int kColumns>
__device__ __forceinline__ bool doubtful(const float (&x)[kRows][kColumns][4], int m, int half) {
  float sum = 0.0f;  // NaN as soon as one of them is not finite
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    sum = fmaf(x[m][n][2 * half], 0.0f, sum);
    sum = fmaf(x[m][n][2 * half + 1], 0.0f, sum);
  }
  return sum != sum;
}

}  // namespace attune::kernel
