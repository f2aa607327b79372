// What forward and backward jobs are filled from: the Problem once, the Arguments at each run.
#pragma once

#include <attune/arguments.hpp>
#include <attune/executor.hpp>
#include <attune/problem.hpp>
#include <cstddef>
#include <cstdint>

#include "cpu/job.h"
#include "spec/kernel_spec.h"

namespace attune::cpu {

[[nodiscard]] const KernelSet* kernel_set(Isa isa);
[[nodiscard]] Element element_of(DType dtype);

// Everything that the Problem alone decides, key_block included.
void fill_from_problem(const Problem& problem, Isa isa, AttentionJob* job);

// Pointers and strides; `sequences` receives problem.b entries.
void fill_from_arguments(const Problem& problem, const Arguments& arguments, Sequence* sequences,
                         AttentionJob* job);

[[nodiscard]] Strided strided(const TensorView& view, bool packed);

// Workspaces are laid out by adding pieces, each on a 64-byte boundary.
class Layout {
 public:
  std::size_t add(std::int64_t count, std::size_t element_bytes) {
    const std::size_t at = used_;
    used_ = (used_ + static_cast<std::size_t>(count) * element_bytes + 63) / 64 * 64;
    return at;
  }
  [[nodiscard]] std::size_t bytes() const { return used_; }

 private:
  std::size_t used_ = 0;
};

// Hands tasks 0 .. count - 1 to workers in order; call(task, worker).
template <typename Call>
void for_each_task(const Executor& executor, int threads, std::int64_t count, const Call& call);

// The same for tasks that may run in any order: each worker starts with a stretch of neighbouring
// tasks, which share keys and caches, and then helps the others.
template <typename Call>
void for_each_chunked(const Executor& executor, int threads, std::int64_t count, const Call& call);

// Zeroes (or sets to `value`, for f32) rows [first, last) of dimension 1 of a 4-D tensor.
void fill_rows(const TensorView& view, std::int64_t first, std::int64_t last, float value);

// What belongs to no sequence: o and LSE rows past the last one of a packed tensor, and LSE padding.
void fill_unowned_lse(const Problem& problem, const TensorView& lse, const Sequence* sequences);
void fill_unowned_tokens(const Problem& problem, const TensorView& view, const Sequence* sequences);

}  // namespace attune::cpu

#include "cpu/job_setup.inl.h"
