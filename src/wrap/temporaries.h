// Where temporaries lie: one workspace, whose parts are used again when nobody needs what is in them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "wrap/program.h"

namespace attune::wrap {

// Something that needs memory while steps first ... last run.
struct MemoryNeed {
  std::string name;
  Expression bytes;
  std::size_t first = 0, last = 0;
};

struct WorkspacePlan {
  std::vector<Expression> slots;     // bytes of each
  std::vector<std::size_t> slot_of;  // of each need
};

// Two needs share a slot only if one ends before the other begins. A slot is as large as the largest
// that it ever holds, so the expressions fit all sizes; which needs share is decided at typical ones.
[[nodiscard]] WorkspacePlan plan_workspace(const Program& program,
                                           const std::vector<MemoryNeed>& needs);

// The needs of the program's temporaries that some step uses, and for each tensor its need or -1.
struct TemporaryNeeds {
  std::vector<MemoryNeed> needs;
  std::vector<std::ptrdiff_t> need_of;
};
[[nodiscard]] TemporaryNeeds needs_of_temporaries(const Program& program);

}  // namespace attune::wrap
