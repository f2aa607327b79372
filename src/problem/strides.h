// Arithmetic on strides: how far a view reaches and whether it overlaps itself. Overflow-safe for
// any values.
#pragma once

#include <array>
#include <attune/tensor.hpp>
#include <cstdint>
#include <optional>

namespace attune {

using Extents = std::array<std::int64_t, kMaxRank>;

// Elements reached before and after the first one, [first, last] with first <= 0 <= last, when
// every extent is at least 1.
struct Reach {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Nothing when the reach in bytes does not fit 63 bits. Precondition: 0 <= rank <= kMaxRank.
[[nodiscard]] std::optional<Reach> reach_of(const Extents& shape, const Extents& strides, int rank,
                                            std::int64_t element_bytes);

// True when two different indices may name the same element: some stride is 0 or smaller than what
// the smaller strides span. Views that interleave without overlapping in a way that this rule
// can't see are called overlapping too. Extents of 0 and 1 don't count.
[[nodiscard]] bool overlaps_itself(const Extents& shape, const Extents& strides, int rank);

// Bytes at whose multiples all rows start when the first one does, so far as strides decide it: a row is
// what the last axis spans. A power of two up to kMostRowAlignment; one element's bytes where neighbours
// of a row are not neighbours in memory.
inline constexpr std::int64_t kMostRowAlignment = 16;
[[nodiscard]] std::int64_t row_alignment(const TensorView& view);

// Whether a bias is as Problem's bias.aligned promises: its rows and it itself start at multiples of 16 bytes,
// keys are neighbours, and no stride that counts is 0 or less.
[[nodiscard]] bool bias_is_aligned(const TensorView& bias);

// The strides meant: contiguous ones when all are zero.
[[nodiscard]] Extents resolve_strides(const Extents& shape, const Extents& strides, int rank);

// Same places in memory: extents of 0 and 1 don't count.
[[nodiscard]] bool same_strides(const Extents& shape, const Extents& a, const Extents& b, int rank);

}  // namespace attune
