// The kernels of a program: parameters, configurations and the files that they come from.
#include <algorithm>
#include <charconv>

#include "io/tensor.h"
#include "wrap/reading.h"

namespace attune::wrap {

namespace {

using Kind = JsonNode::Kind;

constexpr std::size_t kMostParameters = 512;

class KernelReader {
 public:
  KernelReader(Reading& reading, const JsonField& field)
      : reading_(reading), node_(field.value), path_(in("kernels", field.name)) {
    kernel_.name = field.name;
    kernel_.place = field.place;
  }

  Kernel read() {
    const JsonNode* configurations = node_.field("configurations");
    const bool known =
        configurations != nullptr
            ? reading_.object(node_, path_, {"parameters", "grid", "configurations", "fallback"})
            : reading_.object(node_, path_,
                              {"parameters", "grid", "fold", "when", "constants", "divisible_by",
                               "types", "binaries", "fallback"});
    if (!known) return std::move(kernel_);
    parameters();
    if (const JsonNode* fallback = node_.field("fallback")) {
      kernel_.fallback = reading_.function(*fallback, in(path_, "fallback"));
    }
    if (configurations == nullptr) {
      if (node_.field("binaries") != nullptr) {
        configuration(node_, path_, "configuration 0");
      } else if (!kernel_.fallback) {
        reading_.refuse(node_, path_,
                        "it has neither \"binaries\" nor \"configurations\" nor a "
                        "\"fallback\"");
      }
      return std::move(kernel_);
    }
    const std::string path = in(path_, "configurations");
    if (configurations->kind != Kind::array || configurations->elements.empty() ||
        configurations->elements.size() > 256) {
      reading_.refuse(*configurations, path, "an array of 1 to 256 objects was expected");
      return std::move(kernel_);
    }
    for (std::size_t i = 0; i < configurations->elements.size(); ++i) {
      const JsonNode& node = configurations->elements[i];
      if (!reading_.object(
              node, in(path, i),
              {"name", "grid", "fold", "when", "constants", "divisible_by", "types", "binaries"})) {
        break;
      }
      configuration(node, in(path, i), fmt::format("configuration {}", i));
    }
    return std::move(kernel_);
  }

 private:
  void parameters() {
    const JsonNode* list = reading_.required(node_, path_, "parameters");
    if (list == nullptr) return;
    const std::string path = in(path_, "parameters");
    if (list->kind != Kind::array || list->elements.size() > kMostParameters) {
      reading_.refuse(*list, path,
                      fmt::format("an array of at most {} objects was expected", kMostParameters));
      return;
    }
    for (std::size_t i = 0; i < list->elements.size(); ++i) {
      const JsonNode& node = list->elements[i];
      if (!reading_.object(node, in(path, i), {"name", "type"})) return;
      Parameter parameter;
      parameter.place = node.place;
      const JsonNode* name = reading_.required(node, in(path, i), "name");
      const JsonNode* type = reading_.required(node, in(path, i), "type");
      if (name == nullptr || type == nullptr) return;
      parameter.name = reading_.text(*name, in(path, i));
      if (!is_identifier(parameter.name)) {
        reading_.refuse(*name, in(path, i), "a name of letters, digits and _ was expected");
      }
      if (find(parameter.name) != nullptr) {
        reading_.refuse(*name, in(path, i), fmt::format("{} is there twice", parameter.name));
      }
      parameter.type = type_of(*type, in(path, i));
      kernel_.parameters.push_back(std::move(parameter));
    }
  }

  [[nodiscard]] const Parameter* find(std::string_view name) const {
    const auto found = std::find_if(kernel_.parameters.begin(), kernel_.parameters.end(),
                                    [&](const Parameter& p) { return p.name == name; });
    return found == kernel_.parameters.end() ? nullptr : &*found;
  }

  // The parameter, or null after saying that there is none.
  const Parameter* parameter(const JsonField& field, std::string_view path) {
    const Parameter* found = find(field.name);
    if (found == nullptr) {
      reading_.refuse(field.value, path,
                      fmt::format("the kernel has no parameter {}", in_quotes(field.name)));
    }
    return found;
  }

  ParameterType type_of(const JsonNode& node, std::string_view path) {
    const std::string text = reading_.text(node, path);
    ParameterType type;
    std::string_view rest = text;
    if (rest == "constexpr") {
      type.kind = ParameterType::Kind::constant;
      return type;
    }
    if (rest.starts_with("tensordesc<")) return descriptor(node, path, rest);
    if (rest.starts_with('*')) {
      type.kind = ParameterType::Kind::pointer;
      rest.remove_prefix(1);
      if (rest.starts_with('k')) rest.remove_prefix(1);  // Triton's pointer to constants
      type.untyped = rest.empty() || rest == "void";
      if (type.untyped) return type;
    }
    const auto element = element_of_triton(rest == "u1" ? "i1" : rest);
    if (!element) {
      reading_.refuse(node, path,
                      fmt::format("{} is no type: *fp32, i32, fp32, constexpr, "
                                  "tensordesc<fp16[64, 64]> are ones",
                                  in_quotes(text)));
      return type;
    }
    type.element = *element;
    return type;
  }

  // tensordesc<fp16[64, 64]>
  ParameterType descriptor(const JsonNode& node, std::string_view path, std::string_view text) {
    ParameterType type;
    type.kind = ParameterType::Kind::descriptor;
    text.remove_prefix(std::string_view("tensordesc<").size());
    const std::size_t open = text.find('['), close = text.find(']');
    const auto element = element_of_triton(text.substr(0, std::min(open, text.size())));
    bool ok = element.has_value() && open != std::string_view::npos &&
              close != std::string_view::npos && close > open;
    if (ok) {
      type.element = *element;
      std::string_view list = text.substr(open + 1, close - open - 1);
      while (ok && !list.empty()) {
        while (list.starts_with(' ')) list.remove_prefix(1);
        std::int64_t extent = 0;
        const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), extent);
        ok = error == std::errc{} && extent > 0;
        list.remove_prefix(static_cast<std::size_t>(end - list.data()));
        while (list.starts_with(' ')) list.remove_prefix(1);
        if (ok && !list.empty()) {
          ok = list.starts_with(',');
          list.remove_prefix(1);
        }
        type.block.push_back(extent);
      }
      ok = ok && !type.block.empty() && type.block.size() <= 5;
    }
    if (!ok) {
      reading_.refuse(node, path,
                      fmt::format("{} is no descriptor like tensordesc<fp16[64, 64]>, of "
                                  "one to five dimensions",
                                  in_quotes(node.text)));
      type.block = {1};
    }
    return type;
  }

  void configuration(const JsonNode& node, const std::string& path, std::string name) {
    Configuration c;
    c.name = std::move(name);
    c.place = node.place;
    if (&node != &node_) {
      if (const JsonNode* own = node.field("name")) c.name = reading_.text(*own, in(path, "name"));
    }
    if (const JsonNode* when = node.field("when")) {
      c.when = reading_.expression(*when, in(path, "when"));
    }
    const JsonNode* grid = node.field("grid");
    if (grid == nullptr) grid = node_.field("grid");
    if (grid != nullptr) c.grid = reading_.grid(*grid, in(path, "grid"));
    c.fold = reading_.flag_or(node, path, "fold", false);
    if (c.fold && !is_number(c.grid[2], 1)) {
      reading_.refuse(node, path, "\"fold\" needs the grid's z, which has to be 1 then");
    }
    constants(node, path, c);
    divisibilities(node, path, c);
    types(node, path, c);
    binaries(node, path, c);
    kernel_.configurations.push_back(std::move(c));
  }

  void constants(const JsonNode& node, const std::string& path, Configuration& c) {
    const JsonNode* constants = node.field("constants");
    if (constants == nullptr || !reading_.object(*constants, in(path, "constants"))) return;
    for (const JsonField& field : constants->fields) {
      const std::string where = in(in(path, "constants"), field.name);
      if (parameter(field, where) == nullptr) return;
      const JsonNode& value = field.value;
      if (value.kind == Kind::integer) {
        c.constants[field.name] = value.integer;
      } else if (value.kind == Kind::boolean) {
        c.constants[field.name] = value.boolean ? 1 : 0;
      } else if (value.kind == Kind::object || value.kind == Kind::array) {
        reading_.refuse(value, where,
                        fmt::format("a constant was expected, and not {}", describe(value)));
      } else {
        c.absent.push_back(field.name);
      }
    }
  }

  void divisibilities(const JsonNode& node, const std::string& path, Configuration& c) {
    const JsonNode* list = node.field("divisible_by");
    if (list == nullptr || !reading_.object(*list, in(path, "divisible_by"))) return;
    for (const JsonField& field : list->fields) {
      const std::string where = in(in(path, "divisible_by"), field.name);
      const Parameter* p = parameter(field, where);
      if (p == nullptr) return;
      const bool whole = p->type.kind == ParameterType::Kind::scalar &&
                         p->type.element != Element::f32 && p->type.element != Element::f64 &&
                         p->type.element != Element::f16 && p->type.element != Element::bf16;
      if (p->type.kind != ParameterType::Kind::pointer && !whole) {
        reading_.refuse(field.value, where, "only pointers and whole numbers are divisible");
        return;
      }
      c.divisible_by[field.name] = reading_.integer(field.value, where, 1, 1 << 20);
    }
  }

  void types(const JsonNode& node, const std::string& path, Configuration& c) {
    const JsonNode* list = node.field("types");
    if (list == nullptr || !reading_.object(*list, in(path, "types"))) return;
    for (const JsonField& field : list->fields) {
      const std::string where = in(in(path, "types"), field.name);
      const Parameter* p = parameter(field, where);
      if (p == nullptr) return;
      const ParameterType type = type_of(field.value, where);
      if (p->type.kind != ParameterType::Kind::scalar || type.kind != ParameterType::Kind::scalar) {
        reading_.refuse(field.value, where, "only scalars have other types in a configuration");
        return;
      }
      c.types[field.name] = type.element;
    }
  }

  void binaries(const JsonNode& node, const std::string& path, Configuration& c) {
    const JsonNode* list = reading_.required(node, path, "binaries");
    if (list == nullptr) return;
    const std::string where = in(path, "binaries");
    if (list->kind != Kind::array || list->elements.empty() || list->elements.size() > 64) {
      reading_.refuse(*list, where, "an array of 1 to 64 files was expected");
      return;
    }
    for (std::size_t i = 0; i < list->elements.size(); ++i) {
      c.binaries.push_back(binary(list->elements[i], in(where, i)));
    }
  }

  Binary binary(const JsonNode& node, const std::string& path) {
    Binary b;
    b.place = node.place;
    if (node.field("triton") != nullptr) {
      if (!reading_.object(node, path, {"triton"})) return b;
      b.path = reading_.text(*node.field("triton"), in(path, "triton"));
      b.launch.scratch_parameters = true;
      b.metadata = true;
      return b;
    }
    if (!reading_.object(node, path,
                         {"file", "entry", "arch", "block", "shared", "cluster", "cooperative",
                          "programmatic"})) {
      return b;
    }
    const JsonNode* file = reading_.required(node, path, "file");
    const JsonNode* block = reading_.required(node, path, "block");
    if (file == nullptr || block == nullptr) return b;
    b.path = reading_.text(*file, in(path, "file"));
    b.launch.block = reading_.extents(*block, in(path, "block"), 1024);
    const auto& [x, y, z] = b.launch.block;
    if (x * y * z > 1024) {
      reading_.refuse(
          *block, in(path, "block"),
          fmt::format("{} x {} x {} threads are more than the 1024 of a block", x, y, z));
    }
    if (const JsonNode* entry = node.field("entry"))
      b.symbol = reading_.text(*entry, in(path, "entry"));
    if (const JsonNode* arch = node.field("arch")) {
      const std::string name = reading_.text(*arch, in(path, "arch"));
      const auto target = target_from(name);
      if (!target && reading_.status().ok()) {
        reading_.refuse(*arch, in(path, "arch"),
                        fmt::format("{} is no architecture like sm_90", in_quotes(name)));
      }
      b.target = target.value_or(Target{});
      b.target_declared = true;
    }
    b.launch.shared_bytes = reading_.integer_or(node, path, "shared", 0, 1 << 20, 0);
    if (const JsonNode* cluster = node.field("cluster")) {
      b.launch.cluster = reading_.extents(*cluster, in(path, "cluster"), 16);
    }
    b.launch.cooperative = reading_.flag_or(node, path, "cooperative", false);
    b.launch.programmatic = reading_.flag_or(node, path, "programmatic", false);
    return b;
  }

  Reading& reading_;
  const JsonNode& node_;
  std::string path_;
  Kernel kernel_;
};

}  // namespace

Kernel read_kernel(Reading& reading, const JsonField& field) {
  reading.check_identifier(field.value, "kernels", field.name);
  return KernelReader(reading, field).read();
}

}  // namespace attune::wrap
