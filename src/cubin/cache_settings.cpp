// Where the disk cache lies and how large it may grow, from the environment.
#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "cubin/disk_cache.h"
#include "host/environment.h"
#include "host/notice.h"

namespace attune {

namespace {

constexpr std::uint64_t kDefaultLimit = std::uint64_t{1} << 30;

}  // namespace

std::optional<std::filesystem::path> default_cache_folder() {
  if (const auto folder = environment("ATTUNE_CACHE_DIR")) return *folder;
  // Relative paths are to be ignored, says the XDG base directory specification.
  if (const auto base = environment("XDG_CACHE_HOME"); base && base->front() == '/') {
    return std::filesystem::path(*base) / "attune";
  }
  if (const auto home = environment("HOME")) {
    return std::filesystem::path(*home) / ".cache" / "attune";
  }
  return std::nullopt;
}

std::optional<std::uint64_t> bytes_from(std::string_view text) {
  int shift = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'K':
        shift = 10;
        break;
      case 'M':
        shift = 20;
        break;
      case 'G':
        shift = 30;
        break;
      default:
        break;
    }
  }
  if (shift != 0) text.remove_suffix(1);
  std::uint64_t bytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (bytes > std::numeric_limits<std::uint64_t>::max() >> shift) return std::nullopt;
  return bytes << shift;
}

std::uint64_t default_cache_limit() {
  const auto text = environment("ATTUNE_CACHE_LIMIT");
  if (!text) return kDefaultLimit;
  if (const auto bytes = bytes_from(*text)) return *bytes;
  notice(
      fmt::format("ATTUNE_CACHE_LIMIT = \"{}\" is no number of bytes, such as 500M or 2G; the "
                  "limit is 1G",
                  *text));
  return kDefaultLimit;
}

std::unique_ptr<DiskCache> default_cache() {
  const auto folder = default_cache_folder();
  const std::uint64_t limit = default_cache_limit();
  return folder && limit > 0 ? std::make_unique<DiskCache>(*folder, limit) : nullptr;
}

}  // namespace attune
