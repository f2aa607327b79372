// What selection and planning know about a GPU: plain data, so that they work for any device by
// name, on machines that have none.
#pragma once

#include <attune/status.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace attune {

struct DeviceFacts {
  int arch = 0;                       // compute capability, 10 * major + minor
  std::string name;                   // "NVIDIA H200"
  std::int64_t shared_per_block = 0;  // bytes that one block may ask for
  int sms = 0;                        // multiprocessors
  std::int64_t l2_bytes = 0;
  friend bool operator==(const DeviceFacts&, const DeviceFacts&) = default;
};

// One device of each architecture, newest last: shared memory is the architecture's, SMs and L2 are
// those of the device named.
[[nodiscard]] std::span<const DeviceFacts> known_devices();

// "sm_86", "sm86" or "86", with or without a letter behind it -> that architecture's device.
[[nodiscard]] Expected<DeviceFacts> device_of(std::string_view arch);

}  // namespace attune
