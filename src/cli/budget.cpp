#include "cli/budget.h"

#include <fmt/format.h>

#include "source/translation_unit.h"

namespace attune::cli {
namespace {

constexpr int kRegistersOfAnSm = 65536;
constexpr int kWarp = 32;
// A warp is given registers in pieces of this many.
constexpr int kRegisterPiece = 256;

}  // namespace

std::vector<std::string> broken_budgets(const KernelSpec& spec, const CubinFacts& facts) {
  std::vector<std::string> broken;
  const BlockShape shape = block_shape(spec);
  if (facts.local_bytes > 0) {
    broken.push_back(
        fmt::format("{} bytes of local memory a thread: registers were spilled, or an "
                    "array is indexed at run time",
                    facts.local_bytes));
  }
  const int registers = static_cast<int>(facts.registers);
  const int a_warp = (registers * kWarp + kRegisterPiece - 1) / kRegisterPiece * kRegisterPiece;
  const int needed = a_warp * (shape.threads / kWarp) * shape.blocks_an_sm;
  if (needed > kRegistersOfAnSm) {
    broken.push_back(fmt::format(
        "{} registers a thread: {} blocks of {} threads need {}, and a multiprocessor has {}",
        registers, shape.blocks_an_sm, shape.threads, needed, kRegistersOfAnSm));
  }
  if (static_cast<int>(facts.max_threads) != shape.threads) {
    broken.push_back(fmt::format("made for blocks of {} threads and launched with {}",
                                 facts.max_threads, shape.threads));
  }
  if (static_cast<int>(facts.parameter_bytes) != shape.parameter_bytes) {
    broken.push_back(fmt::format("takes {} bytes of parameters; the host hands over {}",
                                 facts.parameter_bytes, shape.parameter_bytes));
  }
  return broken;
}

}  // namespace attune::cli
