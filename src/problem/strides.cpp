#include "problem/strides.h"

#include <algorithm>
#include <array>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace attune {
namespace {

// |INT64_MIN| has no int64: one less is as far out of reach.
std::int64_t magnitude(std::int64_t stride) {
  if (stride == std::numeric_limits<std::int64_t>::min()) {
    return std::numeric_limits<std::int64_t>::max();
  }
  return stride < 0 ? -stride : stride;
}

}  // namespace

std::optional<Reach> reach_of(const Extents& shape, const Extents& strides, int rank,
                              std::int64_t element_bytes) {
  Reach reach;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
    if (shape[axis] <= 1) continue;
    std::int64_t step = 0;
    if (__builtin_mul_overflow(shape[axis] - 1, strides[axis], &step)) return std::nullopt;
    std::int64_t& end = step < 0 ? reach.first : reach.last;
    if (__builtin_add_overflow(end, step, &end)) return std::nullopt;
  }
  std::int64_t span = 0;
  std::int64_t bytes = 0;
  if (__builtin_sub_overflow(reach.last, reach.first, &span) ||
      __builtin_add_overflow(span, std::int64_t{1}, &span) ||
      __builtin_mul_overflow(span, element_bytes, &bytes)) {
    return std::nullopt;
  }
  return reach;
}

bool overlaps_itself(const Extents& shape, const Extents& strides, int rank) {
  std::array<std::pair<std::int64_t, std::int64_t>, kMaxRank> dims{};  // |stride|, extent
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
    if (shape[axis] == 0) return false;
    if (shape[axis] > 1) dims[axis] = {magnitude(strides[axis]), shape[axis]};
  }
  std::sort(dims.begin(), dims.end());
  std::int64_t span = 1;  // elements from the first to the last of the smaller strides
  for (const auto& [stride, extent] : dims) {
    if (extent <= 1) continue;  // unused, or never stepped along
    if (stride < span) return true;
    std::int64_t step = 0;
    if (__builtin_mul_overflow(extent - 1, stride, &step) ||
        __builtin_add_overflow(span, step, &span)) {
      span = std::numeric_limits<std::int64_t>::max();
    }
  }
  return false;
}

std::int64_t row_alignment(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  std::uint64_t bits = kMostRowAlignment;
  if (view.rank < 1 || view.rank > kMaxRank || view.elements() == 0) return kMostRowAlignment;
  const auto last = static_cast<std::size_t>(view.rank) - 1;
  if (view.shape[last] > 1 && view.strides[last] != 1) return size;
  for (std::size_t axis = 0; axis < last; ++axis) {
    // Wraps around for strides past 2^63 bytes, which keep their lowest bits all the same.
    if (view.shape[axis] > 1)
      bits |= static_cast<std::uint64_t>(view.strides[axis]) * static_cast<std::uint64_t>(size);
  }
  return static_cast<std::int64_t>(bits & (~bits + 1));
}

bool bias_is_aligned(const TensorView& bias) {
  if (bias.elements() == 0) return true;
  if (reinterpret_cast<std::uintptr_t>(bias.data) % kMostRowAlignment != 0) return false;
  if (row_alignment(bias) < kMostRowAlignment) return false;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(bias.rank); ++axis) {
    if (bias.shape[axis] > 1 && bias.strides[axis] <= 0) return false;
  }
  return true;
}

Extents resolve_strides(const Extents& shape, const Extents& strides, int rank) {
  const bool unset = std::all_of(strides.begin(), strides.end(), [](auto s) { return s == 0; });
  return unset ? contiguous_strides(shape, rank) : strides;
}

bool same_strides(const Extents& shape, const Extents& a, const Extents& b, int rank) {
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
    if (shape[axis] > 1 && a[axis] != b[axis]) return false;
  }
  return true;
}

}  // namespace attune
