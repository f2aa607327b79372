#include "wrap/step_reader.h"

#include <algorithm>
#include <array>

#include "io/tensor.h"
#include "problem/shapes.h"
#include "wrap/layout_reader.h"

namespace attune::wrap {

namespace {

using Kind = JsonNode::Kind;

// As in attune::Arguments; those of backward too.
bool is_tensor_of_attention(std::string_view name) {
  if (name == "dropout_state") return true;
  const auto specs = tensors_of(Problem{});
  return std::any_of(specs.begin(), specs.end(),
                     [&](const TensorSpec& spec) { return spec.name == name; });
}

class StepReader {
 public:
  StepReader(Reading& reading, Program& program) : reading_(reading), program_(program) {}

  void read(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path)) return;
    step_ = {};
    step_.place = node.place;
    step_.name = "step";
    struct Way {
      std::string_view field;
      bool (StepReader::*read)(const JsonNode&, const std::string&);
    };
    constexpr std::array kWays = {
        Way{"kernel", &StepReader::kernel}, Way{"attention", &StepReader::attention},
        Way{"copy", &StepReader::copy},     Way{"fill", &StepReader::fill},
        Way{"view", &StepReader::view},     Way{"call", &StepReader::call}};
    const Way* way = nullptr;
    for (const Way& one : kWays) {
      if (node.field(one.field) == nullptr) continue;
      if (way != nullptr) {
        reading_.refuse(node, path,
                        fmt::format("it is a {} and a {} at once", way->field, one.field));
        return;
      }
      way = &one;
    }
    if (way == nullptr) {
      reading_.refuse(node, path, "a step is one of kernel, attention, copy, fill, view, call");
      return;
    }
    const bool runs = (this->*way->read)(node, path);
    if (const JsonNode* name = node.field("name")) {
      step_.name = reading_.text(*name, in(path, "name"));
    }
    if (runs && reading_.status().ok()) program_.steps.push_back(std::move(step_));
  }

 private:
  std::size_t tensor(const JsonNode& node, std::string_view path) {
    const std::string name = reading_.text(node, path);
    const auto found = program_.tensor_named(name);
    if (!found && reading_.status().ok()) {
      reading_.refuse(node, path, fmt::format("there is no tensor {} up to here", in_quotes(name)));
    }
    return found.value_or(0);
  }

  std::size_t tensor_field(const JsonNode& node, std::string_view path, std::string_view name) {
    const JsonNode* field = reading_.required(node, path, name);
    return field == nullptr ? 0 : tensor(*field, in(path, name));
  }

  bool kernel(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"kernel", "name", "arguments", "grid"})) return false;
    const std::string name = reading_.text(*node.field("kernel"), in(path, "kernel"));
    const auto found = std::find_if(program_.kernels.begin(), program_.kernels.end(),
                                    [&](const Kernel& k) { return k.name == name; });
    if (found == program_.kernels.end()) {
      reading_.refuse(*node.field("kernel"), in(path, "kernel"),
                      fmt::format("there is no kernel {}", in_quotes(name)));
      return false;
    }
    step_.name = name;
    KernelStep step;
    step.kernel = static_cast<std::size_t>(found - program_.kernels.begin());
    step.arguments.resize(found->parameters.size());
    if (const JsonNode* grid = node.field("grid")) {
      step.grid = reading_.grid(*grid, in(path, "grid"));
    }
    const JsonNode* arguments = node.field("arguments");
    const std::string where = in(path, "arguments");
    if (arguments != nullptr && reading_.object(*arguments, where)) {
      for (const JsonField& field : arguments->fields) {
        const auto parameter =
            std::find_if(found->parameters.begin(), found->parameters.end(),
                         [&](const Parameter& p) { return p.name == field.name; });
        if (parameter == found->parameters.end()) {
          reading_.refuse(
              field.value, where,
              fmt::format("kernel {} has no parameter {}", name, in_quotes(field.name)));
          return false;
        }
        step.arguments[static_cast<std::size_t>(parameter - found->parameters.begin())] =
            argument(field.value, in(where, field.name), parameter->type);
      }
    }
    step_.action = std::move(step);
    return true;
  }

  Argument argument(const JsonNode& node, const std::string& path, const ParameterType& type) {
    switch (type.kind) {
      case ParameterType::Kind::pointer:
        if (node.kind == Kind::null) return NullArgument{};
        return TensorArgument{tensor(node, path)};
      case ParameterType::Kind::descriptor:
        return TensorArgument{tensor(node, path)};
      case ParameterType::Kind::constant:
        reading_.refuse(node, path, "it is a constant of the kernel: its configurations have it");
        return NullArgument{};
      case ParameterType::Kind::scalar:
        break;
    }
    switch (type.element) {
      case Element::f32:
      case Element::f64:
      case Element::f16:
      case Element::bf16:
        return real(node, path);
      default:
        if (node.kind == Kind::boolean) return Expression(node.boolean ? 1 : 0);
        return reading_.expression(node, path);
    }
  }

  Argument real(const JsonNode& node, const std::string& path) {
    if (node.kind == Kind::integer || node.kind == Kind::real) return node.real;
    const std::string name = reading_.text(node, path);
    for (std::size_t i = 0; i < program_.scalars.size(); ++i) {
      if (program_.scalars[i].name == name) return ScalarArgument{i};
    }
    reading_.refuse(node, path,
                    fmt::format("a number or the name of a scalar input was expected, and not {}",
                                describe(node)));
    return 0.0;
  }

  bool attention(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"attention", "name"})) return false;
    const JsonNode& fields = *node.field("attention");
    const std::string where = in(path, "attention");
    if (!reading_.object(fields, where)) return false;
    step_.name = "attention";
    AttentionStep step;
    for (const JsonField& field : fields.fields) {
      const std::string here = in(where, field.name);
      constexpr std::int64_t kMost = INT64_MAX;
      if (field.name == "problem") {
        step.problem = reading_.text(field.value, here);
      } else if (field.name == "dropout_seed") {
        step.dropout_seed =
            static_cast<std::uint64_t>(reading_.integer(field.value, here, 0, kMost));
      } else if (field.name == "dropout_offset") {
        step.dropout_offset =
            static_cast<std::uint64_t>(reading_.integer(field.value, here, 0, kMost));
      } else if (field.name == "max_seqlen_q") {
        step.max_seqlen_q = reading_.expression(field.value, here);
      } else if (field.name == "max_seqlen_k") {
        step.max_seqlen_k = reading_.expression(field.value, here);
      } else if (is_tensor_of_attention(field.name)) {
        step.tensors.emplace_back(field.name, tensor(field.value, here));
      } else {
        reading_.refuse(
            field.value, here,
            "attention has no such field; it has problem, dropout_seed, dropout_offset, "
            "max_seqlen_q, max_seqlen_k, q, k, v, o, lse, bias and the others of "
            "attune::Arguments");
        return false;
      }
    }
    for (const char* needed : {"q", "k", "v", "o"}) {
      if (reading_.required(fields, where, needed) == nullptr) return false;
    }
    step_.action = std::move(step);
    return true;
  }

  bool copy(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"copy", "name"})) return false;
    const JsonNode& fields = *node.field("copy");
    const std::string where = in(path, "copy");
    if (!reading_.object(fields, where, {"from", "to"})) return false;
    step_.name = "copy";
    step_.action = CopyStep{tensor_field(fields, where, "from"), tensor_field(fields, where, "to")};
    return true;
  }

  bool fill(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"fill", "name"})) return false;
    const JsonNode& fields = *node.field("fill");
    const std::string where = in(path, "fill");
    if (!reading_.object(fields, where, {"tensor", "value"})) return false;
    step_.name = "fill";
    FillStep step;
    step.tensor = tensor_field(fields, where, "tensor");
    if (const JsonNode* value = reading_.required(fields, where, "value")) {
      if (value->kind != Kind::integer && value->kind != Kind::real) {
        reading_.refuse(*value, in(where, "value"),
                        fmt::format("a number was expected, and not {}", describe(*value)));
      }
      step.value = value->real;
    }
    step_.action = step;
    return true;
  }

  // Only another name for the same bytes: no step at run time.
  bool view(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"view", "name"})) return false;
    const JsonNode& fields = *node.field("view");
    const std::string where = in(path, "view");
    if (!reading_.object(fields, where, {"of", "as", "shape", "strides", "offset", "dtype"})) {
      return false;
    }
    TensorDeclaration view;
    view.role = TensorRole::view;
    view.place = node.place;
    view.base = tensor_field(fields, where, "of");
    const JsonNode* name = reading_.required(fields, where, "as");
    const JsonNode* shape = reading_.required(fields, where, "shape");
    if (name == nullptr || shape == nullptr || !reading_.status().ok()) return false;
    view.name = reading_.text(*name, in(where, "as"));
    if (program_.tensor_named(view.name)) {
      reading_.refuse(*name, in(where, "as"),
                      fmt::format("there is a tensor {} already", in_quotes(view.name)));
    }
    const TensorDeclaration& base = program_.tensors[view.base];
    view.element = base.element;
    if (const JsonNode* dtype = fields.field("dtype")) {
      view.element = reading_.element(*dtype, in(where, "dtype"));
      if (bytes_of(view.element) != bytes_of(base.element)) {
        reading_.refuse(*dtype, in(where, "dtype"),
                        fmt::format("{} has {} bytes, and the {} of {} has {}",
                                    facts(view.element).name, bytes_of(view.element),
                                    facts(base.element).name, base.name, bytes_of(base.element)));
      }
    }
    read_layout(reading_, fields, where, *shape, view);
    if (const JsonNode* offset = fields.field("offset")) {
      view.offset = reading_.expression(*offset, in(where, "offset"));
    }
    view.alignment = bytes_of(view.element);
    program_.tensors.push_back(std::move(view));
    return false;
  }

  bool call(const JsonNode& node, const std::string& path) {
    if (!reading_.object(node, path, {"call", "name"})) return false;
    const JsonNode& fields = *node.field("call");
    const std::string where = in(path, "call");
    if (!reading_.object(fields, where, {"function", "source", "arguments"})) return false;
    CallStep step;
    const JsonNode* function = reading_.required(fields, where, "function");
    if (function == nullptr) return false;
    step.function.name = reading_.identifier(*function, in(where, "function"));
    step.function.place = function->place;
    if (const JsonNode* source = fields.field("source")) {
      step.function.source = reading_.text(*source, in(where, "source"));
    }
    step_.name = step.function.name;
    if (const JsonNode* arguments = fields.field("arguments");
        arguments != nullptr && reading_.object(*arguments, in(where, "arguments"))) {
      for (const JsonField& field : arguments->fields) {
        const std::string here = in(in(where, "arguments"), field.name);
        reading_.check_identifier(field.value, here, field.name);
        step.names.push_back(field.name);
        step.arguments.push_back(read_argument(reading_, field.value, here, program_));
      }
    }
    step_.action = std::move(step);
    return true;
  }

  Reading& reading_;
  Program& program_;
  Step step_;
};

}  // namespace

Argument read_argument(Reading& reading, const JsonNode& node, std::string_view path,
                       const Program& program) {
  switch (node.kind) {
    case Kind::null:
      return NullArgument{};
    case Kind::boolean:
      return Expression(node.boolean ? 1 : 0);
    case Kind::real:
      return node.real;
    default:
      break;
  }
  if (node.kind == Kind::text) {
    if (const auto tensor = program.tensor_named(node.text)) return TensorArgument{*tensor};
    for (std::size_t i = 0; i < program.scalars.size(); ++i) {
      if (program.scalars[i].name == node.text && !program.range_of(node.text)) {
        return ScalarArgument{i};
      }
    }
  }
  return reading.expression(node, path);
}

void read_steps(Reading& reading, const JsonNode& steps, Program& program) {
  constexpr std::size_t kMost = 10'000;
  if (steps.kind != Kind::array || steps.elements.size() > kMost) {
    reading.refuse(steps, "steps", fmt::format("an array of at most {} was expected", kMost));
    return;
  }
  StepReader reader(reading, program);
  for (std::size_t i = 0; i < steps.elements.size() && reading.status().ok(); ++i) {
    reader.read(steps.elements[i], in("steps", i));
  }
}

}  // namespace attune::wrap
