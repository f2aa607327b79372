#include "plan/workspace.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace attune {

Status WorkspaceLayout::add(WorkspacePiece& piece, const char* name, std::int64_t unit,
                            std::initializer_list<std::int64_t> counts) {
  constexpr std::int64_t kAlignment = 256;
  std::int64_t bytes = unit;
  bool fits = true;
  for (const std::int64_t count : counts) {
    fits = fits && !__builtin_mul_overflow(bytes, count, &bytes);
  }
  std::int64_t end = 0;
  if (!fits || __builtin_add_overflow(end_, bytes, &end) ||
      __builtin_add_overflow(end, kAlignment - 1, &end)) {
    return {Code::unsupported,
            fmt::format("the workspace of {} * {} bytes for {} is larger than 2^63 bytes",
                        fmt::join(counts, " * "), unit, name)};
  }
  piece = {name, static_cast<std::size_t>(end_), static_cast<std::size_t>(bytes)};
  end_ = end / kAlignment * kAlignment;
  return {};
}

}  // namespace attune
