// What explain() and the table of kernels say as data.
#include <gtest/gtest.h>

#include <attune/kernels.hpp>
#include <attune/plan.hpp>
#include <string>
#include <vector>

#include "spec/kernel_spec.h"

namespace attune {
namespace {

Problem problem(const std::string& text) {
  const Expected<Problem> parsed = parse(text);
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  return parsed.ok() ? *parsed : Problem{};
}

TEST(Explain, CandidatesAreWhatThePlanChoseFrom) {
  const Problem asked = problem("forward dtype=bf16 b=2 hq=4 hkv=2 sq=300 sk=300 d=64");
  const Expected<Plan> plan = make_plan(asked);
  const Expected<Explanation> explained = explain_candidates(asked);
  ASSERT_TRUE(plan.ok() && explained.ok());
  EXPECT_EQ(explained->kernel, plan->kernel());
  EXPECT_EQ(explained->text, plan->explain());
  EXPECT_EQ(explained->problem, plan->problem());
  EXPECT_GT(explained->tile_queries, 0);
  EXPECT_GT(explained->tile_keys, 0);
  EXPECT_TRUE(explained->device.empty());
  bool chosen = false;
  for (const Explanation::Candidate& candidate : explained->candidates) {
    if (candidate.kernel != explained->kernel) continue;
    chosen = true;
    EXPECT_TRUE(candidate.reasons.empty());
  }
  EXPECT_TRUE(chosen);
}

TEST(Explain, ARefusalIsAnExplanation) {
  PlanOptions options;
  options.kernel = "fwd.cpu.bf16.generic";
  const Expected<Explanation> explained = explain_candidates(problem("forward dtype=f32"), options);
  ASSERT_TRUE(explained.ok());
  EXPECT_TRUE(explained->kernel.empty());
  EXPECT_NE(explained->text.find("no kernel serves this problem"), std::string::npos);
  for (const Explanation::Candidate& candidate : explained->candidates) {
    EXPECT_FALSE(candidate.reasons.empty()) << candidate.kernel;
  }
}

TEST(Explain, KnowsTheTileOfAGpuThatIsNotHere) {
  PlanOptions options;
  options.arch = "sm_90";
  const auto explained =
      explain_candidates(problem("forward dtype=bf16 d=128 device=cuda"), options);
  ASSERT_TRUE(explained.ok());
  const std::string tile =
      "q" + std::to_string(explained->tile_queries) + "k" + std::to_string(explained->tile_keys);
  EXPECT_NE(explained->kernel.find(tile), std::string::npos) << explained->kernel;
  EXPECT_FALSE(explained->device.empty());
  EXPECT_EQ(explain_candidates(problem("forward device=cpu"), options).status().code(),
            Code::invalid_argument);
}

TEST(Explain, EveryRowOfTheTableIsListed) {
  const std::vector<KernelInfo> listed = list_kernels();
  const std::vector<KernelSpec>& table = kernel_table();
  ASSERT_EQ(listed.size(), table.size());
  for (std::size_t n = 0; n < table.size(); ++n) {
    EXPECT_EQ(listed[n].id, id_of(table[n]));
    EXPECT_EQ(listed[n].isa.empty(), table[n].family != Family::cpu);
    EXPECT_EQ(listed[n].arch_begin > 0, table[n].family != Family::cpu);
    if (table[n].isa == Isa::generic && table[n].family == Family::cpu) {
      EXPECT_TRUE(listed[n].missing.empty()) << listed[n].missing;
    }
  }
}

}  // namespace
}  // namespace attune
