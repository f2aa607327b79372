#include "cli/png.h"

#include <fmt/format.h>
#include <png.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/no_throw.h"

namespace attune {
namespace {

constexpr int kMaxSide = 1'000'000;  // libpng's own default limit

Expected<std::vector<std::byte>> encode(int width, int height, std::span<const std::uint8_t> rgb) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    return Status(
        Code::invalid_argument,
        fmt::format("an image of {} x {} pixels cannot be written; its sides may be from 1 "
                    "to {}",
                    width, height, kMaxSide));
  }
  const std::size_t wanted =
      std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  if (rgb.size() != wanted) {
    return Status(Code::invalid_argument,
                  fmt::format("an image of {} x {} pixels takes {} bytes, {} were given", width,
                              height, wanted, rgb.size()));
  }
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<std::byte> bytes(size);
  if (png_image_write_to_memory(&image, bytes.data(), &size, 0, rgb.data(), 0, nullptr) == 0) {
    const std::string reason = image.message;
    png_image_free(&image);
    return Status(Code::internal, "libpng cannot write the image: " + reason);
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace

Status write_png(const std::filesystem::path& path, int width, int height,
                 std::span<const std::uint8_t> rgb) {
  return no_throw([&]() -> Status {
    const auto bytes = encode(width, height, rgb);
    if (!bytes.ok()) return in_file(path, bytes.status());
    // Encoded in memory, because libpng's own file writer would leave half a file behind.
    const std::array<std::span<const std::byte>, 1> parts = {*bytes};
    return write_file(path, parts);
  });
}

}  // namespace attune
