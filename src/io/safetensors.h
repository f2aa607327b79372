// The .safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
//
// Read:    F32 F16 BF16 F64 F8_E4M3 BOOL I32 I64 U8, any number of tensors, and the text metadata.
// Refused: other dtypes (by name), and every header that contradicts itself or the file: sizes
//          other than shape and dtype give, bytes that overlap, belong to no tensor or lie past
//          the end, names twice, a header over 100 MB, JSON that is malformed or nested too deep.
// Written: tensors sorted by name, the header padded by spaces to a multiple of 8 bytes.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/tensor.h"

namespace attune {

using Metadata = std::map<std::string, std::string>;

struct Safetensors {
  std::vector<Tensor> tensors;  // in the order of their bytes in the file
  Metadata metadata;            // the header's "__metadata__"
};

// The contents of a whole file. Never allocates more than a small multiple of the bytes given.
[[nodiscard]] Expected<Safetensors> parse_safetensors(std::span<const std::byte> bytes);
// The bytes of a file.
[[nodiscard]] Expected<AlignedBytes> format_safetensors(std::span<const Tensor> tensors,
                                                        const Metadata& metadata = {});

// The same from and to a file; errors begin with the path.
[[nodiscard]] Expected<Safetensors> read_safetensors(const std::filesystem::path& path);
[[nodiscard]] Status write_safetensors(const std::filesystem::path& path,
                                       std::span<const Tensor> tensors,
                                       const Metadata& metadata = {});

}  // namespace attune
