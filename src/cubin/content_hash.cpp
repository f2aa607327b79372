#include "cubin/content_hash.h"

// Inline, so that the library needs no libxxhash at run time.
#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace attune {

std::string content_hash(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

ContentHash& ContentHash::add(std::string_view text) {
  lengths_and_texts_ += std::to_string(text.size());
  lengths_and_texts_ += ':';
  lengths_and_texts_ += text;
  return *this;
}

std::string ContentHash::text() const {
  return content_hash(std::as_bytes(std::span(lengths_and_texts_)));
}

}  // namespace attune
