#include "cubin/target.h"

#include <charconv>

namespace attune {

std::string to_string(const Target& target) {
  std::string text = "sm_" + std::to_string(target.arch);
  if (target.variant != 0) text += target.variant;
  return text;
}

std::optional<Target> target_from(std::string_view name) {
  constexpr std::string_view kPrefix = "sm_";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  Target target;
  if (name.ends_with('a') || name.ends_with('f')) {
    target.variant = name.back();
    name.remove_suffix(1);
  }
  if (name.size() < 2 || name.size() > 3 || name.front() < '1') return std::nullopt;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), target.arch);
  if (error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return target;
}

bool runs_on(const Target& target, int device) {
  // A family's cubins also run on some later minors; which ones is not a rule but a list, so they
  // count as this architecture's own.
  if (target.variant != 0) return target.arch == device;
  return target.arch / 10 == device / 10 && target.arch <= device;
}

}  // namespace attune
