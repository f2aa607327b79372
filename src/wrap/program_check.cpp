// What can be known of a program before anybody calls it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <set>
#include <utility>

#include "io/no_throw.h"
#include "io/tensor.h"
#include "wrap/kernel_step.h"
#include "wrap/program_reader.h"
#include "wrap/size_binding.h"

namespace attune::wrap {

namespace {

constexpr std::int64_t kMostBytes = std::int64_t{1} << 62;

class Checker {
 public:
  explicit Checker(const Program& program) : program_(program) {}

  Status run() {
    for (const auto check :
         {&Checker::names, &Checker::sizes, &Checker::tensors, &Checker::steps, &Checker::writes}) {
      if (Status status = (this->*check)(); !status.ok()) return status;
    }
    return {};
  }

 private:
  [[nodiscard]] Expected<Range> range(const Expression& expression) const {
    return bounds(expression, [&](const std::string& name) { return program_.range_of(name); });
  }

  // Sizes, scalars, inputs and outputs are members of the same generated structs.
  Status names() {
    std::set<std::string> seen;
    const auto take = [&](const std::string& name, const Place& place) -> Status {
      if (seen.insert(name).second) return {};
      return at(place, fmt::format("{} is the name of two things", name));
    };
    for (const Size& size : program_.sizes) {
      if (Status status = take(size.name, size.place); !status.ok()) return status;
    }
    for (const ScalarDeclaration& scalar : program_.scalars) {
      if (program_.range_of(scalar.name)) continue;  // whole numbers are sizes
      if (Status status = take(scalar.name, scalar.place); !status.ok()) return status;
    }
    for (const TensorDeclaration& tensor : program_.tensors) {
      if (!is_outside(tensor)) continue;
      if (Status status = take(tensor.name, tensor.place); !status.ok()) return status;
    }
    std::set<std::string> kernels;
    for (const Kernel& kernel : program_.kernels) {
      if (!kernels.insert(kernel.name).second) {
        return at(kernel.place, fmt::format("there are two kernels {}", kernel.name));
      }
    }
    return {};
  }

  Status sizes() {
    const std::vector<SizeSource> sources = bind_sizes(program_);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (sources[i].from != SizeSource::From::nowhere) continue;
      const Size& size = program_.sizes[i];
      return at(size.place, fmt::format("sizes.{}: no call says how large it is: it has to be an "
                                        "extent or a stride of an input or an output, or a whole "
                                        "number among the inputs",
                                        size.name));
    }
    return {};
  }

  Status tensors() {
    for (const TensorDeclaration& tensor : program_.tensors) {
      const auto refused = [&](std::string_view what, const Status& status) {
        return at(tensor.place, fmt::format("{}: {}: {}", tensor.name, what, status.message()));
      };
      for (const auto& [what, numbers] :
           {std::pair{"shape", &tensor.shape}, {"strides", &tensor.strides}}) {
        for (const Expression& number : *numbers) {
          const auto r = range(number);
          if (!r.ok()) return refused(what, r.status());
          if (r->min >= 0) continue;
          return at(tensor.place, fmt::format("{}: {}: {} may be {}", tensor.name, what,
                                              to_text(number), r->min));
        }
      }
      const auto bytes = range(extent_bytes(tensor));
      if (!bytes.ok()) return refused("shape", bytes.status());
      if (bytes->max > kMostBytes) {
        return at(tensor.place, fmt::format("{}: it may have {} bytes: declare smaller \"max\" of "
                                            "the sizes in its shape",
                                            tensor.name, bytes->max));
      }
      const auto offset = range(tensor.offset);
      if (!offset.ok()) return refused("offset", offset.status());
      if (offset->min < 0 || offset->max > kMostBytes / 8) {
        return at(tensor.place,
                  fmt::format("{}: its offset {} may be {}", tensor.name, to_text(tensor.offset),
                              offset->min < 0 ? offset->min : offset->max));
      }
      if (tensor.role == TensorRole::view) {
        if (Status status = view(tensor); !status.ok()) return status;
      }
    }
    return {};
  }

  // That a view lies in what it is a view of, for the least, the largest and the middle sizes: generated
  // text looks again at each call.
  Status view(const TensorDeclaration& tensor) {
    const TensorDeclaration& base = program_.tensors[tensor.base];
    const Expression end = combine(
        Expression::Op::add,
        {combine(Expression::Op::multiply, {tensor.offset, Expression(bytes_of(tensor.element))}),
         extent_bytes(tensor)});
    for (const int third : {0, 1, 2}) {
      const auto value = [&](const std::string& name) -> std::optional<std::int64_t> {
        const auto r = program_.range_of(name);
        if (!r) return std::nullopt;
        const std::int64_t middle = third == 0   ? r->min
                                    : third == 2 ? r->max
                                                 : r->min + (r->max - r->min) / 2;
        return std::max(middle / r->multiple_of * r->multiple_of, r->min);
      };
      if (evaluate(count_of(tensor.shape), value) == 0) continue;
      const std::int64_t needs = evaluate(end, value);
      const std::int64_t has = evaluate(extent_bytes(base), value);
      if (needs <= has) continue;
      std::string sizes;
      for (const Size& size : program_.sizes) {
        sizes += fmt::format("{}{} = {}", sizes.empty() ? "" : ", ", size.name, *value(size.name));
      }
      return at(tensor.place,
                fmt::format("{}: it ends at byte {}, and {} has {} bytes{}{}", tensor.name, needs,
                            base.name, has, sizes.empty() ? "" : " where ", sizes));
    }
    return {};
  }

  Status steps() {
    for (const Step& step : program_.steps) {
      Status status;
      if (const auto* kernel = std::get_if<KernelStep>(&step.action)) {
        status = this->kernel(step, *kernel);
      } else if (const auto* copy = std::get_if<CopyStep>(&step.action)) {
        status = this->copy(step, *copy);
      } else if (const auto* fill = std::get_if<FillStep>(&step.action)) {
        status = this->fill(step, *fill);
      } else if (const auto* call = std::get_if<CallStep>(&step.action)) {
        status = this->call(step, *call);
      }
      if (!status.ok()) return status;
    }
    return {};
  }

  static Status refused(const Step& step, const std::string& why) {
    return at(step.place, fmt::format("step {}: {}", step.name, why));
  }

  Status number(const Step& step, const std::string& what, const Expression& expression,
                std::int64_t least) {
    const auto r = range(expression);
    if (!r.ok()) return refused(step, fmt::format("{}: {}", what, r.status().message()));
    if (r->min >= least) return {};
    return refused(step, fmt::format("{}: {} may be {}", what, to_text(expression), r->min));
  }

  Status kernel(const Step& step, const KernelStep& action) {
    const Kernel& kernel = program_.kernels[action.kernel];
    for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
      if (Status status = argument(step, kernel, action, i); !status.ok()) return status;
    }
    for (const Configuration& c : kernel.configurations) {
      if (c.when) {
        const Expression when = resolve(program_, action, c, *c.when);
        if (Status status = number(step, fmt::format("{}: when", c.name), when, INT64_MIN);
            !status.ok()) {
          return status;
        }
      }
      const std::array<Expression, 3> grid = grid_of(program_, action, c);
      for (const Expression& extent : grid) {
        if (Status status = number(step, fmt::format("{}: grid", c.name), extent, 0);
            !status.ok()) {
          return status;
        }
      }
      if (Status status = number(step, fmt::format("{}: grid", c.name),
                                 count_of({grid[0], grid[1], grid[2]}), 0);
          !status.ok()) {
        return status;
      }
      if (Status status = files(kernel, c); !status.ok()) return status;
    }
    for (const Expression& bytes :
         {global_scratch_bytes(program_, action), profile_scratch_bytes(program_, action)}) {
      if (Status status = number(step, "scratch memory", bytes, 0); !status.ok()) return status;
    }
    return {};
  }

  // A constant in one configuration may be an argument in another.
  Status argument(const Step& step, const Kernel& kernel, const KernelStep& action, std::size_t i) {
    const Parameter& p = kernel.parameters[i];
    const std::optional<Argument>& argument = action.arguments[i];
    const auto& all = kernel.configurations;
    const auto has_constant = [&](const Configuration& c) {
      return c.constants.count(p.name) > 0 ||
             std::find(c.absent.begin(), c.absent.end(), p.name) != c.absent.end();
    };
    if (p.type.kind == ParameterType::Kind::constant) {
      for (const Configuration& c : all) {
        if (has_constant(c)) continue;
        return at(c.place, fmt::format("kernel {}, {}: the constant {} has no value", kernel.name,
                                       c.name, p.name));
      }
      return {};
    }
    if (!argument) {
      if (!all.empty() && std::all_of(all.begin(), all.end(), has_constant)) return {};
      return refused(step,
                     fmt::format("kernel {}: the argument {} is missing", kernel.name, p.name));
    }
    if (const auto* value = std::get_if<Expression>(&*argument)) {
      return number(step, fmt::format("kernel {}, argument {}", kernel.name, p.name), *value,
                    INT64_MIN);
    }
    const auto* given = std::get_if<TensorArgument>(&*argument);
    if (given == nullptr) return {};
    const TensorDeclaration& tensor = program_.tensors[given->tensor];
    if (!p.type.untyped && !same_bits(p.type.element, tensor.element)) {
      return refused(step, fmt::format("kernel {}, argument {}: the kernel takes {}, and {} is {}",
                                       kernel.name, p.name, facts(p.type.element).name, tensor.name,
                                       facts(tensor.element).name));
    }
    if (p.type.kind == ParameterType::Kind::descriptor &&
        tensor.shape.size() != p.type.block.size()) {
      return refused(
          step,
          fmt::format("kernel {}, argument {}: the kernel takes a descriptor of {} "
                      "dimensions, and {} has {}",
                      kernel.name, p.name, p.type.block.size(), tensor.name, tensor.shape.size()));
    }
    return {};
  }

  // Triton passes booleans as pointers to bytes.
  static bool same_bits(Element a, Element b) {
    if (a == b) return true;
    const auto byte = [](Element e) {
      return e == Element::boolean || e == Element::u8 || e == Element::i8;
    };
    return byte(a) && byte(b);
  }

  static Status files(const Kernel& kernel, const Configuration& c) {
    for (const Binary& binary : c.binaries) {
      if (binary.bytes.empty()) continue;  // not loaded
      const auto values = checked_launch_values(kernel, c, binary);
      if (!values.ok()) return at(binary.place, values.status().message());
      std::size_t descriptors = 0;
      for (const LaunchValue& value : *values) {
        if (value.kind == LaunchValue::Kind::tensor_map) ++descriptors;
      }
      if (binary.launch.has_descriptors && descriptors != binary.launch.descriptors.size()) {
        return at(
            binary.place,
            fmt::format("{}: kernel {}: the metadata has {} descriptors, and the signature {}",
                        binary.path.string(), kernel.name, binary.launch.descriptors.size(),
                        descriptors));
      }
    }
    return {};
  }

  Status copy(const Step& step, const CopyStep& action) {
    const TensorDeclaration &from = program_.tensors[action.from],
                            &to = program_.tensors[action.to];
    if (from.element != to.element || from.shape != to.shape) {
      return refused(step, fmt::format("{} is {}{}, and {} is {}{}", from.name,
                                       facts(from.element).name, shape_text(from.shape), to.name,
                                       facts(to.element).name, shape_text(to.shape)));
    }
    for (const TensorDeclaration* tensor : {&from, &to}) {
      if (tensor->contiguous || tensor->shape.empty()) continue;
      if (is_number(tensor->strides.back(), 1)) continue;
      return refused(step, fmt::format("the last stride of {} is {}; rows of neighbours are copied",
                                       tensor->name, to_text(tensor->strides.back())));
    }
    return {};
  }

  Status fill(const Step& step, const FillStep& action) {
    const TensorDeclaration& tensor = program_.tensors[action.tensor];
    if (!tensor.contiguous) {
      return refused(step,
                     fmt::format("{} has gaps; only tensors without are filled", tensor.name));
    }
    const bool whole = tensor.element != Element::f32 && tensor.element != Element::f16 &&
                       tensor.element != Element::bf16 && tensor.element != Element::f64;
    const bool is_f8 = tensor.element == Element::f8e4m3 || tensor.element == Element::f8e5m2;
    if ((whole && (action.value != std::floor(action.value) || std::fabs(action.value) > 9e18)) ||
        (is_f8 && action.value != 0)) {
      return refused(step, fmt::format("{} is no value of {}, a {}", action.value, tensor.name,
                                       facts(tensor.element).name));
    }
    // The driver fills with words of at most four bytes.
    if (bytes_of(tensor.element) != 8) return {};
    const auto bits = tensor.element == Element::f64
                          ? std::bit_cast<std::uint64_t>(action.value)
                          : static_cast<std::uint64_t>(static_cast<std::int64_t>(action.value));
    if ((bits >> 32) == (bits & 0xffffffffU)) return {};
    return refused(step,
                   fmt::format("{} is no value that a {} is filled with: its two words differ",
                               action.value, facts(tensor.element).name));
  }

  Status call(const Step& step, const CallStep& action) {
    for (std::size_t i = 0; i < action.arguments.size(); ++i) {
      const auto* value = std::get_if<Expression>(&action.arguments[i]);
      if (value == nullptr) continue;
      if (Status status =
              number(step, fmt::format("argument {}", action.names[i]), *value, INT64_MIN);
          !status.ok()) {
        return status;
      }
    }
    return {};
  }

  // Kernels and functions may write whatever they are given; of the rest it is known.
  Status writes() {
    std::set<std::size_t> written, given;
    for (std::size_t i = 0; i < program_.tensors.size(); ++i) {
      const TensorRole role = program_.tensors[i].role;
      if (role == TensorRole::input || role == TensorRole::constant) given.insert(i);
    }
    for (const Step& step : program_.steps) {
      std::vector<std::size_t> reads, outputs;
      if (const auto* copy = std::get_if<CopyStep>(&step.action)) {
        reads = {copy->from};
        outputs = {copy->to};
      } else if (const auto* fill = std::get_if<FillStep>(&step.action)) {
        outputs = {fill->tensor};
      } else if (const auto* attention = std::get_if<AttentionStep>(&step.action)) {
        const bool backward = attention->problem.starts_with("backward");
        for (const auto& [name, tensor] : attention->tensors) {
          const bool output =
              backward ? name.starts_with("grad_") && name != "grad_o" && name != "grad_lse"
                       : name == "o" || name == "lse";
          (output ? outputs : reads).push_back(tensor);
        }
      } else {
        for (const std::size_t tensor : tensors_of(step)) {
          const std::size_t storage = program_.storage_of(tensor);
          if (given.count(storage) == 0) written.insert(storage);
        }
      }
      for (const std::size_t tensor : reads) {
        const std::size_t storage = program_.storage_of(tensor);
        if (given.count(storage) > 0 || written.count(storage) > 0) continue;
        return refused(step, fmt::format("it reads {}, which no step before has written",
                                         program_.tensors[tensor].name));
      }
      for (const std::size_t tensor : outputs) {
        const std::size_t storage = program_.storage_of(tensor);
        if (given.count(storage) > 0) {
          return refused(step,
                         fmt::format("it writes {}, which is an {}", program_.tensors[tensor].name,
                                     program_.tensors[storage].role == TensorRole::input
                                         ? "input"
                                         : "unchangeable constant"));
        }
        written.insert(storage);
      }
    }
    for (std::size_t i = 0; i < program_.tensors.size(); ++i) {
      const TensorDeclaration& tensor = program_.tensors[i];
      if (tensor.role != TensorRole::output || written.count(i) > 0) continue;
      return at(tensor.place, fmt::format("outputs.{}: no step writes it", tensor.name));
    }
    return {};
  }

  const Program& program_;
};

}  // namespace

Status check_program(const Program& program) {
  return no_throw([&]() -> Status { return Checker(program).run(); });
}

}  // namespace attune::wrap
