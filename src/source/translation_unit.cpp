#include "source/translation_unit.h"

#include <attune/kernel/forward_portable_layout.h>
#include <fmt/format.h>

#include <string_view>

namespace attune {

namespace {

std::string_view name_of(kernel::Element element) {
  switch (element) {
    case kernel::Element::f32:
      return "f32";
    case kernel::Element::f16:
      return "f16";
    case kernel::Element::bf16:
      return "bf16";
  }
  return "?";
}

// The spec as a C++20 template argument. The structured binding fails to compile when the struct
// gains a field that is not written here.
std::string literal(const kernel::PortableSpec& spec) {
  const auto& [element, arch, head_dim, aligned, bias, dropout, general, queries, keys, warps,
               stages, blocks, paired] = spec;
  return fmt::format(
      "{{\n"
      "    .element = Element::{}, .arch = {}, .head_dim = {}, .aligned = {}, .bias = {},\n"
      "    .dropout = {}, .general = {}, .queries = {}, .keys = {}, .warps = {}, .stages = {},\n"
      "    .blocks = {}, .paired = {}}}",
      name_of(element), arch, head_dim, aligned, bias, dropout, general, queries, keys, warps,
      stages, blocks, paired);
}

}  // namespace

std::string source_for(const KernelSpec& spec) {
  const BlockShape shape = block_shape(spec);
  return fmt::format(
      "// {}\n"
      "#include <attune/kernel/forward_portable.cuh>\n"
      "\n"
      "namespace attune::kernel {{\n"
      "constexpr PortableSpec kSpec{};\n"
      "}}  // namespace attune::kernel\n"
      "\n"
      "extern \"C\" __global__ void __launch_bounds__({}, {})\n"
      "    {}(const __grid_constant__ attune::kernel::ForwardParams params) {{\n"
      "  attune::kernel::forward_portable<attune::kernel::kSpec>(params);\n"
      "}}\n",
      id_of(spec), literal(spec.portable), shape.threads, shape.blocks_an_sm, kEntryName);
}

BlockShape block_shape(const KernelSpec& spec) {
  return {kernel::threads_of(spec.portable), spec.portable.blocks,
          kernel::forward_portable_shared_bytes(spec.portable)};
}

}  // namespace attune
