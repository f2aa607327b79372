#include "wrap/kernel_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace attune::wrap {

namespace {

using Op = Expression::Op;

Range range_of(const Program& program, const Expression& expression) {
  const auto range =
      bounds(expression, [&](const std::string& name) { return program.range_of(name); });
  return range.ok() ? *range
                    : Range{std::numeric_limits<std::int64_t>::min(),
                            std::numeric_limits<std::int64_t>::max(), 1};
}

// The largest value that a kernel's parameter of this type takes, if that is less than 2^63 - 1.
std::optional<std::int64_t> most_of(Element element) {
  switch (element) {
    case Element::i8:
      return INT8_MAX;
    case Element::u8:
      return UINT8_MAX;
    case Element::boolean:
      return 1;
    case Element::i16:
      return INT16_MAX;
    case Element::u16:
      return UINT16_MAX;
    case Element::i32:
      return INT32_MAX;
    case Element::u32:
      return UINT32_MAX;
    default:
      return std::nullopt;
  }
}

bool is_absent(const std::optional<Argument>& argument) {
  return !argument || std::holds_alternative<NullArgument>(*argument);
}

class Conditions {
 public:
  Conditions(const Program& program, const KernelStep& step, const Configuration& configuration)
      : program_(program),
        step_(step),
        configuration_(configuration),
        kernel_(program.kernels[step.kernel]) {}

  std::vector<Condition> all() {
    if (configuration_.when) {
      add(to_text(*configuration_.when),
          resolve(program_, step_, configuration_, *configuration_.when));
    }
    for (std::size_t i = 0; i < kernel_.parameters.size(); ++i) parameter(i);
    return std::move(conditions_);
  }

 private:
  void add(std::string text, Expression holds) {
    if (holds.op == Op::number && holds.value != 0) return;
    conditions_.push_back({std::move(text), std::move(holds), std::nullopt, 1});
  }

  void parameter(std::size_t i) {
    const Parameter& p = kernel_.parameters[i];
    const std::optional<Argument>& argument = step_.arguments[i];
    const auto& absent = configuration_.absent;
    if (std::find(absent.begin(), absent.end(), p.name) != absent.end()) {
      if (!is_absent(argument)) add(p.name + " is not given", Expression(0));
      return;
    }
    if (!argument) return;
    const auto divisor = configuration_.divisible_by.find(p.name);
    const bool divisible = divisor != configuration_.divisible_by.end();
    if (const auto* tensor = std::get_if<TensorArgument>(&*argument)) {
      if (divisible && alignment_of(program_, tensor->tensor) % divisor->second != 0) {
        conditions_.push_back({fmt::format("{} % {} == 0", p.name, divisor->second), Expression(1),
                               i, divisor->second});
      }
      return;
    }
    const auto* value = std::get_if<Expression>(&*argument);
    if (value == nullptr) return;
    const auto constant = configuration_.constants.find(p.name);
    if (constant != configuration_.constants.end()) {
      add(fmt::format("{} == {}", p.name, constant->second),
          combine(Op::equal, {*value, Expression(constant->second)}));
      return;
    }
    const Range range = range_of(program_, *value);
    if (divisible && range.multiple_of % divisor->second != 0) {
      add(fmt::format("{} % {} == 0", p.name, divisor->second),
          combine(Op::equal,
                  {combine(Op::remainder, {*value, Expression(divisor->second)}), Expression(0)}));
    }
    const auto type = configuration_.types.find(p.name);
    const auto most = most_of(type == configuration_.types.end() ? p.type.element : type->second);
    if (most && range.max > *most) {
      add(fmt::format("{} <= {}", p.name, *most),
          combine(Op::less_equal, {*value, Expression(*most)}));
    }
  }

  const Program& program_;
  const KernelStep& step_;
  const Configuration& configuration_;
  const Kernel& kernel_;
  std::vector<Condition> conditions_;
};

Expression scratch(const Program& program, const KernelStep& step,
                   std::int64_t LaunchShape::*bytes_a_block) {
  Expression most(0);
  for (const Configuration& configuration : program.kernels[step.kernel].configurations) {
    const std::array<Expression, 3> grid = grid_of(program, step, configuration);
    std::int64_t bytes = 0;
    for (const Binary& binary : configuration.binaries) {
      const auto& cluster = binary.launch.cluster;
      const std::int64_t blocks =
          binary.launch.multiply_grid ? cluster[0] * cluster[1] * cluster[2] : 1;
      bytes = std::max(bytes, binary.launch.*bytes_a_block * blocks);
    }
    if (bytes == 0) continue;
    Expression all =
        combine(Op::multiply, {count_of({grid[0], grid[1], grid[2]}), Expression(bytes)});
    most = is_number(most, 0) ? std::move(all)
                              : combine(Op::maximum, {std::move(most), std::move(all)});
  }
  return most;
}

}  // namespace

Expression resolve(const Program& program, const KernelStep& step,
                   const Configuration& configuration, const Expression& expression) {
  const Kernel& kernel = program.kernels[step.kernel];
  return substitute(expression, [&](const std::string& name) -> std::optional<Expression> {
    const auto constant = configuration.constants.find(name);
    if (constant != configuration.constants.end()) return Expression(constant->second);
    for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
      if (kernel.parameters[i].name != name || !step.arguments[i]) continue;
      if (const auto* value = std::get_if<Expression>(&*step.arguments[i])) return *value;
    }
    return std::nullopt;
  });
}

std::array<Expression, 3> grid_of(const Program& program, const KernelStep& step,
                                  const Configuration& configuration) {
  std::array<Expression, 3> grid = step.grid ? *step.grid : configuration.grid;
  for (Expression& extent : grid) extent = resolve(program, step, configuration, extent);
  return grid;
}

std::vector<Condition> conditions_of(const Program& program, const KernelStep& step,
                                     const Configuration& configuration) {
  return Conditions(program, step, configuration).all();
}

Expression global_scratch_bytes(const Program& program, const KernelStep& step) {
  return scratch(program, step, &LaunchShape::global_scratch_bytes);
}
Expression profile_scratch_bytes(const Program& program, const KernelStep& step) {
  return scratch(program, step, &LaunchShape::profile_scratch_bytes);
}

std::int64_t alignment_of(const Program& program, std::size_t tensor) {
  const TensorDeclaration* t = &program.tensors[tensor];
  std::int64_t alignment = 0;  // a view that starts at 0 changes nothing
  while (t->role == TensorRole::view) {
    const Range offset = range_of(program, t->offset);
    const std::int64_t step = offset.min == offset.max ? offset.min : offset.multiple_of;
    alignment = std::gcd(alignment, step * bytes_of(t->element));
    t = &program.tensors[t->base];
  }
  return std::gcd(alignment, static_cast<std::int64_t>(t->alignment));
}

}  // namespace attune::wrap
