// Data of the generated source: files, kernels, sizes and tensors.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "wrap/blueprint.h"
#include "wrap/naming.h"

namespace attune::wrap {

namespace {

std::string extents(const std::array<std::int64_t, 3>& e) {
  return fmt::format("{{{}, {}, {}}}", e[0], e[1], e[2]);
}

std::string image_row(const PackageImage& image, const std::string& embedded) {
  return fmt::format("{{{}, {}, {:#x}U, {}}}", as_literal(image.file), image.bytes.size(),
                     image.hash, embedded);
}

std::string embedded_name(const Blueprint& b, const std::string& which) {
  return b.options.embed ? fmt::format("{}_{}", b.program->name, which) : "nullptr";
}

const char* flag(bool on) { return on ? "true" : "false"; }

std::string kernel_tables(const Blueprint& b) {
  std::string t;
  // Parameters by their sizes: the same lists come again and again.
  std::map<std::vector<std::uint32_t>, std::size_t> lists;
  for (const PackageBinary& binary : b.binaries) {
    if (binary.parameter_bytes.empty() || lists.count(binary.parameter_bytes) > 0) continue;
    const std::size_t number = lists.size();
    lists[binary.parameter_bytes] = number;
    t += fmt::format("inline constexpr unsigned short kParameters{}[] = {{{}}};\n", number,
                     fmt::join(binary.parameter_bytes, ", "));
  }
  if (!b.images.empty()) {
    t += "\n// Files: name, bytes, hash, where it is embedded.\ninline constexpr Image kImages[] = "
         "{\n";
    for (std::size_t i = 0; i < b.images.size(); ++i) {
      t += fmt::format("    {},\n",
                       image_row(b.images[i], embedded_name(b, fmt::format("image_{}", i))));
    }
    t += "};\n";
    t += "\n// Code: image, symbol, architecture, its variant, PTX; block, shared memory, cluster, "
         "whether the grid counts clusters,\n// whether they spread, cooperative, programmatic; "
         "parameters.\ninline constexpr Binary kBinaries[] = {\n";
    for (const PackageBinary& x : b.binaries) {
      const std::string variant =
          x.target.variant != 0 ? fmt::format("'{}'", x.target.variant) : "0";
      const std::string list = x.parameter_bytes.empty()
                                   ? "nullptr"
                                   : fmt::format("kParameters{}", lists[x.parameter_bytes]);
      t += fmt::format(
          "    {{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}}},\n", x.image,
          as_literal(x.symbol), x.form == BinaryForm::fatbin ? 0 : x.target.arch, variant,
          flag(x.form == BinaryForm::ptx), extents(x.launch.block), x.launch.shared_bytes,
          extents(x.launch.cluster), flag(x.launch.multiply_grid), flag(x.launch.spread),
          flag(x.launch.cooperative), flag(x.launch.programmatic), list, x.parameter_bytes.size());
    }
    t += "};\n";
    t += "\n// Kernels, each compiled in one way: its code begins at, and there are so many.\n"
         "inline constexpr Variant kVariants[] = {\n";
    for (std::size_t i = 0; i < b.variants.size(); ++i) {
      const PackageVariant& v = b.variants[i];
      t += fmt::format("    {{{}, {}, {}, {}}},  // {}\n", as_literal(v.kernel), as_literal(v.name),
                       v.first, v.count, i);
    }
    t += "};\n";
  }
  return t;
}

std::string texts(const std::vector<Expression>& list) {
  std::string t = "{";
  for (const Expression& one : list) {
    if (t.size() > 1) t += ", ";
    t += as_literal(to_text(one));
  }
  return (list.empty() ? t + "nullptr" : t) + "}";
}

}  // namespace

std::string emit_tables(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t;
  if (!b.options.cpu) t += kernel_tables(b);
  const std::string constants = b.constants.bytes.empty()
                                    ? std::string("{nullptr, 0, 0, nullptr}")
                                    : image_row(b.constants, embedded_name(b, "constants"));
  if (b.options.cpu) {
    t += fmt::format("inline constexpr Tables kTables = {{{}}};\n", constants);
  } else if (b.images.empty()) {
    t += fmt::format(
        "\ninline constexpr Tables kTables = {{{}, nullptr, 0, nullptr, nullptr, 0,\n"
        "                                   {}}};\n",
        as_literal(p.name), constants);
  } else {
    t += fmt::format(
        "\ninline constexpr Tables kTables = {{{}, kImages, {}, kBinaries, kVariants, {},\n"
        "                                   {}}};\n",
        as_literal(p.name), b.images.size(), b.variants.size(), constants);
  }

  t += "\nstruct Sizes {\n";
  for (const Size& size : p.sizes) t += fmt::format("  std::int64_t {};\n", size.name);
  t += "};\n";
  if (!p.sizes.empty()) {
    t += "\n// Least, largest, a divisor.\ninline constexpr SizeRule kSizes[] = {\n";
    for (const Size& size : p.sizes) {
      t += fmt::format("    {{{}, {}, {}, {}}},\n", as_literal(size.name), size.range.min,
                       size.range.max, size.range.multiple_of);
    }
    t += "};\n";
  }

  std::string rules;
  std::size_t count = 0;
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    t += fmt::format("\ninline constexpr const char* kShape{}[] = {};\n", count,
                     texts(tensor.shape));
    t += fmt::format("inline constexpr const char* kStrides{}[] = {};", count,
                     texts(tensor.strides));
    rules += fmt::format(
        "    {{{}, {}, {}, {}, {}, kShape{}, kStrides{}}},\n", as_literal(tensor.name),
        tensor.role == TensorRole::input ? "\"input\"" : "\"output\"",
        facts(tensor.element).constant, tensor.shape.size(), tensor.alignment, count, count);
    ++count;
  }
  if (count > 0) {
    t += fmt::format(
        "\n\n// Dtype, rank, alignment.\ninline constexpr TensorRule kTensors[] = {{\n{}}};\n",
        rules);
  }

  t += fmt::format("\nusing Address = {};\n\n// Where everything lies.\nstruct Places {{\n",
                   b.options.cpu ? "char*" : "DevicePointer");
  for (const std::string& place : b.place) t += fmt::format("  Address {};\n", place);
  for (const auto* list : {&b.global_scratch, &b.profile_scratch, &b.attention_scratch}) {
    for (const std::string& place : *list) {
      if (!place.empty()) t += fmt::format("  Address {};\n", place);
    }
  }
  t += "};\n\n// A call on its way through the steps.\nstruct Run {\n  Call call;\n  Sizes size;\n"
       "  Places at;\n";
  t += fmt::format("  const {}_arguments* arguments;\n}};\n", p.name);
  return t;
}

}  // namespace attune::wrap
