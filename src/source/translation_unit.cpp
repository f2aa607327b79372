#include "source/translation_unit.h"

#include <attune/kernel/backward_portable_layout.h>
#include <attune/kernel/forward_portable_layout.h>
#include <attune/params.h>
#include <fmt/format.h>

#include <array>
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

constexpr std::array kForwardEntries = {UnitEntry{kEntryName.data(), "forward_portable", true}};

// As BackwardEntry says.
constexpr std::array kBackwardEntries = {
    UnitEntry{kEntryName.data(), "backward_keys", true},
    UnitEntry{"attune_kernel_rows", "backward_rows", false},
    UnitEntry{"attune_kernel_finish", "backward_finish", false},
    UnitEntry{"attune_kernel_bias", "backward_bias", true}};

}  // namespace

std::span<const UnitEntry> entries_of(const KernelSpec& spec) {
  if (spec.kind == Kind::forward) return kForwardEntries;
  const std::span<const UnitEntry> all = kBackwardEntries;
  return spec.portable.bias ? all : all.first(kBiasEntry);
}

std::string source_for(const KernelSpec& spec) {
  const BlockShape shape = block_shape(spec);
  const bool forward = spec.kind == Kind::forward;
  std::string text = fmt::format(
      "// {}\n"
      "#include <attune/kernel/{}_portable.cuh>\n"
      "\n"
      "namespace attune::kernel {{\n"
      "constexpr PortableSpec kSpec{};\n"
      "}}  // namespace attune::kernel\n",
      id_of(spec), forward ? "forward" : "backward", literal(spec.portable));
  for (const UnitEntry& entry : entries_of(spec)) {
    text += fmt::format(
        "\n"
        "extern \"C\" __global__ void __launch_bounds__({}, {})\n"
        "    {}(const __grid_constant__ attune::kernel::{}Params params) {{\n"
        "  attune::kernel::{}<attune::kernel::kSpec>(params);\n"
        "}}\n",
        shape.threads, shape.blocks_an_sm, entry.name, forward ? "Forward" : "Backward",
        entry.function);
  }
  return text;
}

BlockShape block_shape(const KernelSpec& spec) {
  const bool forward = spec.kind == Kind::forward;
  return {
      kernel::threads_of(spec.portable), spec.portable.blocks,
      forward ? kernel::forward_portable_shared_bytes(spec.portable)
              : kernel::backward_portable_shared_bytes(spec.portable),
      static_cast<int>(forward ? sizeof(kernel::ForwardParams) : sizeof(kernel::BackwardParams))};
}

}  // namespace attune
