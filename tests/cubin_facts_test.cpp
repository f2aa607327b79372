// Facts of a cubin: read right from a good one, refused with a reason from a bad one.
#include "cubin/cubin_facts.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "cubin/elf.h"
#include "source/translation_unit.h"
#include "tests/support/cubins.h"
#include "tests/support/random.h"

namespace attune {
namespace {

using testing::fake_cubin;

template <typename T>
void set(std::vector<std::byte>& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

std::string refusal(const std::vector<std::byte>& bytes) {
  const auto facts = read_facts(bytes, kEntryName);
  return facts.ok() ? "" : facts.status().message();
}

TEST(CubinFacts, AreThoseThatWereWritten) {
  const auto facts = read_facts(fake_cubin({.registers = 168,
                                            .shared_bytes = 2048,
                                            .local_bytes = 96,
                                            .parameter_bytes = 512,
                                            .max_threads = 256,
                                            .code_bytes = 5000,
                                            .seed = 1}),
                                kEntryName);
  ASSERT_TRUE(facts.ok()) << facts.status().message();
  EXPECT_EQ(*facts, (CubinFacts{168, 2048, 96, 512, 256, 5000}));
}

TEST(CubinFacts, OfSeveralKernelsAreTheWorst) {
  const auto cubin = [](std::uint32_t parameter_bytes) {
    return testing::fake_cubin_of_several(
        {{"attune_kernel", {.registers = 100, .local_bytes = 0, .code_bytes = 3000}},
         {"attune_kernel_rows",
          {.registers = 60,
           .shared_bytes = 64,
           .local_bytes = 16,
           .parameter_bytes = parameter_bytes,
           .max_threads = 64,
           .code_bytes = 1000}},
         {"attune_kernels", {.registers = 255, .parameter_bytes = 1}}});
  };
  const auto facts = read_facts(cubin(400), kEntryName);
  ASSERT_TRUE(facts.ok()) << facts.status().message();
  EXPECT_EQ(*facts, (CubinFacts{100, 64, 16, 400, 64, 4000}));
  EXPECT_EQ(refusal(cubin(404)),
            "is a cubin that contradicts itself: attune_kernel takes 400 bytes of parameters, and "
            "attune_kernel_rows takes 404");
}

TEST(CubinFacts, NameWhatIsMissing) {
  EXPECT_EQ(refusal({}), "is no ELF file: it has 0 bytes, less than a header");
  EXPECT_EQ(refusal(std::vector<std::byte>(64)), "is no ELF file: it begins with other bytes");
  auto other_machine = fake_cubin({});
  set<std::uint16_t>(other_machine, 0x12, 62);
  EXPECT_EQ(refusal(other_machine),
            "is a cubin that contradicts itself: it is for machine 62, not for CUDA (190)");
  const auto facts = read_facts(fake_cubin({}), "another");
  ASSERT_FALSE(facts.ok());
  EXPECT_EQ(facts.status().message(),
            "is a cubin that contradicts itself: it has no kernel another");
  EXPECT_NE(refusal(fake_cubin({.registers = 0})), "");
}

// Every prefix is refused: the section headers lie at the end.
TEST(CubinFacts, RefuseEveryTruncation) {
  const auto whole = fake_cubin({.code_bytes = 64});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::vector<std::byte> part(whole.begin(),
                                      whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_NE(refusal(part), "") << size;
  }
}

TEST(CubinFacts, RefuseOffsetsThatWrapAround) {
  auto far = fake_cubin({});
  set<std::uint64_t>(far, 0x28, ~std::uint64_t{0} - 10);
  EXPECT_EQ(refusal(far), "is no ELF file: its section headers lie past its end");
  auto section = fake_cubin({});
  std::uint64_t headers = 0;
  std::memcpy(&headers, section.data() + 0x28, 8);
  set<std::uint64_t>(section, headers + 4 * 64 + 24, ~std::uint64_t{0} - 3);  // offset of .nv.info
  EXPECT_NE(refusal(section).find("section 4 claims"), std::string::npos) << refusal(section);
  auto names = fake_cubin({});
  set<std::uint16_t>(names, 0x3e, 99);
  EXPECT_EQ(refusal(names), "is no ELF file: it has no section names");
}

// Whatever single byte is changed, the answer is facts or a refusal, and nothing is read past the end
// (the sanitized builds look).
TEST(CubinFacts, SurviveEveryFlippedByte) {
  const auto whole = fake_cubin({.code_bytes = 16});
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {0x01, 0x80, 0xff}) {
      // Of exactly this size, so that a sanitizer sees a read past the end.
      std::vector<std::byte> bytes = whole;
      bytes[at] ^= static_cast<std::byte>(change);
      if (!refusal(bytes).empty()) ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace attune
