#include "launch/tensor_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstdint>

namespace attune::cuda {

namespace {

// The engine knows no type of 8 bits but bytes, and copies alone.
int type_of(kernel::Element element) {
  if (element == kernel::Element::f8e4m3) return kTensorMapU8;
  return element == kernel::Element::bf16 ? kTensorMapBf16 : kTensorMapF16;
}

}  // namespace

Status describe_tensor(const Driver& driver, const BoxedTensor& tensor, const std::string& id) {
  if (driver.tensor_map == nullptr) {
    return {
        Code::unsupported,
        fmt::format("{}: {} (CUDA {}.{}) has no cuTensorMapEncodeTiled; it comes with the driver "
                    "of CUDA 12",
                    id, driver.path, driver.version / 1000, driver.version % 1000 / 10)};
  }
  constexpr std::array<std::uint32_t, 4> kNeighbours = {1, 1, 1, 1};
  const Result result =
      driver.tensor_map(tensor.map, type_of(tensor.element), 4, tensor.data, tensor.sizes.data(),
                        tensor.strides.data(), tensor.box.data(), kNeighbours.data(), 0,
                        kTensorMapSwizzle128, kTensorMapPromote256, 0);
  if (result == kSuccess) return {};
  return status_of(driver, result,
                   fmt::format("{}: describing {} at {} to the copy engine: sizes {}, strides {} "
                               "bytes, from the innermost on",
                               id, tensor.name, fmt::ptr(tensor.data),
                               fmt::join(tensor.sizes, " x "), fmt::join(tensor.strides, ", ")));
}

}  // namespace attune::cuda
