#include "problem/lengths.h"

#include <algorithm>
#include <cstdint>

namespace attune {
namespace {

std::int64_t at(const TensorView& view, std::int64_t index) {
  return static_cast<const std::int32_t*>(view.data)[index * view.strides[0]];
}

}  // namespace

Sequence sequence(const Problem& problem, const Arguments& arguments, std::int64_t b) {
  Sequence s{.q_start = 0, .sq = problem.sq, .k_start = 0, .sk = problem.sk};
  if (problem.packed_q) {
    s.q_start = at(arguments.cu_seqlens_q, b);
    s.sq = at(arguments.cu_seqlens_q, b + 1) - s.q_start;
  }
  if (problem.packed_k) {
    s.k_start = at(arguments.cu_seqlens_k, b);
    s.sk = at(arguments.cu_seqlens_k, b + 1) - s.k_start;
  }
  if (problem.key_lengths) s.sk = at(arguments.key_lengths, b);
  return s;
}

Interval attended(const Mask& mask, std::int64_t i, std::int64_t sq, std::int64_t sk) {
  // |offset| <= 2^62 and the lengths stay below 2^31, so the diagonal cannot overflow.
  std::int64_t c = i + mask.offset;
  if (mask.diagonal == Diagonal::bottom_right) c += sk - sq;

  std::int64_t first = 0;
  if (mask.left >= 0) first = std::max<std::int64_t>(c, 0) - mask.left;

  std::int64_t last = sk - 1;
  if (mask.causal) last = std::min(last, c);
  // A side may be INT64_MAX: compare it with what is left of the keys before adding it.
  if (mask.right >= 0 && mask.right < sk - 1 - c) last = std::min(last, c + mask.right);

  return {.lo = std::clamp<std::int64_t>(first, 0, sk),
          .hi = std::clamp<std::int64_t>(last + 1, 0, sk)};
}

}  // namespace attune
