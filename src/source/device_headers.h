// The device code, as text inside the library: an installed program compiles kernels without a
// source tree.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace attune {

struct DeviceHeader {
  const char* name;  // as #include <...> says it: "attune/params.h"
  const char* text;
};

// Every header below kernels/, sorted by name. Written by cmake/Embed.cmake at build time.
[[nodiscard]] std::span<const DeviceHeader> device_headers();

// Those that a unit includes, directly or through others, sorted by name: all that it is compiled
// with, so what else changes leaves it as it is.
[[nodiscard]] std::vector<DeviceHeader> headers_of(std::string_view unit);

}  // namespace attune
