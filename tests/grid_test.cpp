// The numeric grid: thousands of random Problems, each on every kernel that this machine can run,
// judged by the oracle. Repeat one with
//   attune_tests --gtest_filter='*KernelGrid*' --grid-first=SEED --grid-count=1
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "tests/support/device_under_test.h"
#include "tests/support/flags.h"
#include "tests/support/judge.h"
#include "tests/support/random.h"
#include "tests/support/random_problem.h"
#include "tests/support/scalar.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr std::uint64_t kChunk = 100;
constexpr int kMostFailures = 5;  // in one chunk, then it stops

Distribution distribution_for(std::uint64_t seed) {
  Random random(seed ^ 0xD157B0u);
  return random.pick<Distribution>({Distribution::normal, Distribution::normal,
                                    Distribution::outliers, Distribution::equal,
                                    Distribution::large, Distribution::masked, Distribution::masked,
                                    Distribution::poison, Distribution::poison});
}

// Whether a result is too large for its dtype: then nobody can store it.
bool overflows(const Tensors& tensors, const oracle::Result& exact) {
  for (const Tensors::Output& output : tensors.outputs()) {
    const double limit = 0.9 * largest(output.memory->view().dtype);
    for (const double value : exact.*output.result) {
      if (std::isfinite(value) && std::fabs(value) > limit) return true;
    }
  }
  return false;
}

// Empty, or everything that is wrong with this seed.
std::string check_seed(std::uint64_t seed) {
  Problem problem = random_problem(seed);
  // Pages have no gradient on a GPU.
  if (on_gpu() && problem.kind == Kind::backward && problem.page_size > 0) {
    problem = random_problem(seed, Kind::forward);
  }
  // Few rows serve many features: none of Hopper's, and of a table's part hardly one.
  if (on_gpu()) {
    const std::uint64_t every = device_under_test().has_whole_table() ? 2 : 4;
    if (seed % every != 0) problem = plainer(problem, seed / every);
  }
  const std::string text = print(problem);
  if (const Status status = validate(problem); !status.ok()) {
    return fmt::format("{}\n    validate: {}", text, status.message());
  }
  const Expected<Problem> parsed = parse(text);
  if (!parsed || !(*parsed == problem)) return text + "\n    parse(print(p)) is another Problem";

  if (!skip_reason(problem).empty()) return {};

  Distribution distribution = distribution_for(seed);
  for (int attempt = 0;; ++attempt) {
    const std::string title = fmt::format("seed {} {}: {}", seed, to_string(distribution), text);
    set_current_case(title);
    Tensors tensors(problem, distribution, seed);
    if (const Status status = check(problem, tensors.arguments()); !status.ok()) {
      return fmt::format("{}\n    check: {}", title, status.message());
    }
    const Expected<Reference> reference = make_reference(problem, tensors);
    if (!reference) return fmt::format("{}\n    oracle: {}", title, reference.status().message());
    if (attempt == 0 && overflows(tensors, reference->exact)) {
      distribution = Distribution::normal;
      continue;
    }
    const int threads = 1 + static_cast<int>(seed % 3);
    const std::string wrong = judge_all(problem, tensors, *reference, threads, title);
    return wrong.empty() ? wrong : title + wrong;
  }
}

std::uint64_t chunks() { return (flags().grid_count + kChunk - 1) / kChunk; }

class KernelGrid : public ::testing::TestWithParam<std::uint64_t> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KernelGrid);

TEST_P(KernelGrid, MatchesTheOracle) {
  if (on_gpu() && !no_gpu().empty()) GTEST_SKIP() << no_gpu();
  const std::uint64_t first = flags().grid_first + GetParam() * kChunk;
  const std::uint64_t end = std::min(first + kChunk, flags().grid_first + flags().grid_count);
  int failures = 0;
  for (std::uint64_t seed = first; seed < end && failures < kMostFailures; ++seed) {
    const std::string wrong = check_seed(seed);
    if (wrong.empty()) continue;
    ++failures;
    ADD_FAILURE() << wrong;
    if (on_gpu() && !no_gpu().empty()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Chunk, KernelGrid, ::testing::Range(std::uint64_t{0}, chunks()));

TEST(KernelGridItself, HasAKernelOfEveryKindAndDType) {
  for (const Kind kind : {Kind::forward, Kind::backward}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      if (on_gpu() && !no_gpu().empty()) GTEST_SKIP() << no_gpu();
      EXPECT_FALSE(available_kernels(kind, dtype).empty()) << to_string(dtype);
    }
  }
  EXPECT_TRUE(on_gpu() || !available_kernels(Kind::forward, DType::f8e4m3).empty());
}

}  // namespace
}  // namespace attune::testing
