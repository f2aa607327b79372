// Programs for `attune wrap`: any text is read or refused with a line; what is read is checked, and its
// expressions mean the same when they are printed and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "wrap/program_reader.h"
#include "wrap/temporaries.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void same_again(const attune::wrap::Expression& expression) {
  const auto again = attune::wrap::parse_expression(attune::wrap::to_text(expression));
  require(again.ok());
  require(attune::wrap::to_text(*again) == attune::wrap::to_text(expression));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attune::wrap;
  const auto program = parse_program({reinterpret_cast<const char*>(data), size});
  if (!program.ok()) {
    // "12: ..."
    const std::string_view message = program.status().message();
    require(!message.empty() && message.front() >= '0' && message.front() <= '9');
    return 0;
  }
  for (const TensorDeclaration& tensor : program->tensors) {
    for (const Expression& extent : tensor.shape) same_again(extent);
  }
  const attune::Status status = check_program(*program);
  if (!status.ok()) {
    require(!status.message().empty());
    return 0;
  }
  const TemporaryNeeds needs = needs_of_temporaries(*program);
  const WorkspacePlan plan = plan_workspace(*program, needs.needs);
  for (std::size_t a = 0; a < needs.needs.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const bool meet = needs.needs[a].first <= needs.needs[b].last &&
                        needs.needs[b].first <= needs.needs[a].last;
      require(!meet || plan.slot_of[a] != plan.slot_of[b]);
    }
  }
  return 0;
}
