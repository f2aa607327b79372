// What generated text does with a call's arguments: sizes, checks, addresses, the workspace.
#include <fmt/format.h>

#include "wrap/blueprint.h"
#include "wrap/naming.h"
#include "wrap/size_binding.h"

namespace attune::wrap {

namespace {

constexpr const char* kFail = "return code;\n";

std::string take_sizes(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t =
      "// Reads the sizes off the arguments and holds everything else against them.\n"
      "inline int take_arguments(Run& run) {\n"
      "  [[maybe_unused]] const auto& a = *run.arguments;\n"
      "  [[maybe_unused]] Sizes& s = run.size;\n";
  std::size_t rule = 0;
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    t += fmt::format("  if (const int code = check_rank(kTensors[{}], a.{})) {}", rule++,
                     tensor.name, kFail);
  }
  const std::vector<SizeSource> sources = bind_sizes(p);
  for (std::size_t i = 0; i < p.sizes.size(); ++i) {
    const SizeSource& source = sources[i];
    const std::string& name = p.sizes[i].name;
    if (source.from == SizeSource::From::scalar) {
      t += fmt::format("  s.{0} = a.{0};\n", name);
    } else {
      t += fmt::format("  s.{} = a.{}.{}[{}];\n", name, p.tensors[source.index].name,
                       source.from == SizeSource::From::extent ? "shape" : "strides", source.axis);
    }
  }
  if (!p.sizes.empty()) {
    t += "  const std::int64_t sizes[] = {";
    for (std::size_t i = 0; i < p.sizes.size(); ++i) {
      t += fmt::format("{}s.{}", i == 0 ? "" : ", ", p.sizes[i].name);
    }
    t += fmt::format(
        "}};\n  for (int i = 0; i < {}; ++i) {{\n"
        "    if (const int code = check_size(kSizes[i], sizes[i])) return code;\n"
        "  }}\n",
        p.sizes.size());
  }
  return t;
}

std::string checks(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t;
  std::size_t rule = 0;
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    t += fmt::format("  {{\n    const std::int64_t shape[] = {};\n", list_over_sizes(tensor.shape));
    t += fmt::format("    const std::int64_t strides[] = {};\n", list_over_sizes(tensor.strides));
    t +=
        fmt::format("    if (const int code = check_tensor(kTensors[{}], a.{}, shape, strides)) {}",
                    rule++, tensor.name, kFail);
    t += "  }\n";
  }
  for (const TensorDeclaration& tensor : p.tensors) {
    if (tensor.role != TensorRole::view) continue;
    const TensorDeclaration& base = p.tensors[tensor.base];
    const Expression count = count_of(tensor.shape), has = extent_bytes(base);
    const Expression end = combine(
        Expression::Op::add,
        {combine(Expression::Op::multiply, {tensor.offset, Expression(bytes_of(tensor.element))}),
         extent_bytes(tensor)});
    if (end == has) continue;  // all of it, in another shape
    if (end.op == Expression::Op::number && has.op == Expression::Op::number) continue;
    t += fmt::format(
        "  if ({} > 0) {{\n    if (const int code = check_view({}, {}, {}, {})) {}  }}\n",
        over_sizes(count), as_literal(tensor.name), as_literal(base.name), over_sizes(end),
        over_sizes(has), kFail);
  }
  return t;
}

std::string workspace(const Blueprint& b) {
  if (b.slots.empty()) return "";
  std::string t =
      "\n// The parts of the workspace, which temporaries share whose steps do not meet: where "
      "each begins,\n"
      "// and the bytes of all.\n"
      "struct Workspace {\n";
  t += fmt::format("  std::int64_t begin[{}];\n  std::int64_t bytes;\n}};\n", b.slots.size());
  t += "\ninline Workspace lay_out([[maybe_unused]] const Sizes& s) {\n  const std::int64_t "
       "bytes[] = {";
  for (std::size_t slot = 0; slot < b.slots.size(); ++slot) {
    t += fmt::format("\n      {},  // {}:", over_sizes(b.slots[slot]), slot);
    for (const auto& resident : b.residents) {
      if (resident.slot == slot) t += " " + resident.place;
    }
  }
  t += fmt::format(
      "\n  }};\n  Workspace w{{}};\n  for (int i = 0; i < {}; ++i) {{\n"
      "    w.begin[i] = w.bytes;\n    w.bytes += round_up(bytes[i], {});\n  }}\n  return w;\n}}\n",
      b.slots.size(), kStorageAlignment);
  return t;
}

std::string addresses(const Blueprint& b) {
  const Program& p = *b.program;
  const bool cpu = b.options.cpu;
  std::string t = fmt::format(
      "\n// Where everything lies: constants, then the workspace, then views.\n"
      "inline void take_addresses(Run& run, [[maybe_unused]] Address constants{}) {{\n"
      "  [[maybe_unused]] const Sizes& s = run.size;\n  [[maybe_unused]] Places& at = run.at;\n",
      b.slots.empty() ? ""
                      : ",\n                           Address workspace, const Workspace& layout");
  const auto offset = [&](const std::string& expression) {
    return cpu ? expression : fmt::format("static_cast<Address>({})", expression);
  };
  for (std::size_t i = 0; i < p.tensors.size(); ++i) {
    const TensorDeclaration& tensor = p.tensors[i];
    if (is_outside(tensor)) {
      t += fmt::format("  at.{} = {}<Address>(run.arguments->{}.data);\n", b.place[i],
                       cpu ? "static_cast" : "reinterpret_cast", tensor.name);
    } else if (tensor.role == TensorRole::constant) {
      t += fmt::format("  at.{} = constants + {};\n", b.place[i], b.constant_offset[i]);
    }
  }
  for (const auto& resident : b.residents) {
    t += fmt::format("  at.{} = workspace + {};\n", resident.place,
                     offset(fmt::format("layout.begin[{}]", resident.slot)));
  }
  for (std::size_t i = 0; i < p.tensors.size(); ++i) {
    const TensorDeclaration& tensor = p.tensors[i];
    if (tensor.role != TensorRole::view) continue;
    const std::string& base = b.place[tensor.base];
    if (is_number(tensor.offset, 0)) {
      t += fmt::format("  at.{} = at.{};\n", b.place[i], base);
    } else {
      const Expression bytes =
          combine(Expression::Op::multiply, {tensor.offset, Expression(bytes_of(tensor.element))});
      t += fmt::format("  at.{} = at.{} + {};\n", b.place[i], base, offset(over_sizes(bytes)));
    }
  }
  return t + "}\n";
}

}  // namespace

std::string emit_arguments(const Blueprint& b) {
  std::string t = take_sizes(b);
  if (b.options.checks) t += checks(b);
  t += "  return ATTUNE_WRAPPED_OK;\n}\n";
  t += workspace(b);
  t += addresses(b);
  return t;
}

}  // namespace attune::wrap
