// The environment variables that Attune reads: all of them, in one table. docs/environment.md is the
// same table for readers, and the test docs.readme compares the two.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace attune {

struct EnvironmentVariable {
  std::string_view name;  // a literal, so it ends with a 0
  std::string_view values;
  std::string_view meaning;
};

// Attune's own variables.
[[nodiscard]] std::span<const EnvironmentVariable> environment_variables();

// The value of a variable; nothing when it is unset or empty. `name` ends with a 0.
[[nodiscard]] std::optional<std::string> environment(std::string_view name);

}  // namespace attune
