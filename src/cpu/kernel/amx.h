// Products of bf16 on AMX tiles, behind the same interface as the vector ones.
//
// A tile is 16 rows of 64 bytes. A operands are rows of bf16 with the summed dimension contiguous;
// B operands are words of two bf16 with lanes along the columns, which is AMX's own layout, so Q^T,
// dO^T and P^T need no packing beyond what the vector kernels do. V (and K in backward) is summed
// over its rows and must be transposed once a block.
#pragma once

#include "cpu/kernel/arith.h"

namespace attune::cpu::ATTUNE_ISA {

// The tile registers are configured for the duration of a task and given back after it.
class TileSession {
 public:
  TileSession() {
    // Static: GCC's intrinsic claims to read only the first word, and would drop the other stores.
    static constexpr Config kConfig{};
    _tile_loadconfig(&kConfig);
  }
  ~TileSession() { _tile_release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;

 private:
  struct alignas(64) Config {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
};

// kM x kN tiles of C are tiles 0-3: what they start from, and where they go.
template <int kM, int kN>
ATTUNE_INLINE void start_tiles(const float* c, std::int64_t ldc, bool accumulate) {
  const long c_bytes = static_cast<long>(ldc * 4);
  if (accumulate) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (kN == 2) _tile_loadd(1, c + 16, c_bytes);
    if constexpr (kM == 2) _tile_loadd(2, c + 16 * ldc, c_bytes);
    if constexpr (kM == 2 && kN == 2) _tile_loadd(3, c + 16 * ldc + 16, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (kN == 2) _tile_zero(1);
    if constexpr (kM == 2) _tile_zero(2);
    if constexpr (kM == 2 && kN == 2) _tile_zero(3);
  }
}
template <int kM, int kN>
ATTUNE_INLINE void store_tiles(float* c, std::int64_t ldc) {
  const long c_bytes = static_cast<long>(ldc * 4);
  _tile_stored(0, c, c_bytes);
  if constexpr (kN == 2) _tile_stored(1, c + 16, c_bytes);
  if constexpr (kM == 2) _tile_stored(2, c + 16 * ldc, c_bytes);
  if constexpr (kM == 2 && kN == 2) _tile_stored(3, c + 16 * ldc + 16, c_bytes);
}

// A in tiles 4-5, B in 6-7. Two by two reads each operand tile for two products, which is what the load
// ports can feed.
template <int kM, int kN>
ATTUNE_INLINE void tile_block(std::int64_t words, const float* a, std::int64_t lda, const float* b,
                              std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  const long a_bytes = static_cast<long>(lda * 4), b_bytes = static_cast<long>(ldb * 4);
  start_tiles<kM, kN>(c, ldc, accumulate);
  for (std::int64_t k = 0; k < words; k += 16) {
    _tile_loadd(6, b + k * ldb, b_bytes);
    _tile_loadd(4, a + k, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kN == 2) {
      _tile_loadd(7, b + k * ldb + 16, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kM == 2) {
      _tile_loadd(5, a + 16 * lda + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kN == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  store_tiles<kM, kN>(c, ldc);
}

// One band of kM tile rows across all columns: A comes from the L2 cache once and from the L1 for
// every further pair of columns.
template <int kM>
ATTUNE_INLINE void tile_band(std::int64_t columns, std::int64_t words, const float* a,
                             std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                             std::int64_t ldc, bool accumulate) {
  std::int64_t n = 0;
  for (; n + 32 <= columns; n += 32) {
    tile_block<kM, 2>(words, a, lda, b + n, ldb, c + n, ldc, accumulate);
  }
  if (n < columns) tile_block<kM, 1>(words, a, lda, b + n, ldb, c + n, ldc, accumulate);
}

// Panels of 64 queries: each tile of K and V that comes from the L2 meets four tiles of queries.
struct AmxArith : Bf16Forms<64, 16, 16> {
  using Session = TileSession;
  static ATTUNE_INLINE std::int64_t deep_floats(std::int64_t count, std::int64_t n) {
    return count / 2 * columns_of(n);
  }
  // [count][n] -> [n][count], count a multiple of 32.
  static ATTUNE_INLINE AOperand pack_deep(const float* packed_rows, std::int64_t count,
                                          std::int64_t n, float* out) {
    const auto* source = reinterpret_cast<const std::uint16_t*>(packed_rows);
    const std::int64_t ld = 2 * pitch(n), out_ld = count / 2;
    for (std::int64_t j = 0; j < count; j += 2 * kLanes) {
      for (std::int64_t c = 0; c < columns_of(n); c += kLanes) {
        F x[kLanes];
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) {
          const std::uint16_t* row = source + (j + 2 * r) * ld + c;
          const U low = __builtin_convertvector(load<H>(row), U);
          const U high = __builtin_convertvector(load<H>(row + ld), U);
          x[r] = as_f(low | (high << 16));
        }
        transpose(x);
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(out + (c + r) * out_ld + j / 2, x[r]);
      }
    }
    return deep_operand(out, count, n);
  }
  static ATTUNE_INLINE AOperand deep_operand(const float* packed, std::int64_t count,
                                             std::int64_t /*n*/) {
    return {packed, count / 2, 1};
  }
  static ATTUNE_INLINE AOperand deep_from(AOperand a, std::int64_t key) {
    return {a.data + key / 2, a.m_stride, 1};
  }
  // Not inlined, and fenced: GCC's tile loads do not say that they read memory.
  static __attribute__((noinline)) void gemm_rows(std::int64_t rows, std::int64_t columns,
                                                  std::int64_t words, AOperand a, const float* b,
                                                  std::int64_t ldb, float* c, std::int64_t ldc,
                                                  bool accumulate) {
    __asm__ volatile("" ::: "memory");
    std::int64_t m = 0;
    for (; m + 32 <= rows; m += 32) {
      tile_band<2>(columns, words, a.data + m * a.m_stride, a.m_stride, b, ldb, c + m * ldc, ldc,
                   accumulate);
    }
    if (m < rows) {
      tile_band<1>(columns, words, a.data + m * a.m_stride, a.m_stride, b, ldb, c + m * ldc, ldc,
                   accumulate);
    }
  }
  static void gemm_deep(std::int64_t rows, std::int64_t columns, std::int64_t depth, AOperand a,
                        const float* b, std::int64_t ldb, float* c, std::int64_t ldc) {
    gemm_rows(rows, columns, depth / 2, a, b, ldb, c, ldc, true);
  }
};

}  // namespace attune::cpu::ATTUNE_ISA
