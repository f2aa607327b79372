#include "host/device_facts.h"

#include <array>
#include <charconv>
#include <string>
#include <system_error>

namespace attune {

namespace {

constexpr std::int64_t kKiB = 1024;
constexpr std::int64_t kMiB = 1024 * kKiB;

// Shared memory: CUDA Programming Guide 13.0, "Technical Specifications per Compute Capability",
// maximum per thread block. SMs and L2: of the device named.
const auto& table() {
  static const std::array devices = {
      DeviceFacts{75, "T4", 64 * kKiB, 40, 4 * kMiB},
      DeviceFacts{80, "A100", 163 * kKiB, 108, 40 * kMiB},
      DeviceFacts{86, "A10", 99 * kKiB, 72, 6 * kMiB},
      DeviceFacts{87, "Jetson Orin", 163 * kKiB, 16, 4 * kMiB},
      DeviceFacts{89, "L40S", 99 * kKiB, 142, 96 * kMiB},
      DeviceFacts{90, "H200", 227 * kKiB, 132, 60 * kMiB},
      DeviceFacts{100, "B200", 227 * kKiB, 148, 126 * kMiB},
      DeviceFacts{103, "B300", 227 * kKiB, 148, 126 * kMiB},
      DeviceFacts{110, "Jetson Thor", 227 * kKiB, 20, 32 * kMiB},
      DeviceFacts{120, "RTX 5090", 99 * kKiB, 170, 96 * kMiB},
      DeviceFacts{121, "GB10", 99 * kKiB, 48, 24 * kMiB},
  };
  return devices;
}

std::string known_names() {
  std::string names;
  for (const DeviceFacts& device : table()) {
    if (!names.empty()) names += ", ";
    names += "sm_" + std::to_string(device.arch);
  }
  return names;
}

}  // namespace

std::span<const DeviceFacts> known_devices() { return table(); }

Expected<DeviceFacts> device_of(std::string_view arch) {
  std::string_view digits = arch;
  if (digits.starts_with("sm")) digits.remove_prefix(2);
  if (digits.starts_with("_")) digits.remove_prefix(1);
  if (digits.ends_with("a") || digits.ends_with("f")) digits.remove_suffix(1);
  int number = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, number);
  if (error == std::errc{} && stop == end) {
    for (const DeviceFacts& device : table()) {
      if (device.arch == number) return device;
    }
  }
  return Status{Code::invalid_argument, "arch = " + std::string(arch.substr(0, 40)) +
                                            " is not known here; known: " + known_names()};
}

}  // namespace attune
