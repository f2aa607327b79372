// Where bundles are found without being asked for.
#pragma once

#include <vector>

#include "cubin/bundle.h"

namespace attune {

// In the order in which they are looked into: the file that ATTUNE_BUNDLE names, kernels.attune beside
// the library (the program, when the library is part of it), and the one that the build embedded.
// One that cannot be read is said and left out.
[[nodiscard]] std::vector<Bundle> default_bundles();

}  // namespace attune
