// Descriptions of tensors for the copy engine, made by the driver on the host.
#pragma once

#include <attune/status.hpp>
#include <string>

#include "launch/driver.h"
#include "plan/forward_hopper.h"

namespace attune::cuda {

// Writes tensor.map. Rows arrive in panels of 128 bytes, chunks exchanged as wgmma reads them; what lies
// outside of the tensor arrives as zeros. `id` names the kernel in an error.
[[nodiscard]] Status describe_tensor(const Driver& driver, const BoxedTensor& tensor,
                                     const std::string& id);

}  // namespace attune::cuda
