// Products of binary16 on AMX tiles, which know bf16 only: a binary16 number is the exact sum of two
// bf16, high + low, so a product is that of the parts.
//
// Every 32 elements along the summed dimension are a pair of chunks, [16 words of high][16 words of
// low], so a word holds one element and operands are laid out like the tiles' bf16 ones otherwise. P
// and dS, which are floats, keep 16 of their 24 bits.
#pragma once

#include "cpu/kernel/amx.h"

namespace attune::cpu::ATTUNE_ISA {

// A in tiles 4-5, B in 6-7. Small products first. kAll: low times low too, 2^-18 of the whole, which the
// LSE, a float, would miss and what is rounded to binary16 does not.
template <int kM, int kN, bool kAll>
ATTUNE_INLINE void half_tile_block(std::int64_t words, const float* a, std::int64_t lda,
                                   const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                                   bool accumulate) {
  const long a_bytes = static_cast<long>(lda * 4), b_bytes = static_cast<long>(ldb * 4);
  start_tiles<kM, kN>(c, ldc, accumulate);
  const auto load_a = [&](std::int64_t k) ATTUNE_LAMBDA_INLINE {
    _tile_loadd(4, a + k, a_bytes);
    if constexpr (kM == 2) _tile_loadd(5, a + 16 * lda + k, a_bytes);
  };
  const auto load_b = [&](std::int64_t k) ATTUNE_LAMBDA_INLINE {
    _tile_loadd(6, b + k * ldb, b_bytes);
    if constexpr (kN == 2) _tile_loadd(7, b + k * ldb + 16, b_bytes);
  };
  const auto multiply = [&]() ATTUNE_LAMBDA_INLINE {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kN == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kM == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kM == 2 && kN == 2) _tile_dpbf16ps(3, 5, 7);
  };
  for (std::int64_t k = 0; k < words; k += 32) {
    load_b(k + 16);
    if constexpr (kAll) {
      load_a(k + 16);
      multiply();
    }
    load_a(k);
    multiply();
    load_b(k);
    multiply();
    load_a(k + 16);
    multiply();
  }
  store_tiles<kM, kN>(c, ldc);
}

template <int kM, bool kAll>
ATTUNE_INLINE void half_tile_band(std::int64_t columns, std::int64_t words, const float* a,
                                  std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                                  std::int64_t ldc, bool accumulate) {
  std::int64_t n = 0;
  for (; n + 32 <= columns; n += 32) {
    half_tile_block<kM, 2, kAll>(words, a, lda, b + n, ldb, c + n, ldc, accumulate);
  }
  if (n < columns) {
    half_tile_block<kM, 1, kAll>(words, a, lda, b + n, ldb, c + n, ldc, accumulate);
  }
}

// 16 floats as two bf16 each; the low part of a NaN or an infinity is 0.
ATTUNE_INLINE void split(F x, H* high, H* low) {
  *high = narrow(x, bf16{});
  *low = narrow(select(nonfinite(x), F{}, x - widen(*high, bf16{})), bf16{});
}

struct AmxHalfArith {
  using In = f16;
  using Out = f16;
  using Session = TileSession;
  static constexpr int kPair = 1;  // elements a word
  static constexpr int kPanel = 64;
  static constexpr int kRowMultiple = 16;
  static constexpr int kDepthMultiple = 32;
  static constexpr int kExpDegree = 5;
  static constexpr float kSlack = 8.0f;
  static constexpr std::int64_t kScoreKeys = 64;
  static constexpr bool kStoresP = true;
  static constexpr bool kPlainNonfinite = true;

  static ATTUNE_INLINE std::int64_t words(std::int64_t depth) { return round_up(depth, 32); }
  static ATTUNE_INLINE std::int64_t columns_of(std::int64_t n) { return round_up(n, 32); }
  static ATTUNE_INLINE std::int64_t pitch(std::int64_t n) { return words(n); }
  static ATTUNE_INLINE std::int64_t column_pitch(std::int64_t n) { return columns_of(n); }

  // Where element i of a packed row lies, in halves of a word; its low part is 32 further.
  static ATTUNE_INLINE std::int64_t place(std::int64_t i) { return i / 32 * 64 + i % 32; }

  static ATTUNE_INLINE bool pack_row(const f16* row, std::int64_t stride, std::int64_t n,
                                     float* out) {
    auto* to = reinterpret_cast<std::uint16_t*>(out);
    const std::int64_t padded = words(n);
    I bad{};
    if (row == nullptr) n = 0;
    for (std::int64_t i = 0; i < padded; i += kLanes) {
      F x{};
      if (stride == 1 && i + kLanes <= n) {
        x = load_float(row + i);
      } else {
        for (int lane = 0; lane < kLanes && i + lane < n; ++lane) {
          x[lane] = to_float(row[(i + lane) * stride]);
        }
      }
      bad |= nonfinite(x);
      H high, low;
      split(x, &high, &low);
      store(to + place(i), high);
      store(to + place(i) + 32, low);
    }
    return any(bad);
  }
  // Rows 2r and 2r + 1 interleaved, 16 pairs of high parts and 16 of low ones in turn.
  static ATTUNE_INLINE void pack_pairs(const float* rows, std::int64_t ld, std::int64_t count,
                                       std::int64_t n, float* out) {
    const auto* source = reinterpret_cast<const std::uint16_t*>(rows);
    for (std::int64_t r = 0; r < count; r += 2) {
      float* to = out + (r / 32 * 32 + r % 32 / 2) * columns_of(n);
      for (std::int64_t i = 0; i < columns_of(n); i += kLanes) {
        const std::uint16_t* from = source + 2 * r * ld + place(i);
        store(to + i, pair(from, from + 2 * ld));
        store(to + 16 * columns_of(n) + i, pair(from + 32, from + 2 * ld + 32));
      }
    }
  }
  static ATTUNE_INLINE F pair(const std::uint16_t* first, const std::uint16_t* second) {
    const U low = __builtin_convertvector(load<H>(first), U);
    const U high = __builtin_convertvector(load<H>(second), U);
    return as_f(low | (high << 16));
  }

  static ATTUNE_INLINE std::int64_t deep_floats(std::int64_t count, std::int64_t n) {
    return count * columns_of(n);
  }
  // [count][n] -> [n][count], count a multiple of 32.
  static ATTUNE_INLINE AOperand pack_deep(const float* packed_rows, std::int64_t count,
                                          std::int64_t n, float* out) {
    const auto* source = reinterpret_cast<const std::uint16_t*>(packed_rows);
    const std::int64_t ld = 2 * pitch(n);
    for (std::int64_t j = 0; j < count; j += 32) {
      for (std::int64_t c = 0; c < columns_of(n); c += kLanes) {
        for (std::int64_t part = 0; part < 2; ++part) {
          F x[kLanes];
#pragma GCC unroll 16
          for (int r = 0; r < kLanes; ++r) {
            const std::uint16_t* row = source + (j + 2 * r) * ld + place(c) + 32 * part;
            x[r] = pair(row, row + ld);
          }
          transpose(x);
#pragma GCC unroll 16
          for (int r = 0; r < kLanes; ++r) store(out + (c + r) * count + j + 16 * part, x[r]);
        }
      }
    }
    return deep_operand(out, count, n);
  }
  static ATTUNE_INLINE AOperand deep_operand(const float* packed, std::int64_t count,
                                             std::int64_t /*n*/) {
    return {packed, count, 1};
  }
  static ATTUNE_INLINE AOperand deep_from(AOperand a, std::int64_t key) {
    return {a.data + key, a.m_stride, 1};
  }

  // Keys j and j + 1 of a B operand whose rows are keys: lane i is (low[i], high[i]).
  static ATTUNE_INLINE void store_pair(float* p, std::int64_t ld, std::int64_t j, F low, F high) {
    const F top = interleave(low, high);
    float* to = p + (j / 32 * 32 + j % 32 / 2) * ld;
    store(to, top);
    store(to + 16 * ld,
          interleave(low - as_f(as_u(top) << 16), high - as_f(as_u(top) & 0xffff0000u)));
  }
  // Query i of a row of an A operand whose rows are keys, 16 from there.
  static ATTUNE_INLINE void store_row(float* row, std::int64_t i, F x) {
    auto* to = reinterpret_cast<std::uint16_t*>(row) + place(i);
    H high, low;
    split(x, &high, &low);
    store(to, high);
    store(to + 32, low);
  }

  // Not inlined, and fenced, as in amx.h.
  template <bool kAll>
  static __attribute__((noinline)) void gemm_tiles(std::int64_t rows, std::int64_t columns,
                                                   std::int64_t words, AOperand a, const float* b,
                                                   std::int64_t ldb, float* c, std::int64_t ldc) {
    __asm__ volatile("" ::: "memory");
    std::int64_t m = 0;
    for (; m + 32 <= rows; m += 32) {
      half_tile_band<2, kAll>(columns, words, a.data + m * a.m_stride, a.m_stride, b, ldb,
                              c + m * ldc, ldc, !kAll);
    }
    if (m < rows) {
      half_tile_band<1, kAll>(columns, words, a.data + m * a.m_stride, a.m_stride, b, ldb,
                              c + m * ldc, ldc, !kAll);
    }
  }
  // Scores and dP take all products; what accumulates is rounded to binary16 in the end.
  static ATTUNE_INLINE void gemm_rows(std::int64_t rows, std::int64_t columns, std::int64_t words,
                                      AOperand a, const float* b, std::int64_t ldb, float* c,
                                      std::int64_t ldc, bool accumulate) {
    if (accumulate) {
      gemm_tiles<false>(rows, columns, words, a, b, ldb, c, ldc);
    } else {
      gemm_tiles<true>(rows, columns, words, a, b, ldb, c, ldc);
    }
  }
  static void gemm_deep(std::int64_t rows, std::int64_t columns, std::int64_t depth, AOperand a,
                        const float* b, std::int64_t ldb, float* c, std::int64_t ldc) {
    gemm_rows(rows, columns, depth, a, b, ldb, c, ldc, true);
  }
  // The same as gemm_rows where an operand holds a NaN or an infinity, whose products with the low
  // part 0 of the other would be NaN.
  static __attribute__((noinline)) void gemm_plain(std::int64_t rows, std::int64_t columns,
                                                   std::int64_t words, AOperand a, const float* b,
                                                   std::int64_t ldb, float* c, std::int64_t ldc) {
    for (std::int64_t m = 0; m < rows; ++m) {
      const auto* row = reinterpret_cast<const std::uint16_t*>(a.data + m * a.m_stride);
      for (std::int64_t n = 0; n < columns; n += kLanes) {
        F sum{};
        for (std::int64_t k = 0; k < words; k += 32) {
          for (std::int64_t w = 0; w < 16; ++w) {
            const U high = as_u(loadf(b + (k + w) * ldb + n));
            const U low = as_u(loadf(b + (k + 16 + w) * ldb + n));
            const std::uint16_t* x = row + 2 * (k + w);
            sum += (to_float(bf16{x[0]}) + to_float(bf16{x[32]})) *
                   (as_f(high << 16) + as_f(low << 16));
            sum += (to_float(bf16{x[1]}) + to_float(bf16{x[33]})) *
                   (as_f(high & 0xffff0000u) + as_f(low & 0xffff0000u));
          }
        }
        store(c + m * ldc + n, sum);
      }
    }
  }
};

}  // namespace attune::cpu::ATTUNE_ISA
