// Triton's metadata and compiled kernels: any bytes are read or refused, and nothing else happens.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "wrap/binary_reader.h"
#include "wrap/triton_metadata.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attune::wrap;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto metadata = parse_triton_metadata(text);
  if (metadata.ok()) {
    const auto& launch = metadata->launch;
    const bool sane = launch.block[0] >= 32 && launch.block[0] <= 1024 &&
                      launch.shared_bytes >= 0 && launch.cluster[0] >= 1 &&
                      launch.global_scratch_bytes >= 0;
    if (!sane) std::abort();
  } else if (metadata.status().message().empty()) {
    std::abort();
  }
  Binary binary;
  binary.symbol = "scale";
  binary.launch.block = {128, 1, 1};
  binary.bytes.assign(reinterpret_cast<const std::byte*>(data),
                      reinterpret_cast<const std::byte*>(data) + size);
  const attune::Status status = read_binary(binary);
  if (!status.ok() && status.message().empty()) std::abort();
  return 0;
}
