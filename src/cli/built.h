// `attune list --built`: the compiled kernels that are within reach, and what each costs.
#pragma once

namespace attune::cli {

[[nodiscard]] int list_built(bool json);

}  // namespace attune::cli
