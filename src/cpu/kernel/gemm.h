// C[m][n] (+)= sum over k of A(m, k) B[k][n]: the matrix product that everything else is made of.
//
// Operands are arrays of 32-bit words. A word is one float, or two neighbouring bf16 along k; the
// vector instruction differs and nothing else does. Lanes run along n: B and C rows are vectors,
// A is broadcast word by word and may lie with k contiguous (keys as rows) or m contiguous (values,
// whose rows are summed over): either way no operand needs a transpose of K or V.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

// How a broadcast word of A meets a vector of words of B.
struct FloatProduct {
  using Word = float;
  static ATTUNE_INLINE F add(F acc, F a, F b) { return acc + a * b; }
};
#if defined(__AVX512BF16__)
struct Bf16Product {
  using Word = float;  // two bf16, moved as one float's worth of bits
  static ATTUNE_INLINE F add(F acc, F a, F b) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};
#endif

// Registers: kRows x kVectors accumulators, one row of B, one broadcast.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kTileRows = 8;
#else
inline constexpr int kTileRows = 4;
#endif
inline constexpr int kTileVectors = 3;

struct AOperand {
  const float* data;
  std::int64_t m_stride, k_stride;  // words; one of them is 1
};

// kContiguousK: a.k_stride is 1; otherwise a.m_stride is 1.
template <typename Product, bool kContiguousK, int kRows, int kVectors>
ATTUNE_INLINE void gemm_tile(std::int64_t depth, AOperand a, const float* b, std::int64_t ldb,
                             float* c, std::int64_t ldc, bool accumulate) {
  F acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) acc[m][n] = F{};
  }
  const float* rows[kRows];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) rows[m] = a.data + m * (kContiguousK ? a.m_stride : 1);
  for (std::int64_t k = 0; k < depth; ++k) {
    F bv[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) bv[n] = loadf(b + n * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const F av = splat(kContiguousK ? rows[m][k] : rows[0][m]);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) acc[m][n] = Product::add(acc[m][n], av, bv[n]);
    }
    b += ldb;
    if (!kContiguousK) rows[0] += a.k_stride;
  }
  // C joins last: sums within a block and sums of blocks, so that rounding grows with the block's
  // length and the number of blocks rather than with their product.
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      float* at = c + m * ldc + n * kLanes;
      store(at, accumulate ? loadf(at) + acc[m][n] : acc[m][n]);
    }
  }
}

// rows: a multiple of kTileRows; packed operands are padded to it.
template <typename Product, bool kContiguousK, int kVectors>
ATTUNE_INLINE void gemm_column(std::int64_t rows, std::int64_t depth, AOperand a, const float* b,
                               std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  const std::int64_t step = kContiguousK ? a.m_stride : 1;
  for (std::int64_t m = 0; m < rows; m += kTileRows) {
    gemm_tile<Product, kContiguousK, kTileRows, kVectors>(
        depth, {a.data + m * step, a.m_stride, a.k_stride}, b, ldb, c + m * ldc, ldc, accumulate);
  }
}

// columns: floats of C and words of B a row, a multiple of kLanes.
template <typename Product, bool kContiguousK>
__attribute__((noinline)) void gemm(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                                    AOperand a, const float* b, std::int64_t ldb, float* c,
                                    std::int64_t ldc, bool accumulate) {
  std::int64_t vectors = columns / kLanes;
  while (vectors > 0) {
    // 4 = 2 + 2 keeps both halves wide enough to hide the latency; 3 + 1 would not.
    const std::int64_t take = vectors == 4 || vectors == 2 ? 2 : smaller<std::int64_t>(vectors, 3);
    if (take == 3) {
      gemm_column<Product, kContiguousK, 3>(rows, depth, a, b, ldb, c, ldc, accumulate);
    } else if (take == 2) {
      gemm_column<Product, kContiguousK, 2>(rows, depth, a, b, ldb, c, ldc, accumulate);
    } else {
      gemm_column<Product, kContiguousK, 1>(rows, depth, a, b, ldb, c, ldc, accumulate);
    }
    b += take * kLanes;
    c += take * kLanes;
    vectors -= take;
  }
}

}  // namespace attune::cpu::ATTUNE_ISA
