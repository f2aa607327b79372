// What the stand-in for the driver knows of a module: its kernels, and how many bytes their parameters have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "launch/cuda_types.h"

namespace attune::testing {

struct ModuleImage {
  bool valid = true;
  const char* format = "ELF";  // or "PTX", "fatbin"
  std::map<std::string, std::vector<std::uint32_t>> parameters;
};

// A cubin, PTX, a fatbin of cubins that are not compressed, or something else, of which nothing is known.
// Damaged cubins are not valid.
[[nodiscard]] ModuleImage read_image(const void* bytes);

// "scale grid 2 1 1 block 128 1 1 shared 0 ... | 00112233 44556677"
[[nodiscard]] std::string text_of(const std::string& name, const cuda::LaunchConfig& config,
                                  const ModuleImage& image, void* const* parameters);

}  // namespace attune::testing
