// PNG files, 8 bits a channel.
#pragma once

#include <attune/status.hpp>
#include <cstdint>
#include <filesystem>
#include <span>

namespace attune {

// Writes an image of width x height pixels. rgb: 3 bytes a pixel, rows from the top, no padding;
// exactly width * height * 3 bytes. Refused: sides outside 1 ... 1,000,000, another number of
// bytes, and what the file system refuses; errors name the path, and nothing is left behind.
[[nodiscard]] Status write_png(const std::filesystem::path& path, int width, int height,
                               std::span<const std::uint8_t> rgb);

}  // namespace attune
