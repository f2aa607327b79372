// Compiling a row of the table: by NVRTC, by nvcc, and what is said when it fails. Skipped, with the
// reason, where a compiler is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cubin/elf.h"
#include "cubin/toolchain.h"
#include "source/translation_unit.h"
#include "spec/kernel_spec.h"

namespace attune {
namespace {

// A row that runs on `device` and compiles quickly.
KernelSpec row_for(int device) {
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family != Family::portable || spec.portable.head_dim != 64) continue;
    const ArchRange range = spec.archs;
    if (spec.dtype == DType::bf16 && range.begin <= device && device < range.end) return spec;
  }
  ADD_FAILURE() << "the table has no row for sm_" << device;
  return {};
}

class CompileTest : public testing::TestWithParam<Compiler> {
 protected:
  void SetUp() override {
    const auto found = find_toolchain(GetParam());
    if (!found.ok()) GTEST_SKIP() << found.status().message();
    toolchain_ = *found;
  }
  Toolchain toolchain_;
};

TEST_P(CompileTest, MakesACubinWhoseFactsAreThoseOfTheRow) {
  for (const int arch : {75, 80, 90}) {
    const KernelSpec spec = row_for(arch);
    const auto target = target_for(toolchain_, arch);
    ASSERT_TRUE(target.ok()) << target.status().message();
    const auto cubin = compile(source_for(spec), id_of(spec), *target, toolchain_);
    ASSERT_TRUE(cubin.ok()) << cubin.status().message();
    EXPECT_GT(cubin->facts.registers, 0U);
    EXPECT_EQ(cubin->facts.max_threads, block_shape(spec).threads);
    EXPECT_GT(cubin->facts.parameter_bytes, 100U);
    EXPECT_GT(cubin->facts.code_bytes, 0U);
  }
}

TEST_P(CompileTest, GivesTheCompilersLogWithTheId) {
  const auto cubin = compile("#include <attune/nowhere.h>\n", "fwd.some.id", {80, 0}, toolchain_);
  ASSERT_FALSE(cubin.ok());
  const std::string& message = cubin.status().message();
  EXPECT_NE(message.find("fwd.some.id does not compile for sm_80"), std::string::npos) << message;
  EXPECT_NE(message.find("attune/nowhere.h"), std::string::npos) << message;
}

TEST_P(CompileTest, RefusesATargetThatNobodyKnows) {
  const auto cubin = compile("", "fwd.some.id", {42, 0}, toolchain_);
  ASSERT_FALSE(cubin.ok());
  EXPECT_NE(cubin.status().message().find("sm_42"), std::string::npos);
}

TEST_P(CompileTest, RefusesAUnitWithoutTheKernel) {
  const auto cubin =
      compile("extern \"C\" __global__ void other() {}\n", "fwd.some.id", {80, 0}, toolchain_);
  ASSERT_FALSE(cubin.ok());
  EXPECT_NE(cubin.status().message().find("attune_kernel"), std::string::npos)
      << cubin.status().message();
}

TEST_P(CompileTest, TakesArchitecturesWithASuffix) {
  const std::string source = "extern \"C\" __global__ void attune_kernel(int* p) { *p = 1; }\n";
  const auto cubin = compile(source, "fwd.some.id", {90, 'a'}, toolchain_);
  ASSERT_TRUE(cubin.ok()) << cubin.status().message();
  EXPECT_EQ(cubin->facts.parameter_bytes, 8U);
}

// Compiled together, kernels are what they are alone: the same instructions, in each generation of PTX.
TEST(CompileTogether, GivesWhatEachAloneGives) {
  const auto toolchain = find_toolchain(Compiler::nvrtc);
  if (!toolchain.ok()) GTEST_SKIP() << toolchain.status().message();
  const KernelSpec spec = row_for(80);
  std::vector<Target> targets = {{80, 0}, {89, 0}, {90, 0}, {100, 0}, {120, 0}};
  std::erase_if(targets, [&](const Target& target) {
    return std::ranges::find(toolchain->targets, target) == toolchain->targets.end();
  });
  const auto together = compile_for(source_for(spec), id_of(spec), targets, *toolchain);
  ASSERT_EQ(together.size(), targets.size());
  const std::string section = ".text." + std::string(kEntryName);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const auto alone = compile(source_for(spec), id_of(spec), targets[i], *toolchain);
    ASSERT_TRUE(alone.ok() && together[i].ok()) << together[i].status().message();
    EXPECT_EQ(alone->facts, together[i]->facts);
    const auto first = read_elf(alone->bytes);
    const auto second = read_elf(together[i]->bytes);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_TRUE(std::ranges::equal(first->section(section)->data, second->section(section)->data))
        << to_string(targets[i]);
  }
}

TEST(CompileTogether, EachTargetFailsByItself) {
  const auto toolchain = find_toolchain(Compiler::nvrtc);
  if (!toolchain.ok()) GTEST_SKIP() << toolchain.status().message();
  const auto cubins = compile_for("no C++\n", "fwd.some.id", {{80, 0}, {90, 0}}, *toolchain);
  ASSERT_EQ(cubins.size(), 2U);
  EXPECT_NE(cubins[0].status().message().find("does not compile for sm_80"), std::string::npos);
  EXPECT_NE(cubins[1].status().message().find("does not compile for sm_90"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Compilers, CompileTest, testing::Values(Compiler::nvrtc, Compiler::nvcc),
                         [](const auto& test) {
                           return test.param == Compiler::nvrtc ? "nvrtc" : "nvcc";
                         });

TEST(Target, TextIsTheIdentity) {
  for (const char* name : {"sm_75", "sm_90", "sm_90a", "sm_100f", "sm_121"}) {
    const auto target = target_from(name);
    ASSERT_TRUE(target) << name;
    EXPECT_EQ(to_string(*target), name);
  }
  for (const char* name : {"", "sm_", "sm_9", "sm_090", "sm_90b", "90", "sm_1234", "sm_9 0",
                           "sm_-90", "sm_a", "compute_90"}) {
    EXPECT_FALSE(target_from(name)) << name;
  }
}

TEST(Target, RunsOnLaterMinorsOfTheSameMajor) {
  EXPECT_TRUE(runs_on({80, 0}, 80));
  EXPECT_TRUE(runs_on({80, 0}, 86));
  EXPECT_TRUE(runs_on({86, 0}, 89));
  EXPECT_FALSE(runs_on({86, 0}, 80));
  EXPECT_FALSE(runs_on({80, 0}, 90));
  EXPECT_TRUE(runs_on({100, 0}, 103));
  EXPECT_FALSE(runs_on({100, 0}, 120));
  EXPECT_TRUE(runs_on({90, 'a'}, 90));
  EXPECT_FALSE(runs_on({100, 'a'}, 103));
}

TEST(Target, TheClosestEarlierMinorServesADeviceThatTheCompilerDoesNotKnow) {
  const Toolchain toolchain{Compiler::nvrtc, "NVRTC 12.0", "", {{80, 0}, {86, 0}, {90, 0}}};
  EXPECT_EQ(target_for(toolchain, 89)->arch, 86);
  EXPECT_EQ(target_for(toolchain, 80)->arch, 80);
  const auto none = target_for(toolchain, 121);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().message(),
            "NVRTC 12.0 compiles for no architecture that runs on sm_121; it knows sm_80, sm_86, "
            "sm_90");
}

}  // namespace
}  // namespace attune
