// S = Q K^T and O += P V of one warp on tiles in shared memory, three ways with one interface and
// one layout of the results: mma's C fragments, [16-row tile][8-column tile][4].
//   TensorProducts  f16 and bf16 on tensor cores
//   SplitProducts   f32 as two tf32 each, three products, sums outside the tensor cores
//   SimtProducts    plain multiply-adds, for what has no tensor cores
#pragma once

#include <attune/arch/mma.cuh>
#include <attune/part/shared_tile.cuh>

namespace attune::kernel {

// Which keys a thread has of the 16 of two neighbouring tiles of S: those that lie
// key_at(tile, element of the two) after first_key().
struct FourNeighbours {
  static constexpr int kTogether = 4;
  static __device__ __forceinline__ int first_key() {
    return 4 * static_cast<int>(threadIdx.x % 4);
  }
  static constexpr int key_at(int n, int e) { return n / 2 * 16 + n % 2 * 2 + e; }
};
struct TwoNeighbours {  // as the columns of a product lie
  static constexpr int kTogether = 2;
  static __device__ __forceinline__ int first_key() {
    return 2 * static_cast<int>(threadIdx.x % 4);
  }
  static constexpr int key_at(int n, int e) { return 8 * n + e; }
};

// Sizes of one warp's share of S and O. kSharers neighbours have the same rows; of a block's keys in S,
// and of O's columns where O is shared too, each has its part in order. kParts: of the rows in shared
// memory, that no panel may reach over.
template <Element kElementArg, int kQueriesArg, int kKeysArg, int kWarps, int kWidthArg,
          int kSharersArg = 1, int kParts = kSharersArg, int kSplitDepthArg = 4>
struct WarpShape : FourNeighbours {
  static constexpr Element kElement = kElementArg;
  static constexpr int kSharers = kSharersArg;
  static constexpr bool kPaired = kParts == 2;
  static constexpr int kSplitDepth =
      kSplitDepthArg;  // steps of 8 in depth whose sums share a register
  static constexpr int kQueries = kQueriesArg, kKeys = kKeysArg, kWidth = kWidthArg;
  static constexpr int kWarpRows = kQueries / kWarps * kSharers;
  static constexpr int kWarpKeys = kKeys / kSharers, kWarpWidth = kWidth / kParts;
  static constexpr int kRowTiles = kWarpRows / 16, kKeyTiles = kWarpKeys / 8;
  static constexpr int kWidthTiles = kWarpWidth / 8;
  static constexpr int kRowBytes = kWidth * bytes_of(kElement);
  static constexpr int kPairs = kRowBytes / 32;  // of 16-byte chunks: steps in depth of S
  using QTile = SharedTile<kQueries, kRowBytes, RowOrder::natural, kParts>;
  using KTile = SharedTile<kKeys, kRowBytes, RowOrder::keys, kParts>;
  using Scores = float[kRowTiles][kKeyTiles][4];
  using Values = float[kRowTiles][kWidthTiles][4];
  static_assert(kWarpRows % 16 == 0 && kWarpKeys % 16 == 0 && kWarpWidth % 32 == 0);

  // This warp's rows of the tile of queries begin here, and it has this part of what is shared.
  static __device__ __forceinline__ int first_row() {
    return static_cast<int>(threadIdx.x / (32 * kSharers)) * kWarpRows;
  }
  static __device__ __forceinline__ int half() {
    return kSharers > 1 ? static_cast<int>(threadIdx.x / 32 % kSharers) : 0;
  }
};

template <int kRows, int kColumns>
__device__ __forceinline__ void clear_fragments(float (&x)[kRows][kColumns][4]) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) x[m][n][0] = x[m][n][1] = x[m][n][2] = x[m][n][3] = 0;
  }
}

// Readers of Q, K and V. The two registers of a B fragment must be neighbours, so K loads a tile's two
// chunks after each other and V a chunk's two tiles.
template <typename W>
__device__ __forceinline__ MatrixReader<typename W::QTile> query_reader(u32 tile) {
  const int lane = threadIdx.x % 32;
  return {tile + W::first_row() * W::QTile::kPanel, lane % 16, lane / 16};
}
template <typename W>
__device__ __forceinline__ MatrixReader<typename W::KTile> key_reader(u32 tile) {
  const int lane = threadIdx.x % 32;
  return {tile + W::half() * W::kWarpKeys * W::KTile::kPanel, key_row(lane % 8, lane / 16),
          lane / 8 % 2};
}
template <typename W>
__device__ __forceinline__ MatrixReader<typename W::KTile> value_reader(u32 tile) {
  const int lane = threadIdx.x % 32;
  return {tile + W::half() * W::KTile::kPartBytes, key_row(lane % 8, lane / 8 % 2), lane / 16};
}

template <typename W, bool kSameQueries = true>
struct TensorProducts {
  static constexpr bool kKeepsInfinities = true;
  static constexpr bool kBf16 = W::kElement == Element::bf16;
  // Q stays in registers where it takes at most 32 of them.
  static constexpr bool kKeepQ = kSameQueries && W::kRowTiles * W::kPairs * 4 <= 32;
  // Paired warps exchange P here, [half of the keys][rows][columns in the order of the fragments].
  using PTile = SharedTile<W::kQueries, W::kPaired ? W::kWarpKeys * 2 : 64, RowOrder::natural>;
  u32 q_tile, p_tile;
  u32 q[kKeepQ ? W::kPairs : 1][W::kRowTiles][4];

  __device__ __forceinline__ explicit TensorProducts(u32 tile, u32 p_tile = 0)
      : q_tile(tile), p_tile(p_tile) {}

  // Once Q has arrived.
  __device__ __forceinline__ void take_queries() {
    if constexpr (kKeepQ) {
      const auto reader = query_reader<W>(q_tile);
#pragma unroll
      for (int k = 0; k < W::kPairs; ++k) {
#pragma unroll
        for (int m = 0; m < W::kRowTiles; ++m)
          ldmatrix(q[k][m], reader.template at<W::kQueries>(16 * m, k));
      }
    }
  }

  __device__ __forceinline__ void scores(typename W::Scores& s, u32 k_tile, bool clear = true) {
    if (clear) clear_fragments(s);
    const auto q_reader = query_reader<W>(q_tile);
    const auto k_reader = key_reader<W>(k_tile);
#pragma unroll
    for (int k = 0; k < W::kPairs; ++k) {
      u32(&a)[W::kRowTiles][4] = q[kKeepQ ? k : 0];
      if constexpr (!kKeepQ) {
#pragma unroll
        for (int m = 0; m < W::kRowTiles; ++m)
          ldmatrix(a[m], q_reader.template at<W::kQueries>(16 * m, k));
      }
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; n += 2) {
        u32 b[4];
        ldmatrix(b, k_reader.template at<W::kKeys>(8 * n, k));
#pragma unroll
        for (int m = 0; m < W::kRowTiles; ++m) {
          mma16<kBf16>(s[m][n], a[m], b[0], b[1]);
          mma16<kBf16>(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // Paired: this warp's half of P to where both read it, before they meet at a barrier.
  __device__ __forceinline__ void share(const typename W::Scores& p) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const u32 tile = p_tile + W::half() * PTile::kBytes + 4 * t;
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
        const int row = W::first_row() + 16 * m + g;
        store_shared(tile + PTile::chunk(row, n),
                     Elements<W::kElement>::pack(p[m][n][0], p[m][n][1]));
        store_shared(tile + PTile::chunk(row + 8, n),
                     Elements<W::kElement>::pack(p[m][n][2], p[m][n][3]));
      }
    }
  }

  // Calls between(step) during each 16 keys: what it does then hides behind products.
  template <typename Between>
  __device__ __forceinline__ void add_values(typename W::Values& o, const typename W::Scores& p,
                                             u32 v_tile, const Between& between) {
    // Elsewhere, addresses would be spilled.
    constexpr int kBetween = 10;
    static_assert(!W::kPaired || kBetween < W::kWidthTiles);
    const auto reader = value_reader<W>(v_tile);
    [[maybe_unused]] const int lane = threadIdx.x % 32;
    [[maybe_unused]] const MatrixReader<PTile> p_reader(p_tile + W::first_row() * PTile::kPanel,
                                                        lane % 16, lane / 16);
#pragma unroll
    for (int n = 0; n < W::kKeys / 8; n += 2) {
      u32 a[W::kRowTiles][4];
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
        if constexpr (W::kPaired) {
          const int half = n / W::kKeyTiles, pair = n % W::kKeyTiles / 2;
          ldmatrix(a[m], p_reader.template at<W::kQueries>(16 * m, pair) + half * PTile::kBytes);
        } else {
          a[m][0] = Elements<W::kElement>::pack(p[m][n][0], p[m][n][1]);
          a[m][1] = Elements<W::kElement>::pack(p[m][n][2], p[m][n][3]);
          a[m][2] = Elements<W::kElement>::pack(p[m][n + 1][0], p[m][n + 1][1]);
          a[m][3] = Elements<W::kElement>::pack(p[m][n + 1][2], p[m][n + 1][3]);
        }
      }
#pragma unroll
      for (int d = 0; d < W::kWidthTiles; d += 2) {
        if (d == kBetween) between(n / 2);
        u32 b[4];
        ldmatrix_transposed(b, reader.template at<W::kKeys>(8 * n, d / 2));
#pragma unroll
        for (int m = 0; m < W::kRowTiles; ++m) {
          mma16<kBf16>(o[m][d], a[m], b[0], b[1]);
          mma16<kBf16>(o[m][d + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  __device__ __forceinline__ void add_values(typename W::Values& o, const typename W::Scores& p,
                                             u32 v_tile) {
    add_values(o, p, v_tile, [](int) {});
  }
};

// x = high + low up to 2^-23 of x, for tensor cores that ignore the lower 13 bits. High is rounded, so
// that the product of two lows, which is left out, is at most 2^-24 of the whole.
struct Split {
  u32 high, low;
};

// An infinity becomes NaN: rows that met one are computed again (exact_row.cuh).
__device__ __forceinline__ Split split(u32 x) {
  const u32 high = (x + 0x1000u) & 0xffffe000u;
  return {high, __float_as_uint(__uint_as_float(x) - __uint_as_float(high))};
}

// The A fragments of some products.
template <int kCount>
struct SplitRows {
  u32 high[kCount][4], low[kCount][4];
  __device__ __forceinline__ explicit SplitRows(const u32 (&x)[kCount][4]) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Split parts = split(x[k][i]);
        high[k][i] = parts.high;
        low[k][i] = parts.low;
      }
    }
  }
};

// Tensor cores cut their sums instead of rounding them, so only a few products are summed there; the
// rest is added in float32 (Ootomo and Yokota, "Recovering single precision accuracy from Tensor
// Cores", IJHPCA 2022).
//
// sum += a b. Two sums inside: the first step's high products, and the others' after all the small
// ones, of which what is cut off does not matter.
template <int kCount>
__device__ __forceinline__ void multiply_split(float (&sum)[4], const SplitRows<kCount>& a,
                                               const u32 (&b)[kCount][2]) {
  float first[4] = {}, second[4] = {};
  u32 high[kCount][2];
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const Split x0 = split(b[k][0]), x1 = split(b[k][1]);
    high[k][0] = x0.high, high[k][1] = x1.high;
    mma_tf32(second, a.high[k], x0.low, x1.low);
    mma_tf32(second, a.low[k], x0.high, x1.high);
    if (k == 0) mma_tf32(first, a.high[k], x0.high, x1.high);
  }
#pragma unroll
  for (int k = 1; k < kCount; ++k) {
    mma_tf32(second, a.high[k], high[k][0], high[k][1]);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) sum[c] = sum[c] + first[c] + second[c];
}

template <typename W>
struct SplitProducts {
  static_assert(!W::kPaired);
  static constexpr bool kKeepsInfinities = false;  // those of K and V
  static constexpr int kDepth = W::kSplitDepth;
  u32 q_tile;

  __device__ __forceinline__ explicit SplitProducts(u32 tile, u32 = 0) : q_tile(tile) {}
  __device__ __forceinline__ void take_queries() {}

  __device__ __forceinline__ void scores(typename W::Scores& s, u32 k_tile, bool clear = true) {
    if (clear) clear_fragments(s);
    const auto q_reader = query_reader<W>(q_tile);
    const auto k_reader = key_reader<W>(k_tile);
    // Unrolled, it would spill.

#pragma unroll 1
    for (int k0 = 0; k0 < W::kPairs; k0 += kDepth) {
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
        u32 raw[kDepth][4];
#pragma unroll
        for (int k = 0; k < kDepth; ++k)
          ldmatrix(raw[k], q_reader.template at<W::kQueries>(16 * m, k0 + k));
        const SplitRows<kDepth> a(raw);
#pragma unroll
        for (int n = 0; n < W::kKeyTiles; n += 2) {
          u32 b[2][kDepth][2];
#pragma unroll
          for (int k = 0; k < kDepth; ++k) {
            u32 x[4];
            ldmatrix(x, k_reader.template at<W::kKeys>(8 * n, k0 + k));
            b[0][k][0] = x[0], b[0][k][1] = x[1], b[1][k][0] = x[2], b[1][k][1] = x[3];
          }
          multiply_split(s[m][n], a, b[0]);
          multiply_split(s[m][n + 1], a, b[1]);
        }
      }
    }
  }

  __device__ __forceinline__ void add_values(typename W::Values& o, const typename W::Scores& p,
                                             u32 v_tile) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    using Tile = typename W::KTile;
    const u32 base = v_tile + 4 * t * Tile::kPanel + g % 4 * 4;
    const u32 even = (g / 4 ^ Tile::swizzle(4 * t)) << 4;
    constexpr int kTiles = W::kKeyTiles % 4 == 0 ? 4 : W::kKeyTiles % 3 == 0 ? 3 : 2;
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; n += kTiles) {
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
        u32 raw[kTiles][4];
#pragma unroll
        for (int k = 0; k < kTiles; ++k) {
          // k = t of the product is the tile's column 2t, k = t + 4 its column 2t + 1.
          const float(&c)[4] = p[m][n + k];
          raw[k][0] = __float_as_uint(c[0]), raw[k][1] = __float_as_uint(c[2]);
          raw[k][2] = __float_as_uint(c[1]), raw[k][3] = __float_as_uint(c[3]);
        }
        const SplitRows<kTiles> a(raw);
#pragma unroll
        for (int d = 0; d < W::kWidthTiles; ++d) {
          const int panel = 2 * d / Tile::kChunks, inner = 2 * d % Tile::kChunks;
          u32 b[kTiles][2];
#pragma unroll
          for (int k = 0; k < kTiles; ++k) {
            const int first = (n + k) % 2 * 2;  // keys 4t + first and 4t + first + 1 of a group
            const u32 row = base + panel * (W::kKeys * Tile::kPanel) +
                            ((n + k) / 2 * 16 + first) * Tile::kPanel;
            b[k][0] = load_shared(row + (even ^ (inner ^ Tile::swizzle(first)) << 4));
            b[k][1] =
                load_shared(row + Tile::kPanel + (even ^ (inner ^ Tile::swizzle(first + 1)) << 4));
          }
          multiply_split(o[m][d], a, b);
        }
      }
    }
  }
};

template <typename W>
struct SimtProducts {
  static_assert(!W::kPaired);
  static constexpr bool kKeepsInfinities = true;
  using E = Elements<W::kElement>;
  static constexpr int kPerChunk = 16 / bytes_of(W::kElement);
  u32 q_tile;

  __device__ __forceinline__ explicit SimtProducts(u32 tile, u32 = 0) : q_tile(tile) {}
  __device__ __forceinline__ void take_queries() {}

  static __device__ __forceinline__ float element(const u32 (&r)[4], int e) {
    if constexpr (kPerChunk == 4) {
      return __uint_as_float(r[e]);
    } else {
      return E::to_float(static_cast<typename E::Bits>(r[e / 2] >> e % 2 * 16));
    }
  }

  __device__ __forceinline__ void scores(typename W::Scores& s, u32 k_tile, bool clear = true) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = W::first_row() + g;
    const u32 keys = k_tile + W::half() * W::kWarpKeys * W::KTile::kPanel;
    if (clear) clear_fragments(s);
#pragma unroll 1
    for (int chunk = 0; chunk < 2 * W::kPairs; ++chunk) {
      u32 q[W::kRowTiles][2][4];
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m) {
        load_shared(q[m][0], q_tile + W::QTile::chunk(row + 16 * m, chunk));
        load_shared(q[m][1], q_tile + W::QTile::chunk(row + 16 * m + 8, chunk));
      }
#pragma unroll
      for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          u32 k[4];
          load_shared(k, keys + W::KTile::chunk(n / 2 * 16 + 4 * t + n % 2 * 2 + c, chunk));
#pragma unroll
          for (int e = 0; e < kPerChunk; ++e) {
#pragma unroll
            for (int m = 0; m < W::kRowTiles; ++m) {
              s[m][n][c] += element(q[m][0], e) * element(k, e);
              s[m][n][c + 2] += element(q[m][1], e) * element(k, e);
            }
          }
        }
      }
    }
  }

  __device__ __forceinline__ void add_values(typename W::Values& o, const typename W::Scores& p,
                                             u32 v_tile) {
    const int lane = threadIdx.x % 32, t = lane % 4;
    constexpr int kOwners = W::kWidth > 128 ? 1 : 4;  // less code compiles sooner
#pragma unroll
    for (int n = 0; n < W::kKeyTiles; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll kOwners
        for (int owner = 0; owner < 4; ++owner) {
          float weight[W::kRowTiles][2];
#pragma unroll
          for (int m = 0; m < W::kRowTiles; ++m) {
            weight[m][0] = __shfl_sync(~0u, p[m][n][c], owner, 4);
            weight[m][1] = __shfl_sync(~0u, p[m][n][c + 2], owner, 4);
          }
          const int row = n / 2 * 16 + 4 * owner + n % 2 * 2 + c;
#pragma unroll
          for (int d = 0; d < W::kWidthTiles; ++d) {
            float v[2];
            if constexpr (kPerChunk == 4) {
              const u32 at = v_tile + W::KTile::chunk(row, 2 * d + t / 2) + t % 2 * 8;
              v[0] = __uint_as_float(load_shared(at));
              v[1] = __uint_as_float(load_shared(at + 4));
            } else {
              const u32 bits = load_shared(v_tile + W::KTile::chunk(row, d) + 4 * t);
              v[0] = E::to_float(static_cast<typename E::Bits>(bits));
              v[1] = E::to_float(static_cast<typename E::Bits>(bits >> 16));
            }
#pragma unroll
            for (int m = 0; m < W::kRowTiles; ++m) {
#pragma unroll
              for (int e = 0; e < 2; ++e) {
                o[m][d][e] += weight[m][0] * v[e];
                o[m][d][e + 2] += weight[m][1] * v[e];
              }
            }
          }
        }
      }
    }
  }
};

template <bool kTensor, bool kSplit, typename W, bool kSameQueries>
struct ProductsOf {
  using Type = SimtProducts<W>;
};
template <typename W, bool kSameQueries>
struct ProductsOf<true, false, W, kSameQueries> {
  using Type = TensorProducts<W, kSameQueries>;
};
template <typename W, bool kSameQueries>
struct ProductsOf<false, true, W, kSameQueries> {
  using Type = SplitProducts<W>;
};

// The best way for an element type and the first architecture of the spec's range.
constexpr bool uses_tensor_cores(Element element, int arch) {
  return element == Element::f16 || (element == Element::bf16 && arch >= 80);
}
constexpr bool uses_split(Element element, int arch) {
  return element == Element::f32 && arch >= 80;
}

// kSameQueries: for one tile of queries and many of keys, so that Q may stay in registers.
template <int kArch, typename W, bool kSameQueries = true>
using Products = typename ProductsOf<uses_tensor_cores(W::kElement, kArch),
                                     uses_split(W::kElement, kArch), W, kSameQueries>::Type;

}  // namespace attune::kernel
