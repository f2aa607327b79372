// The two ways to multiply on vectors: floats, and pairs of bf16. An Arith says how operands are
// packed and which product runs; the kernels above it are written once.
//
// Names of packed forms, for a matrix X of `rows` x `depth`:
//   rows     [rows][pitch]        A operand of products over X's own columns (K in QK^T)
//   columns  [words][panel]       B operand of the same, transposed (Q in QK^T: lanes are queries)
//   deep     A operand of products over X's rows (V in PV)
//   pairs    [rows / pair][pitch] B operand of products over X's rows (dO in P^T dO)
#pragma once

#include "cpu/kernel/element.h"
#include "cpu/kernel/gemm.h"
#include "cpu/kernel/transpose.h"

namespace attune::cpu::ATTUNE_ISA {

// What a task sets up before its products; vectors need nothing.
struct NoSession {};

// One row as floats, zero padded; returns whether anything in it is NaN or infinite.
template <typename In>
ATTUNE_INLINE bool widen_row(const In* row, std::int64_t stride, std::int64_t n, float* out,
                             std::int64_t padded) {
  I bad{};
  std::int64_t i = 0;
  if (row == nullptr) n = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      const F x = load_float(row + i);
      bad |= nonfinite(x);
      store(out + i, x);
    }
  }
  bool bad_tail = false;
  for (; i < n; ++i) {
    out[i] = to_float(row[i * stride]);
    bad_tail |= (bits_of(out[i]) & 0x7f800000u) == 0x7f800000u;
  }
  for (; i < padded; ++i) out[i] = 0.0f;
  return any(bad) || bad_tail;
}

// A row of floats times a factor, rounded once.
template <typename In>
ATTUNE_INLINE void narrow_row(const float* x, float factor, std::int64_t n, In* out,
                              std::int64_t stride) {
  std::int64_t c = 0;
  if (stride == 1) {
    for (; c + kLanes <= n; c += kLanes) store_float(out + c, loadf(x + c) * factor);
  }
  for (; c < n; ++c) from_float(x[c] * factor, out + c * stride);
}

// One row of bf16 as words of two, zero padded.
ATTUNE_INLINE bool copy_row(const bf16* row, std::int64_t stride, std::int64_t n, bf16* out,
                            std::int64_t padded) {
  I bad{};
  std::int64_t i = 0;
  if (row == nullptr) n = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      const H x = load<H>(row + i);
      bad |= nonfinite(widen(x, bf16{}));
      store(out + i, x);
    }
  }
  bool bad_tail = false;
  for (; i < n; ++i) {
    out[i] = row[i * stride];
    bad_tail |= (out[i].bits & 0x7f80u) == 0x7f80u;
  }
  for (; i < padded; ++i) out[i].bits = 0;
  return any(bad) || bad_tail;
}

// [kLanes rows][words] -> [words][panel], `lane0` first; words is a multiple of kLanes.
ATTUNE_INLINE void scatter_columns(const float* rows, std::int64_t ld, std::int64_t words,
                                   float* columns, std::int64_t panel) {
  for (std::int64_t w = 0; w < words; w += kLanes) {
    F x[kLanes];
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) x[r] = loadf(rows + r * ld + w);
    transpose(x);
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) store(columns + (w + r) * panel, x[r]);
  }
}

// Products of floats; `InType` is what q, k and v are stored in, `OutType` what o is.
template <typename InType, typename OutType = InType>
struct FloatArith {
  using In = InType;
  using Out = OutType;
  static constexpr int kPair = 1;
  static constexpr int kPanel = kTileVectors * kLanes;
  static constexpr int kRowMultiple = kTileRows;  // of A operands
  static constexpr int kDepthMultiple = 1;        // of sums over keys or queries
  static constexpr int kExpDegree = 6;
  static constexpr float kSlack = 4.0f;  // powers of two by which a score may exceed its reference
  static constexpr std::int64_t kScoreKeys = 128;
  using Session = NoSession;

  // Words a row of `depth` elements takes; a multiple of kLanes so that rows transpose by squares.
  static ATTUNE_INLINE std::int64_t words(std::int64_t depth) { return round_up(depth, kLanes); }

  static ATTUNE_INLINE bool pack_row(const In* row, std::int64_t stride, std::int64_t n,
                                     float* out) {
    return widen_row(row, stride, n, out, words(n));
  }
  // With pair 1, the rows themselves.
  static ATTUNE_INLINE void pack_pairs(const float* rows, std::int64_t ld, std::int64_t count,
                                       std::int64_t n, float* out) {
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t i = 0; i < words(n); i += kLanes) {
        store(out + r * column_pitch(n) + i, loadf(rows + r * ld + i));
      }
    }
  }
  static ATTUNE_INLINE std::int64_t columns_of(std::int64_t n) { return words(n); }
  // Floats from one packed row to the next. Not a multiple of 256 bytes: products walk down columns
  // of V (and K, Q, dO in backward), and such a stride would use a quarter of the L1 cache's sets.
  static ATTUNE_INLINE std::int64_t pitch(std::int64_t n) {
    return words(n) % 64 == 0 ? words(n) + kLanes : words(n);
  }
  static ATTUNE_INLINE std::int64_t column_pitch(std::int64_t n) { return pitch(n); }

  // The deep form of rows [count][pitch(n)] is the rows themselves.
  static ATTUNE_INLINE std::int64_t deep_floats(std::int64_t /*count*/, std::int64_t /*n*/) {
    return 0;
  }
  static ATTUNE_INLINE AOperand deep_operand(const float* packed, std::int64_t /*count*/,
                                             std::int64_t n) {
    return {packed, 1, pitch(n)};
  }
  static ATTUNE_INLINE AOperand pack_deep(const float* packed_rows, std::int64_t count,
                                          std::int64_t n, float* /*out*/) {
    return deep_operand(packed_rows, count, n);
  }
  static ATTUNE_INLINE AOperand deep_from(AOperand a, std::int64_t key) {
    return {a.data + key * a.k_stride, a.m_stride, a.k_stride};
  }

  // P as B operand: the float tile itself.
  static constexpr bool kStoresP = false;
  static constexpr bool kPlainNonfinite = false;

  static ATTUNE_INLINE void gemm_rows(std::int64_t rows, std::int64_t columns, std::int64_t words,
                                      AOperand a, const float* b, std::int64_t ldb, float* c,
                                      std::int64_t ldc, bool accumulate) {
    gemm<FloatProduct, true>(rows, columns, words, a, b, ldb, c, ldc, accumulate);
  }
  static ATTUNE_INLINE void gemm_deep(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                                      AOperand a, const float* b, std::int64_t ldb, float* c,
                                      std::int64_t ldc) {
    gemm<FloatProduct, false>(rows, columns, depth, a, b, ldb, c, ldc, true);
  }
};

#if defined(__AVX512BF16__)
// Two rows of floats as words of two bf16: lane i is (low[i], high[i]).
ATTUNE_INLINE F interleave(F low, F high) {
  const U packed = reinterpret_cast<U>(_mm512_cvtne2ps_pbh(high, low));
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return reinterpret_cast<F>(_mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(packed)));
}

// What vector and tile bf16 share.
template <int kPanelQueries, int kRows, int kWords>
struct Bf16Forms {
  using In = bf16;
  using Out = bf16;
  static constexpr int kPair = 2;
  static constexpr int kPanel = kPanelQueries;
  static constexpr int kRowMultiple = kRows;
  static constexpr int kDepthMultiple = 2 * kWords;
  static constexpr int kExpDegree = 5;  // P is rounded to 8 bits, its sum is not
  static constexpr float kSlack = 8.0f;
  static constexpr std::int64_t kScoreKeys = 64;
  static constexpr bool kStoresP = true;
  static constexpr bool kPlainNonfinite = false;

  static ATTUNE_INLINE std::int64_t words(std::int64_t depth) {
    return round_up(depth, 2 * kLanes) / 2;
  }
  static ATTUNE_INLINE std::int64_t columns_of(std::int64_t n) { return round_up(n, 2 * kLanes); }
  static ATTUNE_INLINE std::int64_t pitch(std::int64_t n) { return words(n); }
  static ATTUNE_INLINE std::int64_t column_pitch(std::int64_t n) { return columns_of(n); }

  // Keys j and j + 1 of a B operand whose rows are keys: lane i is (low[i], high[i]).
  static ATTUNE_INLINE void store_pair(float* p, std::int64_t ld, std::int64_t j, F low, F high) {
    store(p + j / 2 * ld, interleave(low, high));
  }
  // Query i of a row of an A operand whose rows are keys, 16 from there.
  static ATTUNE_INLINE void store_row(float* row, std::int64_t i, F x) {
    store(reinterpret_cast<std::uint16_t*>(row) + i, narrow(x, bf16{}));
  }
  static ATTUNE_INLINE bool pack_row(const bf16* row, std::int64_t stride, std::int64_t n,
                                     float* out) {
    return copy_row(row, stride, n, reinterpret_cast<bf16*>(out), 2 * words(n));
  }
  // count is even; the bf16 of rows 2r and 2r + 1 are interleaved. ld: words from row to row.
  static ATTUNE_INLINE void pack_pairs(const float* rows, std::int64_t ld, std::int64_t count,
                                       std::int64_t n, float* out) {
    const auto* source = reinterpret_cast<const std::uint16_t*>(rows);
    for (std::int64_t r = 0; r < count; r += 2) {
      for (std::int64_t i = 0; i < columns_of(n); i += kLanes) {
        const U low = __builtin_convertvector(load<H>(source + 2 * r * ld + i), U);
        const U high = __builtin_convertvector(load<H>(source + 2 * (r + 1) * ld + i), U);
        store(out + r / 2 * columns_of(n) + i, low | (high << 16));
      }
    }
  }
};

struct Bf16Arith : Bf16Forms<kTileVectors * kLanes, kTileRows, 1> {
  using Session = NoSession;
  static ATTUNE_INLINE std::int64_t deep_floats(std::int64_t count, std::int64_t n) {
    return count / 2 * columns_of(n);
  }
  static ATTUNE_INLINE AOperand pack_deep(const float* packed_rows, std::int64_t count,
                                          std::int64_t n, float* out) {
    pack_pairs(packed_rows, pitch(n), count, n, out);
    return deep_operand(out, count, n);
  }
  static ATTUNE_INLINE AOperand deep_operand(const float* packed, std::int64_t /*count*/,
                                             std::int64_t n) {
    return {packed, 1, columns_of(n)};
  }
  static ATTUNE_INLINE AOperand deep_from(AOperand a, std::int64_t key) {
    return {a.data + key / 2 * a.k_stride, a.m_stride, a.k_stride};
  }
  static ATTUNE_INLINE void gemm_rows(std::int64_t rows, std::int64_t columns, std::int64_t words,
                                      AOperand a, const float* b, std::int64_t ldb, float* c,
                                      std::int64_t ldc, bool accumulate) {
    gemm<Bf16Product, true>(rows, columns, words, a, b, ldb, c, ldc, accumulate);
  }
  static ATTUNE_INLINE void gemm_deep(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                                      AOperand a, const float* b, std::int64_t ldb, float* c,
                                      std::int64_t ldc) {
    gemm<Bf16Product, false>(rows, columns, depth / 2, a, b, ldb, c, ldc, true);
  }
};
#endif

// [keys][ld] floats, lanes are queries, as an A operand whose rows are keys; zero rows up to `padded`.
template <typename Arith>
ATTUNE_INLINE void store_rows(const float* x, std::int64_t ld, std::int64_t count,
                              std::int64_t padded, std::int64_t queries, float* out) {
  for (std::int64_t j = 0; j < padded; ++j) {
    for (std::int64_t i = 0; i < queries; i += kLanes) {
      Arith::store_row(out + j * ld / Arith::kPair, i, j < count ? loadf(x + j * ld + i) : F{});
    }
  }
}

// The same as a B operand whose rows are keys.
template <typename Arith>
ATTUNE_INLINE void store_pairs(const float* x, std::int64_t ld, std::int64_t count,
                               std::int64_t padded, std::int64_t queries, float* out) {
  for (std::int64_t j = 0; j < padded; j += 2) {
    for (std::int64_t i = 0; i < queries; i += kLanes) {
      const F low = j < count ? loadf(x + j * ld + i) : F{};
      const F high = j + 1 < count ? loadf(x + (j + 1) * ld + i) : F{};
      Arith::store_pair(out + i, ld, j, low, high);
    }
  }
}

}  // namespace attune::cpu::ATTUNE_ISA
