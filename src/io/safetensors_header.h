// The JSON header of a .safetensors file.
#pragma once

#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes from the end of the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Every entry of the result lies inside the data, has the size of its shape and dtype, and they
// cover the data without gap or overlap, in order. Unknown fields of a tensor are passed over,
// as the format's own reader does. May throw std::bad_alloc.
[[nodiscard]] Expected<SafetensorsHeader> parse_safetensors_header(std::string_view json,
                                                                   std::uint64_t data_size);

// Its text, without padding. Refused: a name that readers take for the metadata ("__metadata__"),
// and names and metadata that are not UTF-8.
[[nodiscard]] Expected<std::string> format_safetensors_header(const SafetensorsHeader& header);

}  // namespace attune
