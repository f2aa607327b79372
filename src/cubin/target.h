// What a cubin is compiled for: an architecture as the compilers name it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace attune {

// sm_80, sm_90a, sm_100f.
struct Target {
  int arch = 80;     // 10 * major + minor
  char variant = 0;  // 'a': this architecture only; 'f': its family only; 0: any later minor too
  friend bool operator==(const Target&, const Target&) = default;
  friend auto operator<=>(const Target&, const Target&) = default;  // NOLINT: no null pointer here
};

[[nodiscard]] std::string to_string(const Target& target);  // "sm_90a"
[[nodiscard]] std::optional<Target> target_from(std::string_view name);

// Whether a device of compute capability `device` (10 * major + minor) runs cubins for `target`:
// the same major and no later minor; with a variant, that architecture alone.
[[nodiscard]] bool runs_on(const Target& target, int device);

}  // namespace attune
