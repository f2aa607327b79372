#include "source/translation_unit.h"

#include <attune/params.h>
#include <fmt/format.h>

#include <array>
#include <string_view>

#include "spec/features.h"
#include "spec/gpu_row.h"

namespace attune {

namespace {

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

std::string literal(const kernel::HopperSpec& spec) {
  const auto& [element, head_dim, value_dim, bias, dropout, bytes, general, lse, queries, keys,
               stages, turns, split, mates] = spec;
  return fmt::format(
      "{{\n"
      "    .element = Element::{}, .head_dim = {}, .value_dim = {}, .bias = {}, .dropout = {},\n"
      "    .bytes = {}, .general = {}, .lse = {}, .queries = {}, .keys = {}, .stages = {},\n"
      "    .turns = {}, .split = {}, .mates = {}}}",
      name_of(element), head_dim, value_dim, bias, dropout, bytes, general, lse, queries, keys,
      stages, turns, split, mates);
}

constexpr std::array kHopperEntries = {UnitEntry{kEntryName.data(), "forward_hopper", true}};
constexpr std::array kForwardEntries = {UnitEntry{kEntryName.data(), "forward_portable", true}};

// As BackwardEntry says.
constexpr std::array kBackwardEntries = {
    UnitEntry{kEntryName.data(), "backward_keys", true},
    UnitEntry{"attune_kernel_rows", "backward_rows", false},
    UnitEntry{"attune_kernel_finish", "backward_finish", false},
    UnitEntry{"attune_kernel_bias", "backward_bias", true}};

// What the units of a family and a kind have in common.
struct UnitKind {
  std::string_view header, spec, params;  // below attune/kernel/; types of attune::kernel
  std::size_t params_bytes;
};

UnitKind unit_kind(const KernelSpec& spec) {
  if (spec.family == Family::hopper) {
    return {"forward_hopper.cuh", "HopperSpec", "HopperParams", sizeof(kernel::HopperParams)};
  }
  if (spec.kind == Kind::forward) {
    return {"forward_portable.cuh", "PortableSpec", "ForwardParams", sizeof(kernel::ForwardParams)};
  }
  return {"backward_portable.cuh", "PortableSpec", "BackwardParams",
          sizeof(kernel::BackwardParams)};
}

}  // namespace

std::span<const UnitEntry> entries_of(const KernelSpec& spec) {
  if (spec.family == Family::hopper) return kHopperEntries;
  if (spec.kind == Kind::forward) return kForwardEntries;
  const std::span<const UnitEntry> all = kBackwardEntries;
  return spec.portable.bias ? all : all.first(kBiasEntry);
}

std::string source_for(const KernelSpec& spec) {
  const BlockShape shape = block_shape(spec);
  const UnitKind kind = unit_kind(spec);
  std::string text = fmt::format(
      "// {}\n"
      "#include <attune/kernel/{}>\n"
      "\n"
      "namespace attune::kernel {{\n"
      "constexpr {} kSpec{};\n"
      "}}  // namespace attune::kernel\n",
      id_of(spec), kind.header, kind.spec,
      spec.family == Family::hopper ? literal(spec.hopper) : literal(spec.portable));
  for (const UnitEntry& entry : entries_of(spec)) {
    text += fmt::format(
        "\n"
        "extern \"C\" __global__ void __launch_bounds__({}, {})\n"
        "    {}(const __grid_constant__ attune::kernel::{} params) {{\n"
        "  attune::kernel::{}<attune::kernel::kSpec>(params);\n"
        "}}\n",
        shape.threads, shape.blocks_an_sm, entry.name, kind.params, entry.function);
  }
  return text;
}

BlockShape block_shape(const KernelSpec& spec) {
  const GpuRow row = gpu_row_of(spec);
  return {row.threads, row.blocks, row.shared_bytes,
          static_cast<int>(unit_kind(spec).params_bytes)};
}

}  // namespace attune
