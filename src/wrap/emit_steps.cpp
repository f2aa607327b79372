// One small function a step.
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "io/convert.h"
#include "io/tensor.h"
#include "wrap/blueprint.h"
#include "wrap/kernel_step.h"
#include "wrap/naming.h"

namespace attune::wrap {

namespace {

// Rounded to nearest, ties to even.
std::uint16_t bits_of_half(Element element, double value) {
  auto wide = make_tensor("", DType::f64, {});
  std::uint16_t bits = 0;
  if (!wide.ok()) return bits;
  std::memcpy(wide->data.data(), &value, sizeof(value));
  const auto half = cast(*wide, element == Element::f16 ? DType::f16 : DType::bf16);
  if (half.ok()) std::memcpy(&bits, half->data.data(), sizeof(bits));
  return bits;
}

std::string cpp_type(Element element) {
  switch (element) {
    case Element::f32:
      return "float";
    case Element::f64:
      return "double";
    case Element::f16:
    case Element::bf16:
      return "std::uint16_t";
    case Element::boolean:
      return "std::uint8_t";
    default:
      return fmt::format("std::{}", facts(element).c_type);
  }
}

class StepEmitter {
 public:
  StepEmitter(const Blueprint& b, std::size_t index)
      : b_(b), p_(*b.program), index_(index), step_(p_.steps[index]) {}

  std::string text() {
    if (const auto* kernel = std::get_if<KernelStep>(&step_.action)) {
      return b_.options.cpu ? fallback(*kernel) : this->kernel(*kernel);
    }
    if (std::holds_alternative<AttentionStep>(step_.action)) {
      return b_.options.cpu ? emit_attention_host(b_, index_) : emit_attention_device(b_, index_);
    }
    if (const auto* copy = std::get_if<CopyStep>(&step_.action)) return this->copy(*copy);
    if (const auto* fill = std::get_if<FillStep>(&step_.action)) return this->fill(*fill);
    return call(std::get<CallStep>(step_.action));
  }

 private:
  [[nodiscard]] std::string head(const std::string& what) const {
    return fmt::format(
        "// Step {0}, {1}: {2}.\n"
        "inline int step_{0}([[maybe_unused]] Run& run) {{\n"
        "  [[maybe_unused]] const Sizes& s = run.size;\n",
        index_, as_comment(step_.name), as_comment(what));
  }

  [[nodiscard]] std::string at(std::size_t tensor) const { return "run.at." + b_.place[tensor]; }

  std::string kernel(const KernelStep& step) {
    const Kernel& k = p_.kernels[step.kernel];
    std::string t = head("kernel " + k.name);
    const auto& choices = b_.choices[index_];
    if (choices.empty()) {
      t += fmt::format(
          "  return fail(ATTUNE_WRAPPED_UNSUPPORTED, \"kernel {}: no configuration "
          "takes these arguments\");\n}}\n",
          k.name);
      return t;
    }
    std::vector<std::pair<std::size_t, Condition>> conditions;
    for (std::size_t v = 0; v < choices.size(); ++v) {
      const Configuration& c = k.configurations[choices[v].configuration];
      for (Condition& condition : conditions_of(p_, step, c)) {
        conditions.emplace_back(v, std::move(condition));
      }
    }
    if (choices.size() == 1 && conditions.empty()) {
      return t + variant(step, choices[0], "  ") + "}\n";
    }
    t += "  const Condition conditions[] = {\n";
    for (const auto& [v, condition] : conditions) {
      const std::string holds =
          condition.pointer
              ? fmt::format(
                    "{} % {} == 0",
                    at(std::get<TensorArgument>(*step.arguments[*condition.pointer]).tensor),
                    condition.divisor)
          : is_condition(condition.holds) ? over_sizes(condition.holds)
                                          : fmt::format("({}) != 0", over_sizes(condition.holds));
      t += fmt::format("      {{{}, {}, {}}},\n", v, as_literal(condition.text), holds);
    }
    std::size_t count = conditions.size();
    if (choices.size() > 1) {
      for (std::size_t v = 0; v < choices.size(); ++v) {
        t += fmt::format(
            "      {{{}, \"code for this GPU\", serves(*run.call.instance, "
            "*run.call.loaded, {})}},\n",
            v, choices[v].variant);
        ++count;
      }
    }
    t += fmt::format("  }};\n  switch (first_that_fits(conditions, {}, {})) {{\n", count,
                     choices.size());
    for (std::size_t v = 0; v < choices.size(); ++v) {
      t += fmt::format("    case {}: {{  // {}\n", v,
                       as_comment(k.configurations[choices[v].configuration].name));
      t += variant(step, choices[v], "      ");
      t += "    }\n";
    }
    t += "    default:\n      break;\n  }\n  static constexpr const char* kNames[] = {";
    for (std::size_t v = 0; v < choices.size(); ++v) {
      t += fmt::format("{}{}", v == 0 ? "" : ", ",
                       as_literal(k.configurations[choices[v].configuration].name));
    }
    t += fmt::format(
        "}};\n  return refuse_all(\"configuration of kernel {}\", kNames, conditions, {}, "
        "{});\n}}\n",
        k.name, count, choices.size());
    return t;
  }

  std::string variant(const KernelStep& step, const KernelChoice& choice, const std::string& in) {
    const Kernel& k = p_.kernels[step.kernel];
    const Configuration& c = k.configurations[choice.configuration];
    Names locals;
    std::string t, list;
    const auto grid = grid_of(p_, step, c);
    for (const LaunchValue& value : choice.values) {
      if (value.kind != LaunchValue::Kind::tensor_map) continue;
      // There are no maps of tensors without elements.
      t += fmt::format("{}if ({} == 0) return ATTUNE_WRAPPED_OK;\n", in,
                       over_sizes(count_of({grid[0], grid[1], grid[2]})));
      break;
    }
    for (const LaunchValue& value : choice.values) {
      const std::string name = locals.unique(local_name(k, value));
      t += in + this->value(step, value, name) + "\n";
      if (!list.empty()) list += ", ";
      list += "&" + name;
      if (value.kind == LaunchValue::Kind::tensor_map) {
        t += in +
             fmt::format("if (const int code = {}) return code;\n", encode(step, c, value, name));
      }
    }
    const bool none = choice.values.empty();
    if (!none) t += fmt::format("{}void* arguments[] = {{{}}};\n", in, list);
    t += fmt::format("{}return launch(run.call, {}, {{{}, {}, {}, {}}}, {});\n", in, choice.variant,
                     over_sizes(grid[0]), over_sizes(grid[1]), over_sizes(grid[2]),
                     c.fold ? "true" : "false", none ? "nullptr" : "arguments");
    return t;
  }

  static std::string local_name(const Kernel& k, const LaunchValue& value) {
    switch (value.kind) {
      case LaunchValue::Kind::global_scratch:
        return "global_scratch";
      case LaunchValue::Kind::profile_scratch:
        return "profile_scratch";
      case LaunchValue::Kind::descriptor_shape:
        return fmt::format("{}_extent_{}", k.parameters[value.parameter].name, value.axis);
      case LaunchValue::Kind::descriptor_stride:
        return fmt::format("{}_stride_{}", k.parameters[value.parameter].name, value.axis);
      case LaunchValue::Kind::descriptor_padding:
        return k.parameters[value.parameter].name + "_padding";
      default:
        return k.parameters[value.parameter].name;
    }
  }

  std::string value(const KernelStep& step, const LaunchValue& value, const std::string& name) {
    const auto scratch = [&](const std::string& place) {
      return fmt::format("Address {} = {};", name, place.empty() ? "0" : "run.at." + place);
    };
    if (value.kind == LaunchValue::Kind::global_scratch) return scratch(b_.global_scratch[index_]);
    if (value.kind == LaunchValue::Kind::profile_scratch) {
      return scratch(b_.profile_scratch[index_]);
    }
    const Argument& argument = *step.arguments[value.parameter];
    const auto* tensor = std::get_if<TensorArgument>(&argument);
    switch (value.kind) {
      case LaunchValue::Kind::pointer:
        return fmt::format("Address {} = {};", name, tensor == nullptr ? "0" : at(tensor->tensor));
      case LaunchValue::Kind::tensor_map:
        return fmt::format("TensorMap {}{{}};", name);
      case LaunchValue::Kind::descriptor_shape:
      case LaunchValue::Kind::descriptor_stride: {
        const TensorDeclaration& t = p_.tensors[tensor->tensor];
        const auto& list = value.kind == LaunchValue::Kind::descriptor_shape ? t.shape : t.strides;
        const std::string type = value.bytes == 4 ? "std::int32_t" : "std::int64_t";
        return fmt::format("{0} {1} = static_cast<{0}>({2});", type, name,
                           over_sizes(list[static_cast<std::size_t>(value.axis)]));
      }
      case LaunchValue::Kind::descriptor_padding:
        return fmt::format("std::uint8_t {} = 0;", name);
      default:
        return scalar(argument, value.element, name);
    }
  }

  std::string scalar(const Argument& argument, Element element, const std::string& name) {
    const std::string type = cpp_type(element);
    if (const auto* expression = std::get_if<Expression>(&argument)) {
      return fmt::format("{0} {1} = static_cast<{0}>({2});", type, name, over_sizes(*expression));
    }
    if (const auto* given = std::get_if<ScalarArgument>(&argument)) {
      return fmt::format("{0} {1} = static_cast<{0}>(run.arguments->{2});", type, name,
                         p_.scalars[given->scalar].name);
    }
    const double number = std::get<double>(argument);
    if (element == Element::f16 || element == Element::bf16) {
      return fmt::format("{} {} = {:#06x};  // {}", type, name, bits_of_half(element, number),
                         number);
    }
    return fmt::format("{} {} = {};", type, name,
                       element == Element::f64 ? as_double(number) : as_float(number));
  }

  std::string encode(const KernelStep& step, const Configuration& c, const LaunchValue& value,
                     const std::string& name) {
    const TensorDeclaration& tensor =
        p_.tensors[std::get<TensorArgument>(*step.arguments[value.parameter]).tensor];
    const DescriptorLayout& layout = c.binaries.front().launch.descriptors[value.descriptor];
    std::vector<Expression> block;
    for (const std::int64_t extent : layout.block) block.emplace_back(extent);
    return fmt::format("encode(&{}, {}, {}, {{{}, {}, {}, {}}}, {}, {}, {})", name,
                       as_literal(k_name(step, value)),
                       at(std::get<TensorArgument>(*step.arguments[value.parameter]).tensor),
                       tensor.shape.size(), layout.element_type, layout.element_bytes,
                       layout.swizzle, array_of(tensor.shape), array_of(tensor.strides),
                       array_of(block));
  }

  [[nodiscard]] std::string k_name(const KernelStep& step, const LaunchValue& value) const {
    return p_.kernels[step.kernel].parameters[value.parameter].name;
  }

  static std::string array_of(const std::vector<Expression>& list) {
    return "TensorMapExtents" + list_over_sizes(list);
  }

  std::string fallback(const KernelStep& step) {
    const Kernel& k = p_.kernels[step.kernel];
    std::vector<std::string> values;
    for (std::size_t i = 0; i < k.parameters.size(); ++i) {
      if (!step.arguments[i]) continue;
      const bool scalar = k.parameters[i].type.kind == ParameterType::Kind::scalar;
      values.push_back(function_value(
          *step.arguments[i], scalar ? std::optional(k.parameters[i].type.element) : std::nullopt));
    }
    return head("kernel " + k.name + " by " + k.fallback->name) +
           call_text(k.fallback->name, values);
  }

  std::string call(const CallStep& step) {
    std::vector<std::string> values;
    for (const Argument& argument : step.arguments) {
      values.push_back(function_value(argument, std::nullopt));
    }
    return head("function " + step.function.name) + call_text(step.function.name, values);
  }

  [[nodiscard]] static std::string call_text(const std::string& name,
                                             const std::vector<std::string>& values) {
    std::string t = fmt::format("  const int result = {}(run.arguments->stream", name);
    for (const std::string& value : values) t += ", " + value;
    t += fmt::format(
        ");\n  if (result == 0) return ATTUNE_WRAPPED_OK;\n"
        "  return fail(ATTUNE_WRAPPED_FUNCTION_FAILED, \"function {} returned %d\", result);\n}}\n",
        name);
    return t;
  }

  std::string function_value(const Argument& argument, std::optional<Element> element) {
    if (const auto* tensor = std::get_if<TensorArgument>(&argument)) {
      return b_.options.cpu ? at(tensor->tensor)
                            : fmt::format("reinterpret_cast<void*>({})", at(tensor->tensor));
    }
    if (std::holds_alternative<NullArgument>(argument)) return "nullptr";
    const bool half = element && facts(*element).c_type.empty();
    const std::string type = half ? "float" : element ? cpp_type(*element) : "";
    if (const auto* expression = std::get_if<Expression>(&argument)) {
      return type.empty() ? over_sizes(*expression)
                          : fmt::format("static_cast<{}>({})", type, over_sizes(*expression));
    }
    if (const auto* given = std::get_if<ScalarArgument>(&argument)) {
      const std::string value = "run.arguments->" + p_.scalars[given->scalar].name;
      return type.empty() ? value : fmt::format("static_cast<{}>({})", type, value);
    }
    const double number = std::get<double>(argument);
    return type == "float" ? as_float(number) : as_double(number);
  }

  std::string copy(const CopyStep& step) {
    const TensorDeclaration &from = p_.tensors[step.from], &to = p_.tensors[step.to];
    std::string t = head("copy of " + from.name + " to " + to.name);
    t += fmt::format("  const std::int64_t shape[] = {};\n", list_over_sizes(from.shape));
    t += fmt::format("  const std::int64_t from[] = {};\n", list_over_sizes(from.strides));
    t += fmt::format("  const std::int64_t to[] = {};\n", list_over_sizes(to.strides));
    t += fmt::format("  const Rows rows = rows_of({}, shape, from, to, {});\n", from.shape.size(),
                     bytes_of(from.element));
    t += fmt::format("  return copy({}{}, {}, rows);\n}}\n", b_.options.cpu ? "" : "run.call, ",
                     at(step.to), at(step.from));
    return t;
  }

  std::string fill(const FillStep& step) {
    const TensorDeclaration& tensor = p_.tensors[step.tensor];
    std::uint64_t bits = 0;
    int unit = bytes_of(tensor.element);
    switch (tensor.element) {
      case Element::f32:
        bits = std::bit_cast<std::uint32_t>(static_cast<float>(step.value));
        break;
      case Element::f64:
        bits = std::bit_cast<std::uint64_t>(step.value);
        break;
      case Element::f16:
      case Element::bf16:
        bits = bits_of_half(tensor.element, step.value);
        break;
      default:
        bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(step.value));
    }
    Expression count = count_of(tensor.shape);
    if (unit == 8) {
      // Two words that are alike; the checks have refused others.
      unit = 4;
      count = combine(Expression::Op::multiply, {std::move(count), Expression(2)});
    }
    const std::uint64_t mask = unit == 4 ? 0xffffffffU : (std::uint64_t{1} << (8 * unit)) - 1;
    std::string t = head(fmt::format("fill of {} with {}", tensor.name, step.value));
    t +=
        fmt::format("  return fill({}{}, {}, {}, {:#x});\n}}\n", b_.options.cpu ? "" : "run.call, ",
                    at(step.tensor), over_sizes(count), unit, bits & mask);
    return t;
  }

  const Blueprint& b_;
  const Program& p_;
  std::size_t index_;
  const Step& step_;
};

}  // namespace

std::string emit_steps(const Blueprint& b) {
  std::string t;
  for (std::size_t i = 0; i < b.program->steps.size(); ++i) {
    if (i > 0) t += "\n";
    t += StepEmitter(b, i).text();
  }
  return t;
}

}  // namespace attune::wrap
