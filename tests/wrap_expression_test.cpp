// Expressions over sizes, and where temporaries lie.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "wrap/expression.h"
#include "wrap/json_tree.h"
#include "wrap/kernel_step.h"
#include "wrap/program_reader.h"
#include "wrap/temporaries.h"

namespace attune::wrap {
namespace {

Expression read(const std::string& text) {
  auto parsed = parse_expression(text);
  EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
  return parsed.ok() ? *parsed : Expression(0);
}

std::int64_t value(const std::string& text) {
  const std::map<std::string, std::int64_t> sizes = {{"B", 3}, {"S", 100}, {"zero", 0}};
  return evaluate(read(text), [&](const std::string& name) -> std::optional<std::int64_t> {
    const auto found = sizes.find(name);
    return found == sizes.end() ? std::nullopt : std::optional(found->second);
  });
}

std::optional<Range> range_of(const std::string& name) {
  if (name == "B") return Range{1, 8, 1};
  if (name == "S") return Range{0, 4096, 16};
  if (name == "huge") return Range{0, std::int64_t{1} << 48, 1};
  return std::nullopt;
}

TEST(WrapExpression, MeansWhatItSays) {
  EXPECT_EQ(value("B * S + 2"), 302);
  EXPECT_EQ(value("2 + B * S"), 302);
  EXPECT_EQ(value("(2 + B) * S"), 500);
  EXPECT_EQ(value("S - B - 1"), 96);
  EXPECT_EQ(value("S - (B - 1)"), 98);
  EXPECT_EQ(value("S // B"), 33);
  EXPECT_EQ(value("S / B"), 33);
  EXPECT_EQ(value("S % B"), 1);
  EXPECT_EQ(value("ceildiv(S, B)"), 34);
  EXPECT_EQ(value("min(S, B, 2) + max(S, 5)"), 102);
  EXPECT_EQ(value("-B + 4"), 1);
  EXPECT_EQ(value("S > 99 and B >= 3 and not B == 4"), 1);
  EXPECT_EQ(value("S < 100 or B <= 2 or B != 3"), 0);
  EXPECT_EQ(value("9223372036854775807"), INT64_MAX);
}

TEST(WrapExpression, PrintsAsItParses) {
  for (const char* text :
       {"B * S + 2", "(2 + B) * S", "S - (B - 1)", "S // (B * 2) % 3", "ceildiv(S, min(B, 4))",
        "1024 <= S and (B == 1 or B == 2)", "not B < 3", "(B + 1) // 2 * 2", "B - (0 - S)"}) {
    EXPECT_EQ(to_text(read(text)), text);
  }
}

TEST(WrapExpression, BecomesCpp) {
  const TextOf name = [](const std::string& size) { return "s." + size; };
  EXPECT_EQ(to_cpp(read("ceildiv(S, 128) * B"), name), "ceil_div(s.S, 128) * s.B");
  EXPECT_EQ(to_cpp(read("S // (B * 2)"), name), "s.S / (s.B * 2)");
  EXPECT_EQ(to_cpp(read("S % 16 == 0 and not B > 2"), name), "s.S % 16 == 0 && !(2 < s.B)");
  EXPECT_EQ(to_cpp(read("B == 1 or S == 1 and B == 2"), name),
            "s.B == 1 || (s.S == 1 && s.B == 2)");
  EXPECT_EQ(to_cpp(read("B * 4294967296"), name), "s.B * 4294967296LL");
}

TEST(WrapExpression, MistakesHaveAColumn) {
  for (const auto& [text, says] :
       {std::pair{"", "column 1: a number, a name or ( was expected, at its end"},
        {"B +", "column 4"},
        {"B S", "column 3: nothing more was expected"},
        {"(B", "a ) was expected"},
        {"ceildiv(B)", "ceildiv takes two numbers"},
        {"ceildiv(B, 1, 2)", "ceildiv takes two"},
        {"floor(B)", "no such function; there are ceildiv, min and max"},
        {"1.5", "a whole number was expected"},
        {"9223372036854775808", "larger than 2^63 - 1"},
        {"B and", "column 6"},
        {"min", "a ( was expected after min"},
        {"B ** 2", "column 4"}}) {
    const auto parsed = parse_expression(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.status().message().find(says), std::string::npos) << parsed.status().message();
  }
  EXPECT_FALSE(parse_expression(std::string(300, '(')).ok());
  EXPECT_FALSE(parse_expression(std::string(5000, '1')).ok());
}

TEST(WrapExpression, BoundsShowThatNothingOverflows) {
  const auto of = [](const std::string& text) { return bounds(read(text), range_of); };
  EXPECT_EQ(*of("B * S + 1"), (Range{1, 32769, 1}));
  EXPECT_EQ(*of("B * S"), (Range{0, 32768, 16}));
  EXPECT_EQ(of("S * 512")->multiple_of, 8192);
  EXPECT_EQ(of("S // 16")->multiple_of, 1);
  EXPECT_EQ(*of("S - 1"), (Range{-1, 4095, 1}));
  EXPECT_EQ(of("S % 7")->max, 6);
  EXPECT_EQ(of("max(S, 64)")->min, 64);
  for (const auto& [text, says] : {std::pair{"huge * huge", "huge * huge may pass 2^63"},
                                   {"S // B // S", "divides by S, which may be 0"},
                                   {"(S - 1) % 2", "divides S - 1, which may be -1"},
                                   {"missing + 1", "missing is no size"}}) {
    const auto range = of(text);
    ASSERT_FALSE(range.ok()) << text;
    EXPECT_NE(range.status().message().find(says), std::string::npos) << range.status().message();
  }
}

TEST(WrapJson, KnowsLines) {
  const auto tree = parse_json("{\n \"a\": [1,\n  2.5\n ],\n\n \"b\": \"x\\ny\"}");
  ASSERT_TRUE(tree.ok()) << tree.status().message();
  EXPECT_EQ(tree->field("a")->place.line, 2);
  EXPECT_EQ(tree->field("a")->elements[0].place.line, 2);
  EXPECT_EQ(tree->field("a")->elements[1].place.line, 3);
  EXPECT_EQ(tree->field("b")->place.line, 6);
  for (const auto& [text, says] :
       {std::pair{"{\n\"a\": 1,\n\"a\": 2}", "3: the field \"a\" is there twice"},
        {"[1,\n\n2", "3: this is no JSON"},
        {"[\n18446744073709551615]", "2: 18446744073709551615 is larger"},
        {"", "1: "}}) {
    const auto broken = parse_json(text);
    ASSERT_FALSE(broken.ok());
    EXPECT_NE(broken.status().message().find(says), std::string::npos) << broken.status().message();
  }
  EXPECT_FALSE(parse_json(std::string(100, '[')).ok());
}

TEST(WrapTemporaries, ShareWhatNobodyNeeds) {
  Program program;
  program.sizes = {{"N", {0, 4096, 1}, {}}};
  const Expression n = read("N * 4"), m = read("N * 2");
  const std::vector<MemoryNeed> needs = {
      {"a", n, 0, 2}, {"b", n, 1, 3}, {"c", n, 3, 4}, {"d", m, 4, 5}, {"e", m, 4, 4}};
  const WorkspacePlan plan = plan_workspace(program, needs);
  EXPECT_EQ(plan.slot_of[2], plan.slot_of[0]);  // a has ended when c begins
  EXPECT_NE(plan.slot_of[1], plan.slot_of[0]);
  EXPECT_NE(plan.slot_of[3], plan.slot_of[4]);
  for (std::size_t x = 0; x < needs.size(); ++x) {
    for (std::size_t y = 0; y < x; ++y) {
      const bool meet = needs[x].first <= needs[y].last && needs[y].first <= needs[x].last;
      EXPECT_FALSE(meet && plan.slot_of[x] == plan.slot_of[y]);
    }
  }
  ASSERT_EQ(plan.slots.size(), 3U);
  EXPECT_EQ(to_text(plan.slots[plan.slot_of[0]]), "N * 4");
}

// A stride-of-1 constant, an i32 that must fit, and addresses whose divisibility is known.
TEST(WrapConditions, AreThoseThatNoRangeProves) {
  const auto program = parse_program(R"({
    "attune_program": 1, "name": "p",
    "sizes": {"N": {"max": 4096, "multiple_of": 32}, "M": {"max": 4294967296}, "ld": {}},
    "inputs": {"x": {"dtype": "f32", "shape": ["N"]}, "loose": {"dtype": "f32", "shape": ["M"], "strides": ["ld"], "align": 4}},
    "outputs": {"y": {"dtype": "f32", "shape": ["N"]}},
    "kernels": {"k": {
      "parameters": [{"name": "x", "type": "*fp32"}, {"name": "z", "type": "*fp32"}, {"name": "y", "type": "*fp32"},
                     {"name": "n", "type": "i32"}, {"name": "m", "type": "i32"}, {"name": "s", "type": "i64"}],
      "divisible_by": {"x": 16, "z": 16, "n": 16, "m": 8}, "constants": {"s": 1},
      "binaries": [{"file": "a.cubin", "block": 32}], "grid": ["n"]}},
    "steps": [{"kernel": "k", "arguments": {"x": "x", "z": "loose", "y": "y", "n": "N", "m": "M", "s": "ld"}}]})");
  ASSERT_TRUE(program.ok()) << program.status().message();
  const auto& step = std::get<KernelStep>(program->steps[0].action);
  std::vector<std::string> texts;
  for (const Condition& condition :
       conditions_of(*program, step, program->kernels[0].configurations[0])) {
    texts.push_back(condition.text);
  }
  EXPECT_EQ(texts,
            (std::vector<std::string>{"z % 16 == 0", "m % 8 == 0", "m <= 2147483647", "s == 1"}));
}

}  // namespace
}  // namespace attune::wrap
