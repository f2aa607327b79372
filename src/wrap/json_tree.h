// JSON whose every value knows its line: errors point at what they are about.
#pragma once

#include <attune/status.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attune::wrap {

struct Place {
  int line = 0;  // from 1; 0: nowhere
};

struct JsonField;

struct JsonNode {
  enum class Kind : std::uint8_t { null, boolean, integer, real, text, array, object };
  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;  // of integers too
  std::string text;
  std::vector<JsonNode> elements;  // of an array
  std::vector<JsonField> fields;   // of an object, in the file's order
  Place place;

  [[nodiscard]] const JsonNode* field(std::string_view name) const;
};

struct JsonField {
  std::string name;
  Place place;
  JsonNode value;
};

// "an object", "the number 5", "the text \"x\"".
[[nodiscard]] std::string describe(const JsonNode& node);

// Refused with "12: ...", the line: what is no JSON, names twice in an object, whole numbers past 64 bits,
// more than 64 levels or 10,000 fields of an object.
[[nodiscard]] Expected<JsonNode> parse_json(std::string_view text);

// "12: message".
[[nodiscard]] Status at(const Place& place, std::string_view message);

}  // namespace attune::wrap
