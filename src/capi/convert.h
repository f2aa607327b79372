// C structs <-> C++ values.
#pragma once

#include <attune/attune.h>

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/attention.hpp>
#include <attune/plan.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <cstring>
#include <string>

namespace attune::capi {

// A struct of any age: fields that the caller's version lacks read as zero, and those that ours
// lacks are left alone.
template <typename Struct>
[[nodiscard]] Expected<Struct> take(const Struct* given, const char* name) {
  if (given == nullptr) return Status(Code::invalid_argument, std::string(name) + " is NULL");
  if (given->struct_size < sizeof(std::size_t)) {
    return Status(Code::invalid_argument,
                  std::string(name) + ".struct_size = " + std::to_string(given->struct_size) +
                      "; set it to the sizeof its struct");
  }
  Struct mine;
  std::memset(&mine, 0, sizeof(mine));
  std::memcpy(&mine, given, std::min(given->struct_size, sizeof(mine)));
  return mine;
}

[[nodiscard]] TensorView to_view(const attune_tensor& tensor);
[[nodiscard]] Arguments to_arguments(const attune_arguments& arguments);
[[nodiscard]] PlanOptions to_plan_options(const attune_plan_options& options);
[[nodiscard]] Expected<AttentionOptions> to_options(const attune_attention_options& options);
[[nodiscard]] BackwardTensors to_backward(const attune_backward_tensors& tensors);

}  // namespace attune::capi
