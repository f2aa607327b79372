#include "cli/work.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>

#include "io/tensor.h"
#include "launch/device_tensor.h"
#include "problem/lengths.h"

namespace attune::cli {
namespace {

constexpr int kDefaultRepeat = 5;
constexpr double kPatience = 1.0;  // seconds

}  // namespace

double attended_pairs(const Problem& problem, const Arguments& arguments) {
  double pairs = 0;
  for (std::int64_t b = 0; b < problem.b; ++b) {
    const Sequence s = sequence(problem, arguments, b);
    for (std::int64_t i = 0; i < s.sq; ++i) {
      const Interval keys = attended(problem.mask, i, s.sq, s.sk);
      pairs += static_cast<double>(keys.hi - keys.lo);
    }
  }
  return pairs * static_cast<double>(problem.hq);
}

double operations(const Problem& problem, double pairs) {
  const auto d = static_cast<double>(problem.d);
  const auto dv = static_cast<double>(problem.dv);
  return pairs * 2 * (problem.kind == Kind::forward ? d + dv : 3 * d + 2 * dv);
}

Problem forward_of(Problem problem) {
  problem.kind = Kind::forward;
  problem.bias.grad = problem.sink_grad = problem.alibi_grad = problem.lse_grad = false;
  return problem;
}

Arguments forward_of(Arguments arguments) {
  for (TensorView Arguments::*gradient :
       {&Arguments::grad_o, &Arguments::grad_lse, &Arguments::grad_q, &Arguments::grad_k,
        &Arguments::grad_v, &Arguments::grad_bias, &Arguments::grad_sink,
        &Arguments::grad_alibi_slopes}) {
    arguments.*gradient = {};
  }
  return arguments;
}

namespace {

// One run of the plan, in seconds.
using Once = std::function<Expected<double>()>;

Expected<Timing> repeat_timed(const Once& once, const Plan& plan, int repeat) {
  const int expected = repeat == 0 ? kDefaultRepeat : repeat;
  Progress progress(plan.problem().kind == Kind::forward ? "forward" : "backward", expected + 1);
  Timing timing;
  const Expected<double> first = once();
  if (!first.ok()) return first.status();
  progress.advance();
  if (repeat == 0 && *first > kPatience) {
    timing.seconds = {*first};
    timing.first_only = true;
    return timing;
  }
  for (int i = 0; i < expected; ++i) {
    const Expected<double> seconds = once();
    if (!seconds.ok()) return seconds.status();
    progress.advance();
    timing.seconds.push_back(*seconds);
  }
  return timing;
}

// Copies the tensors to the plan's GPU, runs there by the GPU's clock, and copies the results back.
Expected<Timing> run_timed_on_device(const Plan& plan, const Arguments& arguments, int repeat) {
  // The lengths and pages of the host's tensors; on the device nobody looks at them before the run.
  Problem on_host = plan.problem();
  on_host.device = Device::cpu;
  if (Status status = check(on_host, arguments); !status.ok()) return status;
  const int device = plan.device_index();
  const auto copy = cuda::DeviceArguments::copy_of(plan.problem(), arguments, device);
  if (!copy.ok()) return copy.status();
  const auto workspace = cuda::DeviceBuffer::allocate(device, plan.workspace_bytes());
  if (!workspace.ok()) return workspace.status();
  const auto watch = cuda::Stopwatch::make(device);
  if (!watch.ok()) return watch.status();
  if (Status status = plan.prepare(); !status.ok()) return status;
  const auto once = [&]() -> Expected<double> {
    if (Status status = watch->start(nullptr); !status.ok()) return status;
    if (Status status = plan.run(copy->arguments(), {workspace->data(), workspace->size()});
        !status.ok()) {
      return status;
    }
    if (Status status = watch->stop(nullptr); !status.ok()) return status;
    return watch->seconds();
  };
  auto timing = repeat_timed(once, plan, repeat);
  if (!timing.ok()) return timing;
  if (Status status = copy->fetch_outputs(); !status.ok()) return status;
  return timing;
}

}  // namespace

Expected<Timing> run_timed(const Plan& plan, const Arguments& arguments, int repeat) {
  if (plan.device_index() >= 0) return run_timed_on_device(plan, arguments, repeat);
  AlignedBytes workspace;
  try {
    workspace.resize(plan.workspace_bytes());
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory for a workspace of " +
                                           std::to_string(plan.workspace_bytes()) + " bytes");
  }
  const auto once = [&]() -> Expected<double> {
    const auto start = std::chrono::steady_clock::now();
    if (Status status = plan.run(arguments, workspace); !status.ok()) return status;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  return repeat_timed(once, plan, repeat);
}

}  // namespace attune::cli
