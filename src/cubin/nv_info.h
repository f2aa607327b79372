// Records of a cubin's .nv.info sections: format, attribute, and a 16-bit value or the size of what
// follows. NVIDIA documents none of it; the numbers are those that cuobjdump -elf prints by name.
#pragma once

#include <fmt/format.h>

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "cubin/elf.h"

namespace attune {

inline constexpr std::uint16_t kCudaMachine = 190;
inline constexpr std::string_view kText = ".text.";  // begins the names of kernels' sections

// A parameter: index (32 bits), ordinal (16), offset (16), flags and, from bit 18 on, bytes.
inline constexpr unsigned kParameter = 0x17;
inline constexpr std::uint64_t kParameterPlaceAt = 4, kParameterBytesAt = 8;
inline constexpr unsigned kParameterBytesShift = 18;

struct NvInfoRecord {
  unsigned attribute = 0;
  std::uint16_t value = 0;
  std::span<const std::byte> data;
};

[[nodiscard]] inline Status contradicts_itself(const std::string& why) {
  return {Code::io_error, "is a cubin that contradicts itself: " + why};
}

// The file, if it is one of CUDA's.
[[nodiscard]] inline Expected<ElfFile> read_cubin(std::span<const std::byte> cubin) {
  auto elf = read_elf(cubin);
  if (elf.ok() && elf->machine != kCudaMachine) {
    return contradicts_itself(
        fmt::format("it is for machine {}, not for CUDA ({})", elf->machine, kCudaMachine));
  }
  return elf;
}

template <typename F>
[[nodiscard]] Status each_record(const ElfSection& section, F&& f) {
  constexpr unsigned kSized = 4;
  const auto bytes = section.data;
  for (std::uint64_t at = 0; at < bytes.size();) {
    const auto head = number_at<std::uint32_t>(bytes, at);
    if (!head) return contradicts_itself(fmt::format("{} ends within a record", section.name));
    at += sizeof(*head);
    NvInfoRecord record{*head >> 8 & 0xff, static_cast<std::uint16_t>(*head >> 16), {}};
    if ((*head & 0xff) == kSized) {
      if (bytes.size() - at < record.value) {
        return contradicts_itself(
            fmt::format("a record of {} is longer than the section", section.name));
      }
      record.data = bytes.subspan(at, record.value);
      at += record.value;
    }
    f(record);
  }
  return {};
}

}  // namespace attune
