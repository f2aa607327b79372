// What the readers of a program's parts share: fields with the right types, errors with line and path.
#pragma once

#include <fmt/format.h>

#include <array>
#include <attune/status.hpp>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "wrap/expression.h"
#include "wrap/json_tree.h"
#include "wrap/kernel.h"

namespace attune::wrap {

// Collects the first thing that is wrong. Every function answers something harmless after that, so that
// readers run to their end.
class Reading {
 public:
  [[nodiscard]] const Status& status() const { return status_; }

  // "12: steps[3].grid: why"
  void refuse(const JsonNode& node, std::string_view path, std::string_view why);

  // Whether it is an object whose fields are all known.
  bool object(const JsonNode& node, std::string_view path,
              std::initializer_list<std::string_view> known);
  bool object(const JsonNode& node, std::string_view path);
  // The field, or null after saying that it is missing.
  const JsonNode* required(const JsonNode& node, std::string_view path, std::string_view name);

  std::string text(const JsonNode& node, std::string_view path);
  std::string identifier(const JsonNode& node, std::string_view path);
  void check_identifier(const JsonNode& node, std::string_view path, std::string_view name);
  bool flag(const JsonNode& node, std::string_view path);
  std::int64_t integer(const JsonNode& node, std::string_view path, std::int64_t least,
                       std::int64_t most);
  std::int64_t integer_or(const JsonNode& object, std::string_view path, std::string_view name,
                          std::int64_t least, std::int64_t most, std::int64_t standard);
  bool flag_or(const JsonNode& object, std::string_view path, std::string_view name, bool standard);
  // A whole number, or a text that is an expression.
  Expression expression(const JsonNode& node, std::string_view path);
  std::vector<Expression> expressions(const JsonNode& node, std::string_view path,
                                      std::size_t most);
  // One to three; the rest is 1.
  std::array<Expression, 3> grid(const JsonNode& node, std::string_view path);
  std::array<std::int64_t, 3> extents(const JsonNode& node, std::string_view path,
                                      std::int64_t most);
  Element element(const JsonNode& node, std::string_view path);
  HostFunction function(const JsonNode& node, std::string_view path);

 private:
  Status status_;
};

// "steps[3]" + "grid" -> "steps[3].grid"
[[nodiscard]] std::string in(std::string_view path, std::string_view field);
[[nodiscard]] std::string in(std::string_view path, std::size_t index);

// A word that C++ or the generated text uses for itself.
[[nodiscard]] bool is_reserved(std::string_view word);

[[nodiscard]] Kernel read_kernel(Reading& reading, const JsonField& field);

}  // namespace attune::wrap
