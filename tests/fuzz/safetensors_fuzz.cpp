// Whatever parse_safetensors accepts must survive being written and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto contents = attune::parse_safetensors(std::as_bytes(std::span(data, size)));
  if (!contents.ok()) {
    if (contents.status().ok() || contents.status().message().empty()) std::abort();
    return 0;
  }
  const auto bytes = attune::format_safetensors(contents->tensors, contents->metadata);
  if (!bytes.ok()) std::abort();
  const auto again = attune::parse_safetensors(*bytes);
  if (!again.ok() || again->metadata != contents->metadata) std::abort();

  // Written sorted by name; read in the order of the data, where empty tensors may tie.
  const auto by_name = [](const attune::Tensor& a, const attune::Tensor& b) {
    return a.name < b.name;
  };
  const auto equal = [](const attune::Tensor& a, const attune::Tensor& b) {
    return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.data == b.data;
  };
  std::sort(contents->tensors.begin(), contents->tensors.end(), by_name);
  auto sorted = again->tensors;
  std::sort(sorted.begin(), sorted.end(), by_name);
  if (!std::equal(sorted.begin(), sorted.end(), contents->tensors.begin(), contents->tensors.end(),
                  equal)) {
    std::abort();
  }
  return 0;
}
