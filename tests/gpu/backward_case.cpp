#include "tests/gpu/backward_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "problem/shapes.h"
#include "tests/support/on_gpu.h"
#include "tests/support/random.h"
#include "tests/support/scalar.h"

namespace attune::testing {
namespace {

// Ends of b sequences, one after another: each as long as it may be, or half, and what room they leave
// at the end belongs to none.
std::vector<double> ends_of(std::int64_t b, std::int64_t longest, std::int64_t total,
                            Random& random) {
  std::vector<double> ends = {0};
  std::int64_t end = 0;
  for (std::int64_t n = 0; n < b; ++n) {
    end += std::min(random.integer(longest / 2, longest), total - end);
    ends.push_back(static_cast<double>(end));
  }
  return ends;
}

}  // namespace

Problem forward_of(Problem problem) {
  problem.kind = Kind::forward;
  problem.bias.grad = problem.sink_grad = problem.alibi_grad = problem.lse_grad = false;
  problem.deterministic = false;
  return problem;
}

Expected<BackwardCase> BackwardCase::make(const Problem& problem) {
  BackwardCase made;
  made.problem_ = problem;
  if (Status status = made.allocate(); !status.ok()) return status;
  return made;
}

Status BackwardCase::allocate() {
  for (const TensorSpec& spec : tensors_of(problem_)) {
    if (spec.role == Role::unused) continue;
    Tensor tensor{spec.name, row_major_view(spec), spec.role == Role::output, {}};
    const std::size_t bytes =
        static_cast<std::size_t>(tensor.view.elements()) * size_of(tensor.view.dtype);
    Expected<cuda::DeviceBuffer> memory = cuda::DeviceBuffer::allocate(gpu(), bytes);
    if (!memory.ok()) return memory.status();
    tensor.memory = std::move(memory).value();
    tensor.view.data = tensor.memory.data();
    arguments_.*spec.view = tensor.view;
    tensors_.push_back(std::move(tensor));
  }
  if (problem_.dropout == 0) return {};
  Expected<cuda::DeviceBuffer> state = cuda::DeviceBuffer::allocate(gpu(), 16);
  if (!state.ok()) return state.status();
  dropout_state_ = std::move(state).value();
  arguments_.dropout_state = TensorView::contiguous(dropout_state_.data(), DType::i64, {2});
  return {};
}

std::vector<std::byte> BackwardCase::values(const Tensor& tensor, std::uint64_t seed) const {
  Random random(seed);
  const std::string_view name = tensor.name;
  const auto count = static_cast<std::size_t>(tensor.view.elements());
  std::vector<double> values;
  if (name == "cu_seqlens_q") {
    values = ends_of(problem_.b, problem_.sq, problem_.total_q, random);
  } else if (name == "cu_seqlens_k") {
    values = ends_of(problem_.b, problem_.sk, problem_.total_k, random);
  } else {
    values.resize(count);
    for (double& value : values) {
      if (name == "key_lengths") {
        value = static_cast<double>(random.integer(problem_.sk / 2, problem_.sk));
      } else {
        value = name == "alibi_slopes" ? std::exp2(-8 * random.uniform()) : random.normal();
      }
    }
  }
  const std::size_t size = size_of(tensor.view.dtype);
  std::vector<std::byte> bytes(count * size);
  for (std::size_t n = 0; n < count; ++n) {
    store_scalar(&bytes[n * size], tensor.view.dtype, values[n]);
  }
  return bytes;
}

Arguments BackwardCase::forward_arguments() const {
  Arguments arguments;
  arguments.dropout_state = arguments_.dropout_state;
  const Problem forward = forward_of(problem_);
  for (const TensorSpec& spec : tensors_of(forward)) {
    if (spec.role != Role::unused) arguments.*spec.view = arguments_.*spec.view;
  }
  return arguments;
}

Status BackwardCase::draw(std::uint64_t seed) {
  Random seeds(seed);
  for (const Tensor& tensor : tensors_) {
    const std::uint64_t own = seeds.next();
    if (tensor.output || tensor.view.data == arguments_.o.data ||
        tensor.view.data == arguments_.lse.data) {
      continue;
    }
    const std::vector<std::byte> bytes = values(tensor, own);
    if (Status status = tensor.memory.write(bytes.data(), bytes.size()); !status.ok()) {
      return status;
    }
  }
  if (!arguments_.dropout_state.empty()) {
    const std::array<std::int64_t, 2> state = {static_cast<std::int64_t>(seed), 4};
    if (Status status = dropout_state_.write(state.data(), 16); !status.ok()) return status;
  }
  const Expected<Plan> plan = make_plan(forward_of(problem_));
  if (!plan.ok()) return plan.status();
  if (Status status = plan->run(forward_arguments()); !status.ok()) return status;
  return cuda::synchronize(gpu());
}

Status BackwardCase::poison() const {
  for (const Tensor& tensor : tensors_) {
    if (!tensor.output) continue;
    if (Status status = tensor.memory.fill(0xFF); !status.ok()) return status;
  }
  return {};
}

Expected<std::vector<std::byte>> BackwardCase::results() const {
  std::vector<std::byte> all;
  for (const Tensor& tensor : tensors_) {
    if (!tensor.output) continue;
    const std::size_t from = all.size();
    all.resize(from + tensor.memory.size());
    Status status = tensor.memory.read(all.data() + from, tensor.memory.size());
    if (!status.ok()) return status;
  }
  return all;
}

std::string BackwardCase::differences(const std::vector<std::byte>& one,
                                      const std::vector<std::byte>& other) const {
  std::string found;
  std::size_t from = 0;
  for (const Tensor& tensor : tensors_) {
    if (!tensor.output) continue;
    const std::size_t end = from + tensor.memory.size();
    std::size_t count = 0, first = end;
    for (std::size_t at = from; at < end; ++at) {
      if (one[at] == other[at]) continue;
      first = std::min(first, at);
      ++count;
    }
    if (count > 0) {
      found +=
          fmt::format("{}{}: {} of {} bytes differ, from element {} on", found.empty() ? "" : "; ",
                      tensor.name, count, end - from, (first - from) / size_of(tensor.view.dtype));
    }
    from = end;
  }
  return found;
}

}  // namespace attune::testing
