// Whole-number expressions over a program's sizes: shapes, grids, conditions.
//
//   B * S, ceildiv(S, 128), min(S, 64), S // 2, S % 16, S <= 1024 and B == 1
//
// + - * // / (both round down) %, ceildiv, min, max, < <= > >= == !=, and, or, not, parentheses.
// A condition is 1 or 0. The numbers are 64-bit: bounds() shows, from the sizes' ranges, that nothing
// on the way leaves that.
#pragma once

#include <attune/status.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attune::wrap {

struct Expression {
  enum class Op : std::uint8_t {
    number,
    name,
    add,
    subtract,
    multiply,
    divide,
    remainder,
    ceil_divide,
    minimum,
    maximum,
    less,
    less_equal,
    equal,
    not_equal,
    logical_and,
    logical_or,
    logical_not
  };
  Op op = Op::number;
  std::int64_t value = 0;  // op number
  std::string name;        // op name
  std::vector<Expression> operands;

  Expression() = default;
  Expression(std::int64_t number) : value(number) {}  // NOLINT(google-explicit-constructor)
  friend bool operator==(const Expression&, const Expression&) = default;
};

// What a name stands for: its least and largest value, and a number that divides it.
struct Range {
  std::int64_t min = 0, max = 0;
  std::int64_t multiple_of = 1;
  friend bool operator==(const Range&, const Range&) = default;
};

using RangeOf = std::function<std::optional<Range>(const std::string&)>;
using ValueOf = std::function<std::optional<std::int64_t>(const std::string&)>;
using TextOf = std::function<std::string(const std::string&)>;

// Refused with the column: "column 5: ...".
[[nodiscard]] Expected<Expression> parse_expression(std::string_view text);

// The operation on them; numbers are added up at once, and x * 1, x + 0 are x.
[[nodiscard]] Expression combine(Expression::Op op, std::vector<Expression> operands);

[[nodiscard]] bool is_number(const Expression& expression, std::int64_t value);
[[nodiscard]] bool is_condition(const Expression& expression);

// As it parses.
[[nodiscard]] std::string to_text(const Expression& expression);
// As C++ over std::int64_t, with runtime/arithmetic.h.
[[nodiscard]] std::string to_cpp(const Expression& expression, const TextOf& name);

// Least and largest value, and a divisor. Refused: names that nobody knows, a divisor or a modulus that
// may be 0 or less, and numbers that may pass 2^63, with the part at fault and its range.
[[nodiscard]] Expected<Range> bounds(const Expression& expression, const RangeOf& name);

// Precondition: bounds() are ok and the values lie in their ranges.
[[nodiscard]] std::int64_t evaluate(const Expression& expression, const ValueOf& name);

// Every name for which there is an expression replaced by it.
[[nodiscard]] Expression substitute(
    const Expression& expression,
    const std::function<std::optional<Expression>(const std::string&)>& name);

void each_name(const Expression& expression, const std::function<void(const std::string&)>& f);

// Letters, digits and _, not a digit first, and at most 64 of them.
[[nodiscard]] bool is_identifier(std::string_view text);

}  // namespace attune::wrap
