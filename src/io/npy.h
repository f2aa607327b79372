// NumPy's .npy format, versions 1.0, 2.0 and 3.0.
//
// Read:    <f4 <f2 <f8 |b1 <i4 <i8 |u1, in C or Fortran order (the result is row-major).
// Refused: big-endian data, structured dtypes, every other dtype, bytes missing or left over.
// Written: version 1.0, C order. NumPy has neither bfloat16 nor float8, so bf16 and f8e4m3 are stored as
//          float32, which holds each of them exactly; reading such a file gives an f32 tensor.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "io/tensor.h"

namespace attune {

// The array in the bytes of a whole .npy file. Never allocates more than twice their number.
[[nodiscard]] Expected<Tensor> parse_npy(std::span<const std::byte> bytes, std::string name = {});
// The bytes of a .npy file.
[[nodiscard]] Expected<AlignedBytes> format_npy(const Tensor& tensor);

// The same from and to a file; errors begin with the path. The name is the file's stem.
[[nodiscard]] Expected<Tensor> read_npy(const std::filesystem::path& path);
[[nodiscard]] Status write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace attune
