#include "wrap/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace attune::wrap {

namespace {

using Op = Expression::Op;

struct Spelling {
  Op op;
  std::string_view text;  // an operator, or a function's name
  int binding;            // stronger binds first; 0: a function
};

constexpr std::array kSpellings = {Spelling{Op::logical_or, "or", 1},
                                   Spelling{Op::logical_and, "and", 2},
                                   Spelling{Op::logical_not, "not", 3},
                                   Spelling{Op::less_equal, "<=", 4},
                                   Spelling{Op::equal, "==", 4},
                                   Spelling{Op::not_equal, "!=", 4},
                                   Spelling{Op::less, "<", 4},
                                   Spelling{Op::add, "+", 5},
                                   Spelling{Op::subtract, "-", 5},
                                   Spelling{Op::multiply, "*", 6},
                                   Spelling{Op::divide, "//", 6},
                                   Spelling{Op::remainder, "%", 6},
                                   Spelling{Op::minimum, "min", 0},
                                   Spelling{Op::maximum, "max", 0},
                                   Spelling{Op::ceil_divide, "ceildiv", 0}};
constexpr int kAtom = 7;

const Spelling* spelling_of(Op op) {
  const auto* found = std::find_if(kSpellings.begin(), kSpellings.end(),
                                   [&](const Spelling& s) { return s.op == op; });
  return found == kSpellings.end() ? nullptr : found;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Expected<Expression> all() {
    constexpr std::size_t kLongest = 4096;
    if (text_.size() > kLongest) {
      return refused(fmt::format("the expression has {} characters; at most {} are read",
                                 text_.size(), kLongest));
    }
    auto result = binary(1);
    if (!result.ok()) return result;
    skip();
    if (at_ < text_.size()) return refused("nothing more was expected");
    return result;
  }

 private:
  [[nodiscard]] Status refused(const std::string& why) const {
    const std::string_view rest = text_.substr(std::min(at_, text_.size()), 20);
    return {Code::invalid_argument, fmt::format("column {}: {}{}", at_ + 1, why,
                                                rest.empty() ? std::string(", at its end")
                                                             : fmt::format(", at \"{}\"", rest))};
  }

  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }

  bool take(std::string_view token) {
    skip();
    if (!text_.substr(at_).starts_with(token)) return false;
    const std::size_t end = at_ + token.size();
    if (is_letter(token.front()) && end < text_.size() &&
        (is_letter(text_[end]) || is_digit(text_[end]))) {
      return false;
    }
    at_ = end;
    return true;
  }

  // The operator of this binding that comes next; > and >= are < and <= the other way round.
  std::optional<std::pair<Op, bool>> operator_of(int binding) {
    if (binding == 4) {
      if (take(">=")) return {{Op::less_equal, true}};
      if (take(">")) return {{Op::less, true}};
    }
    for (const Spelling& s : kSpellings) {
      if (s.binding == binding && s.op != Op::logical_not && take(s.text)) return {{s.op, false}};
    }
    if (binding == 6 && take("/")) return {{Op::divide, false}};
    return std::nullopt;
  }

  Expected<Expression> binary(int binding) {
    if (binding == kAtom) return atom();
    const Deeper deeper(depth_);
    if (depth_ > kDeepest) return refused("the expression is nested too deep");
    if (binding == 3 && take("not")) {
      auto operand = binary(3);
      if (!operand.ok()) return operand;
      return combine(Op::logical_not, {*std::move(operand)});
    }
    auto left = binary(binding + 1);
    if (!left.ok()) return left;
    while (const auto op = operator_of(binding)) {
      auto right = binary(binding + 1);
      if (!right.ok()) return right;
      std::vector<Expression> operands{*std::move(left), *std::move(right)};
      if (op->second) std::swap(operands[0], operands[1]);
      left = combine(op->first, std::move(operands));
      if (++operations_ > kMostOperations) return refused("the expression has too many operations");
    }
    return left;
  }

  Expected<Expression> atom() {
    skip();
    if (at_ >= text_.size()) return refused("a number, a name or ( was expected");
    if (take("(")) {
      auto inner = binary(1);
      if (!inner.ok()) return inner;
      if (!take(")")) return refused("a ) was expected");
      return inner;
    }
    if (take("-")) {
      const Deeper deeper(depth_);
      if (depth_ > kDeepest) return refused("the expression is nested too deep");
      auto operand = atom();
      if (!operand.ok()) return operand;
      return combine(Op::subtract, {Expression(0), *std::move(operand)});
    }
    if (is_digit(text_[at_])) return number();
    if (is_letter(text_[at_])) return name();
    return refused("a number, a name or ( was expected");
  }

  Expected<Expression> number() {
    std::int64_t value = 0;
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) {
      if (__builtin_mul_overflow(value, 10, &value) ||
          __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        at_ = begin;
        return refused("the number is larger than 2^63 - 1");
      }
      ++at_;
    }
    if (at_ < text_.size() && (is_letter(text_[at_]) || text_[at_] == '.')) {
      return refused("a whole number was expected");
    }
    return Expression(value);
  }

  Expected<Expression> name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (is_letter(text_[at_]) || is_digit(text_[at_]))) ++at_;
    const std::string word(text_.substr(begin, at_ - begin));
    for (const Spelling& s : kSpellings) {
      if (s.text != word) continue;
      if (s.binding == 0) return call(s);
      at_ = begin;
      return refused("a number, a name or ( was expected");
    }
    if (!is_identifier(word)) {
      at_ = begin;
      return refused("the name is longer than 64 characters");
    }
    skip();
    if (at_ < text_.size() && text_[at_] == '(') {
      at_ = begin;
      return refused("no such function; there are ceildiv, min and max");
    }
    Expression expression;
    expression.op = Op::name;
    expression.name = word;
    return expression;
  }

  Expected<Expression> call(const Spelling& function) {
    if (!take("(")) return refused(fmt::format("a ( was expected after {}", function.text));
    std::vector<Expression> operands;
    do {
      auto operand = binary(1);
      if (!operand.ok()) return operand;
      operands.push_back(*std::move(operand));
      if (++operations_ > kMostOperations) return refused("the expression has too many operations");
    } while (take(","));
    if (!take(")")) return refused("a , or ) was expected");
    if (operands.size() < 2 || (function.op == Op::ceil_divide && operands.size() != 2)) {
      return refused(fmt::format("{} takes {}", function.text,
                                 function.op == Op::ceil_divide ? "two numbers" : "two or more"));
    }
    Expression result = std::move(operands.front());
    for (std::size_t i = 1; i < operands.size(); ++i) {
      result = combine(function.op, {std::move(result), std::move(operands[i])});
    }
    return result;
  }

  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    int& depth_;
  };
  static constexpr int kDeepest = 200;  // of binary(), which is six for a pair of parentheses
  static constexpr int kMostOperations = 256;

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int operations_ = 0;
};

__extension__ using Wide = __int128;

std::optional<Wide> compute(Op op, Wide a, Wide b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::subtract:
      return a - b;
    case Op::multiply:
      return a * b;
    case Op::divide:
    case Op::remainder:
    case Op::ceil_divide:
      if (a < 0 || b <= 0) return std::nullopt;
      if (op == Op::remainder) return a % b;
      return a / b + (op == Op::ceil_divide && a % b > 0 ? 1 : 0);
    case Op::minimum:
      return std::min(a, b);
    case Op::maximum:
      return std::max(a, b);
    case Op::less:
      return a < b ? 1 : 0;
    case Op::less_equal:
      return a <= b ? 1 : 0;
    case Op::equal:
      return a == b ? 1 : 0;
    case Op::not_equal:
      return a != b ? 1 : 0;
    case Op::logical_and:
      return a != 0 && b != 0 ? 1 : 0;
    case Op::logical_or:
      return a != 0 || b != 0 ? 1 : 0;
    case Op::number:
    case Op::name:
    case Op::logical_not:
      break;
  }
  return std::nullopt;
}

bool fits(Wide value) { return value >= INT64_MIN && value <= INT64_MAX; }

std::int64_t gcd(std::int64_t a, std::int64_t b) {
  if (a == INT64_MIN || b == INT64_MIN) return 1;
  a = a < 0 ? -a : a;
  b = b < 0 ? -b : b;
  while (b != 0) a = std::exchange(b, a % b);
  return a;
}

// 0 is divided by everything; a divisor is then the other one's.
std::int64_t divisor_of(const Range& range) {
  if (range.min == range.max) return range.min == INT64_MIN ? 1 : range.min;
  return range.multiple_of;
}

std::int64_t divisor(Op op, const Range& a, const Range& b) {
  const std::int64_t x = divisor_of(a), y = divisor_of(b);
  std::int64_t product = 0;
  switch (op) {
    case Op::add:
    case Op::subtract:
    case Op::minimum:
    case Op::maximum:
      return gcd(x, y);
    case Op::multiply:
      return __builtin_mul_overflow(x, y, &product) ? std::max<std::int64_t>(gcd(x, 0), 1)
                                                    : gcd(product, 0);
    case Op::divide:
    case Op::ceil_divide:
      return b.min == b.max && b.min > 0 && x % b.min == 0 ? gcd(x / b.min, 0) : 1;
    default:
      return 1;
  }
}

std::string range_text(const Range& range) {
  return range.min == range.max ? fmt::format("{}", range.min)
                                : fmt::format("{} to {}", range.min, range.max);
}

Expected<Range> bounds_of(const Expression& e, const Range& a, const Range& b) {
  const bool divides = e.op == Op::divide || e.op == Op::remainder || e.op == Op::ceil_divide;
  if (divides && b.min <= 0) {
    return Status{Code::invalid_argument, fmt::format("{} divides by {}, which may be {}",
                                                      to_text(e), to_text(e.operands[1]), b.min)};
  }
  if (divides && a.min < 0) {
    return Status{Code::invalid_argument,
                  fmt::format("{} divides {}, which may be {}: only numbers from 0 on are divided",
                              to_text(e), to_text(e.operands[0]), a.min)};
  }
  Range result;
  if (e.op == Op::remainder) {
    result = {0, std::min(a.max, b.max - 1), 1};
  } else if (is_condition(e)) {
    result = {0, 1, 1};
  } else {
    std::array<Wide, 4> corners{};
    std::size_t n = 0;
    for (const std::int64_t x : {a.min, a.max}) {
      for (const std::int64_t y : {b.min, b.max}) corners[n++] = *compute(e.op, x, y);
    }
    const Wide least = *std::min_element(corners.begin(), corners.end());
    const Wide most = *std::max_element(corners.begin(), corners.end());
    if (!fits(least) || !fits(most)) {
      return Status{Code::invalid_argument,
                    fmt::format("{} may pass 2^63, as {} is {} and {} is {}: declare smaller "
                                "\"max\" of the sizes in it",
                                to_text(e), to_text(e.operands[0]), range_text(a),
                                to_text(e.operands[1]), range_text(b))};
    }
    result = {static_cast<std::int64_t>(least), static_cast<std::int64_t>(most), 1};
  }
  result.multiple_of = std::max<std::int64_t>(1, divisor(e.op, a, b));
  return result;
}

void write_text(const Expression& e, int outer, std::string& out) {
  if (e.op == Op::number) {
    if (e.value < 0 && outer > 5) {
      out += fmt::format("({})", e.value);
    } else {
      out += fmt::format("{}", e.value);
    }
    return;
  }
  if (e.op == Op::name) {
    out += e.name;
    return;
  }
  const Spelling& s = *spelling_of(e.op);
  if (s.binding == 0) {
    out += fmt::format("{}(", s.text);
    write_text(e.operands[0], 0, out);
    out += ", ";
    write_text(e.operands[1], 0, out);
    out += ')';
    return;
  }
  const bool parentheses = s.binding < outer;
  if (parentheses) out += '(';
  if (e.op == Op::logical_not) {
    out += "not ";
    write_text(e.operands[0], s.binding, out);
  } else {
    // Comparisons do not chain.
    write_text(e.operands[0], s.binding == 4 ? 5 : s.binding, out);
    out += fmt::format(" {} ", s.text);
    write_text(e.operands[1], s.binding + 1, out);
  }
  if (parentheses) out += ')';
}

void write_cpp(const Expression& e, const TextOf& name, int outer, std::string& out) {
  const auto call = [&](std::string_view function) {
    out += fmt::format("{}(", function);
    write_cpp(e.operands[0], name, 0, out);
    out += ", ";
    write_cpp(e.operands[1], name, 0, out);
    out += ')';
  };
  switch (e.op) {
    case Op::number:
      out += e.value < 0 ? fmt::format("({})", e.value) : fmt::format("{}", e.value);
      if (e.value > INT32_MAX || e.value < INT32_MIN) out.insert(out.size() - (e.value < 0), "LL");
      return;
    case Op::name:
      out += name(e.name);
      return;
    case Op::minimum:
      return call("least");
    case Op::maximum:
      return call("most");
    case Op::ceil_divide:
      return call("ceil_div");
    case Op::logical_not:
      out += '!';
      write_cpp(e.operands[0], name, kAtom, out);
      return;
    default:
      break;
  }
  const Spelling& s = *spelling_of(e.op);
  const std::string_view text = e.op == Op::logical_and  ? "&&"
                                : e.op == Op::logical_or ? "||"
                                : e.op == Op::divide     ? "/"
                                                         : s.text;
  // Compilers warn where only precedence tells && from ||.
  const bool parentheses = s.binding < outer || (outer > 0 && s.binding <= 2);
  if (parentheses) out += '(';
  write_cpp(e.operands[0], name, s.binding == 4 ? 5 : s.binding, out);
  out += fmt::format(" {} ", text);
  write_cpp(e.operands[1], name, s.binding + 1, out);
  if (parentheses) out += ')';
}

}  // namespace

bool is_identifier(std::string_view text) {
  constexpr std::size_t kLongest = 64;
  if (text.empty() || text.size() > kLongest || !is_letter(text.front())) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return is_letter(c) || is_digit(c); });
}

bool is_number(const Expression& expression, std::int64_t value) {
  return expression.op == Op::number && expression.value == value;
}

bool is_condition(const Expression& expression) {
  switch (expression.op) {
    case Op::less:
    case Op::less_equal:
    case Op::equal:
    case Op::not_equal:
    case Op::logical_and:
    case Op::logical_or:
    case Op::logical_not:
      return true;
    default:
      return false;
  }
}

Expected<Expression> parse_expression(std::string_view text) { return Parser(text).all(); }

Expression combine(Op op, std::vector<Expression> operands) {
  if (operands.size() == 2) {
    const Expression &a = operands[0], &b = operands[1];
    if (a.op == Op::number && b.op == Op::number) {
      const auto value = compute(op, a.value, b.value);
      if (value && fits(*value)) return {static_cast<std::int64_t>(*value)};
    }
    const bool one = (op == Op::multiply || op == Op::divide || op == Op::ceil_divide);
    if ((one && is_number(b, 1)) || ((op == Op::add || op == Op::subtract) && is_number(b, 0))) {
      return a;
    }
    if ((op == Op::multiply && is_number(a, 1)) || (op == Op::add && is_number(a, 0))) return b;
  }
  Expression result;
  result.op = op;
  result.operands = std::move(operands);
  return result;
}

std::string to_text(const Expression& expression) {
  std::string text;
  write_text(expression, 0, text);
  return text;
}

std::string to_cpp(const Expression& expression, const TextOf& name) {
  std::string text;
  write_cpp(expression, name, 0, text);
  return text;
}

Expected<Range> bounds(const Expression& expression, const RangeOf& name) {
  if (expression.op == Op::number) {
    constexpr std::int64_t kOfZero = std::int64_t{1} << 40;  // as good as any
    const std::int64_t value = expression.value;
    return Range{value, value, value == 0 ? kOfZero : gcd(value, 0)};
  }
  if (expression.op == Op::name) {
    const auto range = name(expression.name);
    if (range) return *range;
    return Status{Code::invalid_argument, fmt::format("{} is no size", expression.name)};
  }
  const auto a = bounds(expression.operands[0], name);
  if (!a.ok() || expression.op == Op::logical_not) return a.ok() ? Range{0, 1, 1} : a;
  const auto b = bounds(expression.operands[1], name);
  if (!b.ok()) return b;
  return bounds_of(expression, *a, *b);
}

std::int64_t evaluate(const Expression& expression, const ValueOf& name) {
  if (expression.op == Op::number) return expression.value;
  if (expression.op == Op::name) return name(expression.name).value_or(0);
  const std::int64_t a = evaluate(expression.operands[0], name);
  if (expression.op == Op::logical_not) return a == 0 ? 1 : 0;
  const auto value = compute(expression.op, a, evaluate(expression.operands[1], name));
  return value ? static_cast<std::int64_t>(*value) : 0;
}

Expression substitute(const Expression& expression,
                      const std::function<std::optional<Expression>(const std::string&)>& name) {
  if (expression.op == Op::number) return expression;
  if (expression.op == Op::name) {
    auto replaced = name(expression.name);
    return replaced ? *std::move(replaced) : expression;
  }
  std::vector<Expression> operands;
  operands.reserve(expression.operands.size());
  for (const Expression& operand : expression.operands) {
    operands.push_back(substitute(operand, name));
  }
  return combine(expression.op, std::move(operands));
}

void each_name(const Expression& expression, const std::function<void(const std::string&)>& f) {
  if (expression.op == Op::name) f(expression.name);
  for (const Expression& operand : expression.operands) each_name(operand, f);
}

}  // namespace attune::wrap
