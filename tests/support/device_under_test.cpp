#include "tests/support/device_under_test.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "problem/strides.h"
#include "tests/support/random.h"

namespace attune::testing {
namespace {

std::unique_ptr<DeviceUnderTest>& the_device() {
  static std::unique_ptr<DeviceUnderTest> device;
  return device;
}

}  // namespace

void judge_on(std::unique_ptr<DeviceUnderTest> device) { the_device() = std::move(device); }
bool on_gpu() { return the_device() != nullptr; }
DeviceUnderTest& device_under_test() { return *the_device(); }
std::string no_gpu() { return device_under_test().missing(); }

Problem for_gpu(Problem problem, std::string_view salt, const Arguments& arguments) {
  Random random(std::hash<std::string_view>{}(salt));
  problem.device = Device::cuda;
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  problem.alignment = random.pick<std::int64_t>({16, 16, 16, 16, 8, size});
  for (const TensorView* view :
       {&arguments.grad_o, &arguments.grad_q, &arguments.grad_k, &arguments.grad_v}) {
    problem.alignment = std::min(problem.alignment, row_alignment(*view));
  }
  return problem;
}

}  // namespace attune::testing
