// Words of the text form that other stages read too.
#pragma once

#include <attune/tensor.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace attune {

// The inverse of to_string(DType).
[[nodiscard]] std::optional<DType> dtype_from(std::string_view name);

// `text` in double quotes for a message: unprintable bytes as \x00, cut after `limit` bytes.
[[nodiscard]] std::string quoted(std::string_view text, std::size_t limit = 40);

// The name among `names` that a slip of the keyboard most likely meant; empty when none is near.
template <typename Names>
[[nodiscard]] std::string_view nearest(std::string_view word, const Names& names);

// Letters to insert, delete, replace or swap with a neighbour to get from a to b.
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

template <typename Names>
std::string_view nearest(std::string_view word, const Names& names) {
  std::string_view best;
  std::size_t least = 1 + word.size() / 3;  // farther off is another word
  for (const std::string_view name : names) {
    const std::size_t distance = edit_distance(word, name);
    if (distance < least || (distance == least && best.empty())) {
      least = distance;
      best = name;
    }
  }
  return best;
}

}  // namespace attune
