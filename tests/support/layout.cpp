#include "tests/support/layout.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace attune::testing {
namespace {

// Strides when the axes are stored in `order` (outermost first) with `gap` extra elements after each
// run of the axis inside, and `step` between the elements of the innermost one.
Shape stored(const Shape& shape, const std::array<std::size_t, 4>& order, std::int64_t step,
             std::int64_t gap) {
  Shape strides(4, 0);
  std::int64_t span = step;
  for (std::size_t at = 4; at-- > 0;) {
    const std::size_t axis = order[at];
    strides[axis] = span;
    span = span * std::max<std::int64_t>(shape[axis], 1) + gap;
  }
  return strides;
}

}  // namespace

Shape strides_for(Layout layout, const Shape& shape, Random& random) {
  constexpr std::array<std::size_t, 4> kTokensFirst{0, 1, 2, 3};
  constexpr std::array<std::size_t, 4> kHeadsFirst{0, 2, 1, 3};
  switch (layout) {
    case Layout::row_major:
      return stored(shape, kTokensFirst, 1, 0);
    case Layout::heads_first:
      return stored(shape, kHeadsFirst, 1, 0);
    case Layout::padded:
      return stored(shape, random.chance(0.5) ? kTokensFirst : kHeadsFirst, 1,
                    random.pick<std::int64_t>({1, 3, 5, 16}));
    case Layout::last_stride_two:
      return stored(shape, kTokensFirst, 2, 0);
    case Layout::fused: {
      Shape strides = stored(shape, kTokensFirst, 1, 0);
      strides[1] *= 3;
      strides[0] *= 3;
      return strides;
    }
    case Layout::broadcast_heads: {
      Shape strides = stored({shape[0], shape[1], 1, shape[3]}, kTokensFirst, 1, 0);
      strides[2] = 0;
      return strides;
    }
    case Layout::broadcast_all:
      return {0, 0, 0, 0};
    case Layout::negative: {
      Shape strides = stored(shape, random.chance(0.5) ? kTokensFirst : kHeadsFirst, 1, 0);
      const std::int64_t axes = random.integer(1, 15);
      for (std::size_t axis = 0; axis < 4; ++axis) {
        if (((axes >> axis) & 1) != 0) strides[axis] = -strides[axis];
      }
      return strides;
    }
  }
  return {};
}

Layout random_output_layout(Random& random) {
  return random.pick<Layout>({Layout::row_major, Layout::heads_first, Layout::padded,
                              Layout::last_stride_two, Layout::fused});
}

Layout random_input_layout(Random& random) {
  return random.pick<Layout>({Layout::row_major, Layout::heads_first, Layout::padded,
                              Layout::last_stride_two, Layout::fused, Layout::broadcast_heads,
                              Layout::negative});
}

}  // namespace attune::testing
