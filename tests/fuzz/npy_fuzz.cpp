// Whatever parse_npy accepts must survive being written and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "io/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tensor = attune::parse_npy(std::as_bytes(std::span(data, size)), "x");
  if (!tensor.ok()) {
    if (tensor.status().ok() || tensor.status().message().empty()) std::abort();
    return 0;
  }
  const auto bytes = attune::format_npy(*tensor);
  if (!bytes.ok()) std::abort();
  const auto again = attune::parse_npy(*bytes, "x");
  if (!again.ok() || again->dtype != tensor->dtype || again->shape != tensor->shape ||
      again->data != tensor->data) {
    std::abort();
  }
  return 0;
}
