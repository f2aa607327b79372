// What a compiled kernel must keep to: read from the cubin, held against the row of the table.
#pragma once

#include <string>
#include <vector>

#include "cubin/cubin_facts.h"
#include "spec/kernel_spec.h"

namespace attune::cli {

// Each way in which the kernel breaks its budget; empty when it keeps it.
[[nodiscard]] std::vector<std::string> broken_budgets(const KernelSpec& spec,
                                                      const CubinFacts& facts);

}  // namespace attune::cli
