// XXH3-128 of contents, as text. It finds damage and tells versions apart; it is no signature.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace attune {

[[nodiscard]] std::string content_hash(std::span<const std::byte> bytes);  // 32 hex digits

// Of several texts: each is counted with its length, so that ("ab", "c") is not ("a", "bc").
class ContentHash {
 public:
  ContentHash& add(std::string_view text);
  [[nodiscard]] std::string text() const;

 private:
  std::string lengths_and_texts_;
};

}  // namespace attune
