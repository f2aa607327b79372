#include "tests/gpu/judge_rows.h"

#include <fmt/format.h>

#include "tests/support/device_under_test.h"
#include "tests/support/flags.h"
#include "tests/support/judge.h"

namespace attune::testing {

std::vector<KernelSpec> hopper_rows(const std::function<bool(const kernel::HopperSpec&)>& takes) {
  std::vector<KernelSpec> found;
  for (const KernelSpec& spec : available_kernels()) {
    if (spec.family == Family::hopper && takes(spec.hopper)) found.push_back(spec);
  }
  return found;
}

std::string judge_rows(const std::vector<KernelSpec>& rows, const Problem& problem,
                       Tensors& tensors, const std::string& title, int* judged) {
  if (const Status status = validate(problem); !status.ok()) return status.message();
  if (const Status status = check(problem, tensors.arguments()); !status.ok()) {
    return status.message();
  }
  std::vector<KernelSpec> serving;
  for (const KernelSpec& row : rows) {
    const bool serves = row.dtype == problem.dtype && device_under_test().serves(row, problem);
    if (serves) serving.push_back(row);
  }
  if (serving.empty()) return {};
  const Expected<Reference> reference = make_reference(problem, tensors);
  if (!reference) return reference.status().message();
  std::string wrong;
  for (const KernelSpec& row : serving) {
    ++*judged;
    set_current_case(fmt::format("{}: {}", id_of(row), title));
    const std::string found = run_and_compare(problem, tensors, *reference, row, 1);
    if (!found.empty()) wrong += fmt::format("\n  {}\n    {}", id_of(row), found);
  }
  return wrong.empty() ? wrong : title + wrong;
}

}  // namespace attune::testing
