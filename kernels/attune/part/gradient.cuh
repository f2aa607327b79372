// The products of the backward pass on tiles in shared memory: sums over queries (dK, dV) and over
// keys (dQ), three ways as in products.cuh.
//
// P and dS lie as [queries][keys] in the order of the keys: the four that a thread has of a row
// (shared_tile.cuh) are neighbours, and stored together.
#pragma once

#include <attune/arch/barrier.cuh>
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
  static constexpr int kElementBytes = bytes_of(kElement);
  static constexpr int kRowBytes = kWidth * kElementBytes;
  using QueryTile = SharedTile<kQueries, kRowBytes, RowOrder::natural>;  // Q or dO
  using KeyTile = SharedTile<kKeys, kRowBytes, RowOrder::keys>;          // K
  using WeightTile =
      SharedTile<kQueries, kKeys * kElementBytes,
                 kElement == Element::f32 ? RowOrder::natural : RowOrder::weights>;  // P or dS

  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
  static __device__ __forceinline__ int key_row0() { return warp() % kKeyWarps * kKeyRows; }
  static __device__ __forceinline__ int key_column0() { return warp() / kKeyWarps * kKeyColumns; }
  static __device__ __forceinline__ int query_row0() { return warp() % kQueryWarps * kQueryRows; }
  static __device__ __forceinline__ int query_column0() {
    return warp() / kQueryWarps * kQueryColumns;
  }

  // This thread's row of 16-row tile m, upper or lower half, as a key of the tile.
  static __device__ __forceinline__ int key(int m, int half) {
    return key_row0() + 16 * m + 8 * half + static_cast<int>(threadIdx.x % 32 / 4);
  }
  static __device__ __forceinline__ int query(int m, int half) {
    return query_row0() + 16 * m + 8 * half + static_cast<int>(threadIdx.x % 32 / 4);
  }
};

// value() of this warp's P or dS to the tile: at once the keys of a row that a thread has in two tiles of
// columns.
template <typename G, typename W, typename Value>
__device__ __forceinline__ void store_weights(u32 tile, const typename W::Scores& x,
                                              const Value& value) {
  using E = Elements<W::kElement>;
  using Tile = typename G::WeightTile;
  constexpr int kGroup = G::kElementBytes;  // chunks of 16 keys
  static_assert((W::kKeyTiles & (W::kKeyTiles - 1)) == 0);
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int chunk0 = W::half() * W::kKeyTiles / 2 * kGroup;
  const u32 base = tile + chunk0 / Tile::kChunks * (G::kQueries * Tile::kPanel) +
                   (W::first_row() + g) * Tile::kPanel;
  const u32 inner = (chunk0 % Tile::kChunks + t * kGroup / 4) ^ Tile::swizzle(g);
#pragma unroll
  for (int n = 0; n < W::kKeyTiles; n += 2) {
    const int group = n / 2 * kGroup, panel = group / Tile::kChunks;
    const u32 to =
        base + panel * (G::kQueries * Tile::kPanel) + ((inner ^ group % Tile::kChunks) << 4);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float a = value(x[m][n][2 * half]), b = value(x[m][n][2 * half + 1]);
        const float c = value(x[m][n + 1][2 * half]), d = value(x[m][n + 1][2 * half + 1]);
        const u32 row = to + (16 * m + 8 * half) * Tile::kPanel;
        if constexpr (W::kElement == Element::f32) {
          const u32 words[4] = {__float_as_uint(a), __float_as_uint(b), __float_as_uint(c),
                                __float_as_uint(d)};
          store_shared(row, words);
        } else {
          store_shared(row + t % 2 * 8, E::pack(a, b), E::pack(c, d));
        }
      }
    }
  }
}

// add_over_queries: x += A^T B with A = [queries][keys], `a_offset` bytes after `base`, and
// B = [queries][columns]. The offset, known at compile time, is added last: P and dS share the
// registers that hold their addresses.
// add_over_keys: x += A B with A = [queries][keys], B = [keys][columns].
template <typename G>
struct TensorGradients {
  // Columns from a pair of chunks on, of a warp that has kColumns.
  template <int kRows, int kColumns, typename Tile>
  struct Columns {
    static constexpr bool kFolds = (kColumns & (kColumns - 1)) == 0;
    MatrixReader<Tile> reader;
    int pair0;
    __device__ __forceinline__ Columns(const MatrixReader<Tile>& all, int column0)
        : reader(all), pair0(column0 / 16) {
      if constexpr (kFolds) reader = all.template from<kRows, kColumns / 16>(pair0);
    }
    [[nodiscard]] __device__ __forceinline__ u32 at(int row, int pair) const {
      return reader.template at<kRows>(row, kFolds ? pair : pair0 + pair);
    }
  };

  // x += a * the 16 rows from `row` on.
  template <int kRows, int kColumns, typename Reader>
  static __device__ __forceinline__ void multiply(float (&x)[kRows][kColumns][4],
                                                  const u32 (&a)[kRows][4], const Reader& reader,
                                                  int row) {
#pragma unroll
    for (int n = 0; n < kColumns; n += 2) {
      u32 b[4];
      ldmatrix_transposed(b, reader.at(row, n / 2));
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        mma16<G::kBf16>(x[m][n], a[m], b[0], b[1]);
        mma16<G::kBf16>(x[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }

  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 base,
                                                          int a_offset, u32 rows) {
    const int lane = threadIdx.x % 32;
    using Weights = typename G::WeightTile;
    using Rows = typename G::QueryTile;
    const Columns<G::kQueries, G::kKeyRows, Weights> a_reader(
        {base, lane % 8 + lane / 16 * 8, lane / 8 % 2}, G::key_row0());
    const Columns<G::kQueries, G::kKeyColumns, Rows> b_reader({rows, lane % 16, lane / 16},
                                                              G::key_column0());
#pragma unroll
    for (int q = 0; q < G::kQueries; q += 16) {
      u32 a[G::kKeyRows / 16][4];
#pragma unroll
      for (int m = 0; m < G::kKeyRows / 16; ++m)
        ldmatrix_transposed(a[m], a_reader.at(q, m) + a_offset);
      multiply(x, a, b_reader, q);
    }
  }

  static __device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                                       u32 keys) {
    // Addresses of K found anew each time leave registers to dK and dV.
    const int lane = threadIdx.x % 32, again = opaque(lane);
    using Weights = typename G::WeightTile;
    using Rows = typename G::KeyTile;
    const MatrixReader<Weights> a_reader(weights + G::query_row0() * Weights::kPanel, lane % 16,
                                         lane / 16);
    const Columns<G::kKeys, G::kQueryColumns, Rows> b_reader({keys, again % 16, again / 16},
                                                             G::query_column0());
#pragma unroll
    for (int k = 0; k < G::kKeys; k += 16) {
      u32 a[G::kQueryRows / 16][4];
#pragma unroll
      for (int m = 0; m < G::kQueryRows / 16; ++m) {
        ldmatrix(a[m], a_reader.template at<G::kQueries>(16 * m, k / 16));
      }
      multiply(x, a, b_reader, k);
    }
  }
};

// f32. Where a step in depth lies is free as long as both operands agree: k = t is row 2t of its eight,
// k = t + 4 row 2t + 1, so that no bank is met twice.
template <typename G>
struct SplitGradients {
  // Sums of four steps where registers are left for them.
  static constexpr int kDepth = 2;

  // Floats of a tile at a row of this thread's, one of eight, and of rows 8 apart, from a column on that
  // is a multiple of kSpan, a power of two. What may be known at compile time, is.
  template <typename Tile, int kRows, int kSpan>
  struct Reader {
    static_assert((kSpan & (kSpan - 1)) == 0);
    u32 base, first;
    __device__ __forceinline__ Reader(u32 tile, int row, int column) {
      const int chunk = column / 4;
      base = tile + chunk / Tile::kChunks * (kRows * Tile::kPanel) + row * Tile::kPanel +
             column % 4 * 4;
      first = (chunk % Tile::kChunks ^ Tile::swizzle(row)) << 4;
    }
    // `column` is a multiple of 8.
    [[nodiscard]] __device__ __forceinline__ u32 load(int row, int column) const {
      const int chunk = column / 4;
      return load_shared(base + chunk / Tile::kChunks * (kRows * Tile::kPanel) +
                         row * Tile::kPanel +
                         (first ^ (chunk % Tile::kChunks ^ Tile::swizzle(row)) << 4));
    }
  };

  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 base,
                                                          int a_offset, u32 rows) {
    const u32 weights = base + a_offset;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    using Weights = Reader<typename G::WeightTile, G::kQueries, G::kKeyRows>;
    using Rows = Reader<typename G::QueryTile, G::kQueries, G::kKeyColumns>;
    const int position = G::key_row0() + g, column = G::key_column0() + g;
    const Weights even(weights, 2 * t, position), odd(weights, 2 * t + 1, position);
    const Rows b_even(rows, 2 * t, column), b_odd(rows, 2 * t + 1, column);
#pragma unroll 1
    for (int q = 0; q < G::kQueries; q += 8 * kDepth) {
#pragma unroll
      for (int m = 0; m < G::kKeyRows / 16; ++m) {
        u32 raw[kDepth][4];
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
          raw[k][0] = even.load(q + 8 * k, 16 * m), raw[k][1] = even.load(q + 8 * k, 16 * m + 8);
          raw[k][2] = odd.load(q + 8 * k, 16 * m), raw[k][3] = odd.load(q + 8 * k, 16 * m + 8);
        }
        const SplitRows<kDepth> a(raw);
#pragma unroll
        for (int n = 0; n < G::kKeyColumns / 8; ++n) {
          u32 b[kDepth][2];
#pragma unroll
          for (int k = 0; k < kDepth; ++k) {
            b[k][0] = b_even.load(q + 8 * k, 8 * n), b[k][1] = b_odd.load(q + 8 * k, 8 * n);
          }
          multiply_split(x[m][n], a, b);
        }
      }
    }
  }

  static __device__ __forceinline__ void add_over_keys(typename G::QueryGradients& x, u32 weights,
                                                       u32 keys) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    using Weights = Reader<typename G::WeightTile, G::kQueries, G::kKeys>;
    using Rows = Reader<typename G::KeyTile, G::kKeys, G::kQueryColumns>;
    const int row = G::query_row0() + g, column = G::query_column0() + g;
    const Weights even(weights, row, 2 * t), odd(weights, row, 2 * t + 1);
    const Rows b_even(keys, 2 * t, column), b_odd(keys, 2 * t + 1, column);
#pragma unroll 1
    for (int k0 = 0; k0 < G::kKeys; k0 += 8 * kDepth) {
#pragma unroll
      for (int m = 0; m < G::kQueryRows / 16; ++m) {
        u32 raw[kDepth][4];
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
          const int position = k0 + 8 * k;
          raw[k][0] = even.load(16 * m, position), raw[k][1] = even.load(16 * m + 8, position);
          raw[k][2] = odd.load(16 * m, position), raw[k][3] = odd.load(16 * m + 8, position);
        }
        const SplitRows<kDepth> a(raw);
#pragma unroll
        for (int n = 0; n < G::kQueryColumns / 8; ++n) {
          u32 b[kDepth][2];
#pragma unroll
          for (int k = 0; k < kDepth; ++k) {
            b[k][0] = b_even.load(k0 + 8 * k, 8 * n), b[k][1] = b_odd.load(k0 + 8 * k, 8 * n);
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

  static __device__ __forceinline__ void add_over_queries(typename G::KeyGradients& x, u32 base,
                                                          int a_offset, u32 rows) {
    const u32 weights = base + a_offset;
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
                at<typename G::KeyTile>(keys, position, G::query_column0() + 8 * n + 2 * t + e);
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
