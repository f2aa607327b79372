// Reading at an offset with a known size, and replacing a file in one step.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace attune {

// Bytes of a known number, in memory or in a file, so that one parser serves both: it can hold
// every length that a header claims against `size` before it allocates.
struct ByteSource {
  std::uint64_t size = 0;
  // Fills `into` from `offset`. Precondition: offset + into.size() <= size.
  std::function<Status(std::uint64_t offset, std::span<std::byte> into)> read_at;
};

// Valid while `bytes` is.
[[nodiscard]] ByteSource memory_source(std::span<const std::byte> bytes);

// Refused when there is no such file, or it is not a regular file. Errors carry no path:
// the caller, who adds one to parse errors too, uses in_file().
[[nodiscard]] Expected<ByteSource> file_source(const std::filesystem::path& path);

// A whole file of at most `most` bytes. Errors begin with the path.
[[nodiscard]] Expected<std::vector<std::byte>> read_file(const std::filesystem::path& path,
                                                         std::uint64_t most = UINT64_MAX);

// The status with "path: " before its message; ok stays ok.
[[nodiscard]] Status in_file(const std::filesystem::path& path, const Status& status);

// Writes the parts one after another to a temporary file in the same folder, then renames it over
// `path`. Symbolic links are followed; whatever is not a regular file is refused. After a failure
// the old file is as it was and no other is left. Errors begin with the path. Does not wait for the
// disk (no fsync).
[[nodiscard]] Status write_file(const std::filesystem::path& path,
                                std::span<const std::span<const std::byte>> parts);

}  // namespace attune
