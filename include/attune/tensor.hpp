// TensorView: a pointer with dtype, shape and strides. It owns nothing.
#pragma once

#include <attune/export.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace attune {

// f32, f16, bf16 and, forward, f8e4m3 are what attention computes on; the others describe masks, lengths
// and files. f8e4m3 is OCP's E4M3 (E4M3FN): 1 sign, 4 exponent and 3 mantissa bits, steps of 2^-9 below
// 2^-6, NaN = 0x7f and 0xff, no infinities; what is beyond 448 becomes 448 of its sign.
enum class DType : std::uint8_t { f32, f16, bf16, f64, boolean, i32, i64, u8, f8e4m3 };

[[nodiscard]] ATTUNE_API std::string_view to_string(
    DType dtype);  // "f32", "f16", "bf16", "f8e4m3", "bool" ...
[[nodiscard]] ATTUNE_API std::size_t size_of(DType dtype);  // bytes

inline constexpr int kMaxRank = 4;

struct ATTUNE_API TensorView {
  void* data = nullptr;  // inputs are never written through it
  DType dtype = DType::f32;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};    // logical order, e.g. [B, S, H, D]
  std::array<std::int64_t, kMaxRank> strides{};  // in elements; 0 repeats, negative walks back

  // True when the tensor was not given at all.
  [[nodiscard]] bool empty() const { return data == nullptr && rank == 0; }
  [[nodiscard]] std::int64_t elements() const;

  // A row-major view. Precondition: at most kMaxRank extents.
  [[nodiscard]] static TensorView contiguous(const void* data, DType dtype,
                                             std::initializer_list<std::int64_t> shape);
};

// Row-major strides of a shape; extents of 0 count as 1 so that strides stay meaningful.
[[nodiscard]] ATTUNE_API std::array<std::int64_t, kMaxRank> contiguous_strides(
    const std::array<std::int64_t, kMaxRank>& shape, int rank);

// "f32[2, 1024, 8, 64]" and, when not row-major, " strides (...)".
[[nodiscard]] ATTUNE_API std::string to_string(const TensorView& view);

}  // namespace attune
