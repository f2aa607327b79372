// The metadata that Triton keeps beside each compiled kernel, <kernel>.json in its cache: how to launch
// it. It says nothing of the kernel's arguments.
#pragma once

#include <attune/status.hpp>
#include <string>
#include <string_view>

#include "cubin/target.h"
#include "wrap/kernel.h"

namespace attune::wrap {

struct TritonMetadata {
  std::string name;  // the kernel's symbol
  Target target;     // without a variant: the file next to it knows
  LaunchShape launch;
};

// Fields that are not known are none of our business. Refused, with the line and the field: no kernel of
// NVIDIA's, numbers that no GPU has, fields of the wrong type.
[[nodiscard]] Expected<TritonMetadata> parse_triton_metadata(std::string_view text);

}  // namespace attune::wrap
