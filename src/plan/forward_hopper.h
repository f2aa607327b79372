// Planning of the Hopper forward kernel. Pure: descriptions of tensors for the copy engine are made of
// boxes by whoever launches it.
#pragma once

#include <attune/params.h>

#include <array>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "plan/grid.h"
#include "select/hopper_cost.h"
#include "select/hopper_mates.h"
#include "spec/kernel_spec.h"

namespace attune {

struct HopperPlan {
  kernel::HopperSpec spec;
  std::vector<KernelLaunch> launches;  // in order; none when no output has an element
  std::size_t workspace_bytes = 0;     // on the device, 256-byte aligned
  kernel::ForwardParams params{};      // all that the Problem decides
  std::uint32_t pairs = 0;             // of tiles, see HopperParams
  ClusterShape shape;                  // of a split row
  Mates mates = Mates::none;
};

// Precondition: the row serves the Problem on this device.
[[nodiscard]] Expected<HopperPlan> plan_forward_hopper(const Problem& problem,
                                                       const KernelSpec& spec,
                                                       const DeviceFacts& device);

// A tensor and the boxes that are copied of it. Dimensions from the innermost on:
// columns, heads, rows, sequences.
struct BoxedTensor {
  const char* name = "";
  kernel::TensorMap* map = nullptr;  // in the parameters
  void* data = nullptr;
  std::array<std::uint64_t, 4> sizes{};
  std::array<std::uint64_t, 3> strides{};  // bytes, of all but columns
  std::array<std::uint32_t, 4> box{};
  kernel::Element element = kernel::Element::bf16;
};

class BoxedTensors {
 public:
  void add(const BoxedTensor& tensor) { tensors_[count_++] = tensor; }
  BoxedTensor* begin() { return tensors_.data(); }
  BoxedTensor* end() { return tensors_.data() + count_; }

 private:
  static constexpr std::size_t kMost = 4;  // q, k, v, bias
  std::array<BoxedTensor, kMost> tensors_;
  std::size_t count_ = 0;
};

// The parameters of one run but for the descriptions of q, k and v. Allocates nothing. Precondition:
// check_views(problem, arguments) is ok; `workspace` is device memory of plan.workspace_bytes.
[[nodiscard]] kernel::HopperParams complete(const HopperPlan& plan, const Problem& problem,
                                            const Arguments& arguments, void* workspace);
[[nodiscard]] BoxedTensors boxes(const HopperPlan& plan, const Problem& problem,
                                 kernel::HopperParams& params);

// One fact a line, for explain().
[[nodiscard]] std::string describe(const HopperPlan& plan);

}  // namespace attune
