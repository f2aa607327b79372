#include "tests/launch/fixture.h"

#include <array>
#include <set>
#include <sstream>
#include <utility>

#include "problem/shapes.h"

namespace attune::testing {

namespace {

constexpr std::array kDevices = {
    StandInDevice{},
    StandInDevice{.arch = 89, .shared_per_block = 101376, .sms = 142, .l2_bytes = 96 << 20}};

}  // namespace

void Launching::SetUp() {
  stand_in().set_current(nullptr);
  stand_in().renew_primaries();
  stand_in().reset(kDevices.data(), static_cast<int>(kDevices.size()));
}

void Launching::TearDown() {
  memory_.clear();
  EXPECT_EQ(stand_in().allocated(), 0U) << "bytes of device memory were not given back";
  stand_in().set_current(nullptr);
}

Problem Launching::problem(const std::string& words) {
  const bool backward = words.rfind("backward ", 0) == 0;
  const Expected<Problem> parsed = parse((backward ? "" : "forward ") + words + " device=cuda");
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  return parsed.ok() ? *parsed : Problem{};
}

Arguments Launching::arguments(const Problem& problem, int device) {
  Arguments arguments;
  for (const TensorSpec& spec : tensors_of(problem)) {
    if (spec.role == Role::unused) continue;
    TensorView view = row_major_view(spec);
    if (spec.strides != nullptr && *spec.strides != Problem::Strides{})
      view.strides = *spec.strides;
    const auto bytes = static_cast<std::size_t>(view.elements()) * size_of(view.dtype);
    Expected<cuda::DeviceBuffer> buffer = cuda::DeviceBuffer::allocate(device, bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    view.data = buffer->data();
    memory_.push_back(std::move(buffer).value());
    arguments.*spec.view = view;
  }
  forget();
  return arguments;
}

Plan Launching::plan(const Problem& problem, int device) {
  PlanOptions options;
  options.device_index = device;
  Expected<Plan> made = make_plan(problem, options);
  EXPECT_TRUE(made.ok()) << made.status().message();
  forget();
  return std::move(made).value();
}

std::vector<std::string> Launching::calls() {
  const std::set<std::string> questions = {"cuDeviceGet", "cuDeviceGetAttribute",
                                           "cuDeviceGetCount", "cuCtxGetId",
                                           "cuTensorMapEncodeTiled"};
  std::istringstream log(stand_in().log());
  std::vector<std::string> found;
  for (std::string line; std::getline(log, line);) {
    if (questions.count(line) == 0) found.push_back(line);
  }
  return found;
}

void Launching::forget() { stand_in().reset(kDevices.data(), static_cast<int>(kDevices.size())); }

}  // namespace attune::testing
