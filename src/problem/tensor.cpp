#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <attune/tensor.hpp>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

namespace attune {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

// A hostile rank must not walk past the arrays.
int safe_rank(int rank) { return std::clamp(rank, 0, kMaxRank); }

// a * b for a, b >= 0, stopping at INT64_MAX.
std::int64_t saturating_product(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kMax : product;
}

}  // namespace

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::boolean:
      return "bool";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
    case DType::f8e4m3:
      return "f8e4m3";
  }
  return "unknown dtype";
}

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::boolean:
    case DType::u8:
    case DType::f8e4m3:
      return 1;
  }
  return 1;
}

std::int64_t TensorView::elements() const {
  if (empty()) return 0;
  std::int64_t n = 1;
  for (int axis = 0; axis < safe_rank(rank); ++axis) {
    const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
    if (extent <= 0) return 0;
    n = saturating_product(n, extent);
  }
  return n;
}

TensorView TensorView::contiguous(const void* data, DType dtype,
                                  std::initializer_list<std::int64_t> shape) {
  assert(shape.size() <= kMaxRank);
  TensorView view;
  view.data = const_cast<void*>(data);
  view.dtype = dtype;
  view.rank = safe_rank(static_cast<int>(shape.size()));
  std::copy_n(shape.begin(), view.rank, view.shape.begin());
  view.strides = contiguous_strides(view.shape, view.rank);
  return view;
}

std::array<std::int64_t, kMaxRank> contiguous_strides(
    const std::array<std::int64_t, kMaxRank>& shape, int rank) {
  std::array<std::int64_t, kMaxRank> strides{};
  std::int64_t stride = 1;
  for (int axis = safe_rank(rank); axis-- > 0;) {
    const auto at = static_cast<std::size_t>(axis);
    strides[at] = stride;
    stride = saturating_product(stride, std::max<std::int64_t>(shape[at], 1));
  }
  return strides;
}

std::string to_string(const TensorView& view) {
  const int rank = safe_rank(view.rank);
  std::string text = fmt::format("{}[{}]", to_string(view.dtype),
                                 fmt::join(view.shape.begin(), view.shape.begin() + rank, ", "));
  const auto row_major = contiguous_strides(view.shape, rank);
  bool same = true;
  for (int axis = 0; axis < rank; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    // The stride of an extent of 1 or 0 is never used.
    same = same && (view.shape[at] <= 1 || view.strides[at] == row_major[at]);
  }
  if (!same) {
    text += fmt::format(" strides ({})",
                        fmt::join(view.strides.begin(), view.strides.begin() + rank, ", "));
  }
  return text;
}

}  // namespace attune
