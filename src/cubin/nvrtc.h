// NVRTC, the run-time compiler, loaded when it is first needed: the library does not link it.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cubin/target.h"

namespace attune {

struct NvrtcLibrary {
  std::string path;
  int major = 0, minor = 0;
  std::vector<Target> targets;
};

// Loads it on the first call; every later one answers the same.
[[nodiscard]] const Expected<NvrtcLibrary>& nvrtc_library();

enum class NvrtcOutput : std::uint8_t { cubin, ptx };

// Precondition: nvrtc_library() is ok. Errors are the compiler's log alone.
[[nodiscard]] Expected<std::vector<std::byte>> nvrtc_compile(
    const std::string& source, const std::string& file_name, const std::vector<std::string>& flags,
    NvrtcOutput output = NvrtcOutput::cubin);

}  // namespace attune
