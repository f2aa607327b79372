// Names of the generated text.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "wrap/program.h"

namespace attune::wrap {

// Letters, digits and single _, that C++ and the generated text do not use for something else.
[[nodiscard]] std::string as_identifier(std::string_view name);

// Names that differ from each other.
class Names {
 public:
  [[nodiscard]] std::string unique(std::string_view name);

 private:
  std::set<std::string> taken_;
};

// "rms_block" -> "RmsBlock"; "BLOCK" for macros.
[[nodiscard]] std::string as_type(std::string_view name);
[[nodiscard]] std::string as_macro(std::string_view name);

// As a C string literal, quotes and all.
[[nodiscard]] std::string as_literal(std::string_view text);
// Without what would end a comment or continue it on the next line.
[[nodiscard]] std::string as_comment(std::string_view text);

// 0.5F, 1e-06F; 0.5
[[nodiscard]] std::string as_float(double value);
[[nodiscard]] std::string as_double(double value);

// An expression over `s`, the program's sizes.
[[nodiscard]] std::string over_sizes(const Expression& expression);
// "{s.B, 512}"; "{1}" for none, as arrays have an element.
[[nodiscard]] std::string list_over_sizes(const std::vector<Expression>& list);

}  // namespace attune::wrap
