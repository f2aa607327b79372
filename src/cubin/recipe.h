// What a compiled kernel is made from. Two cubins with one recipe are interchangeable.
#pragma once

#include <string>

#include "cubin/target.h"
#include "cubin/toolchain.h"
#include "spec/kernel_spec.h"

namespace attune {

struct Recipe {
  std::string id;
  std::string contents;  // hash of the unit and of the device headers that it includes
  Target target;
  std::string compiler;  // with its version and flags

  // Content hash of all of it: the cache's key.
  [[nodiscard]] std::string key() const;
  friend bool operator==(const Recipe&, const Recipe&) = default;
};

// Hash of what is compiled for a spec, whoever compiles it. Cubins of other contents may take other
// parameters, so nothing is launched whose contents are not these.
[[nodiscard]] std::string contents_of(const KernelSpec& spec);

// `target`, as code of the spec needs it: sm_90a for sm_90 where it uses that architecture's own
// instructions.
[[nodiscard]] Target target_of(const KernelSpec& spec, const Target& target);

// For that target.
[[nodiscard]] Recipe recipe_for(const KernelSpec& spec, const Target& target,
                                const Toolchain& toolchain);

}  // namespace attune
