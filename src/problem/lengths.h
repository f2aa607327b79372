// Where each sequence of a batch lies, and which keys a query attends to. Not inline on purpose:
// the CPU kernels are compiled once per instruction set and must share no inline code.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <cstdint>

namespace attune {

// Rows of sequence b. The starts count tokens inside the tensor's own token dimension: 0 unless
// packed (a dense tensor is indexed by b, a paged one through its page table).
struct Sequence {
  std::int64_t q_start = 0;
  std::int64_t sq = 0;
  std::int64_t k_start = 0;
  std::int64_t sk = 0;
};

// Reads cu_seqlens_q, cu_seqlens_k and key_lengths where the Problem has them.
// Precondition: check(problem, arguments) is ok and 0 <= b < problem.b.
[[nodiscard]] Sequence sequence(const Problem& problem, const Arguments& arguments, std::int64_t b);

// Keys [lo, hi), with 0 <= lo <= hi <= sk.
struct Interval {
  std::int64_t lo = 0;
  std::int64_t hi = 0;
};

// The keys that causal, window and offset leave to query i of a sequence of sq queries and sk keys.
// Both ends never decrease as i grows, so the first row's lo and the last row's hi bound a block.
// Precondition: the mask and the lengths are within the limits of validate(), 0 <= i < sq.
[[nodiscard]] Interval attended(const Mask& mask, std::int64_t i, std::int64_t sq, std::int64_t sk);

}  // namespace attune
