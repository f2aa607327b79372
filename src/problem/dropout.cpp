#include "problem/dropout.h"

#include <cmath>

namespace attune {

DropoutThreshold dropout_threshold(double probability) {
  const auto p = static_cast<float>(probability);
  const auto kept = [p](std::uint64_t word) {
    return static_cast<float>(static_cast<std::uint32_t>(word)) * 0x1p-32f + 0x1p-33f > p;
  };
  std::uint64_t low = 0, high = std::uint64_t{1} << 32;  // the answer lies in [low, high]
  while (low < high) {
    const std::uint64_t middle = (low + high) / 2;
    if (kept(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return {static_cast<std::uint32_t>(low), low >> 32 != 0};
}

std::uint8_t largest_kept_byte(double probability) {
  const float keeps = 1.0F - static_cast<float>(probability);
  return static_cast<std::uint8_t>(std::floor(static_cast<double>(keeps) * 255.0));
}

}  // namespace attune
