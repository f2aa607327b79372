#include "spec/kernel_spec.h"

#include <algorithm>
#include <array>

#include "spec/hopper_table.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

constexpr std::array kKinds = {std::pair{Kind::forward, std::string_view{"fwd"}},
                               std::pair{Kind::backward, std::string_view{"bwd"}}};
constexpr std::array kDTypes = {DType::f32, DType::f16, DType::bf16, DType::f8e4m3};

// Which sets have a kernel of their own for a dtype, best first.
std::vector<Isa> sets_for(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return {Isa::amx, Isa::avx512bf16, Isa::avx512, Isa::avx2, Isa::generic};
    case DType::f16:
      return {Isa::amx, Isa::avx512, Isa::avx2, Isa::generic};
    default:
      return {Isa::avx512, Isa::avx2, Isa::generic};
  }
}

// The first architecture that no longer runs a row: where the next begins, or rows for the same with other tiles.
int end_of(const kernel::PortableSpec& spec, const std::vector<kernel::PortableSpec>& rows) {
  if (spec.arch < 80) return 80;
  int end = kAnyLaterArch;
  for (const kernel::PortableSpec& other : rows) {
    if (other.arch > spec.arch && same_but_for_tile(spec, other)) end = std::min(end, other.arch);
  }
  return end;
}

std::vector<KernelSpec> make_table() {
  std::vector<KernelSpec> table;
  for (const auto& [kind, name] : kKinds) {
    for (const DType dtype : kDTypes) {
      if (kind == Kind::backward && dtype == DType::f8e4m3) continue;
      for (const Isa isa : sets_for(dtype))
        table.push_back({kind, Family::cpu, dtype, isa, {}, {}, {}});
    }
  }
  for (const auto& [kind, name] : kKinds) {
    for (const DType dtype : kDTypes) {
      if (kind == Kind::forward) {
        for (const kernel::HopperSpec& spec : hopper_forward_rows(dtype)) {
          table.push_back({kind, Family::hopper, dtype, Isa::generic, {}, spec, {90, 91}});
        }
      }
      const auto rows =
          kind == Kind::forward ? portable_forward_rows(dtype) : portable_backward_rows(dtype);
      for (const kernel::PortableSpec& spec : rows) {
        const ArchRange archs{spec.arch, end_of(spec, rows)};
        table.push_back({kind, Family::portable, dtype, Isa::generic, spec, {}, archs});
      }
    }
  }
  return table;
}

}  // namespace

std::string id_of(const KernelSpec& spec) {
  std::string id{kKinds[static_cast<std::size_t>(spec.kind)].second};
  if (spec.family == Family::portable) return id + ".portable." + portable_id(spec.portable);
  if (spec.family == Family::hopper) return id + ".hopper." + hopper_id(spec.hopper);
  id += ".cpu.";
  id += to_string(spec.dtype);
  id += '.';
  id += to_string(spec.isa);
  return id;
}

std::optional<KernelSpec> spec_from(std::string_view id) {
  for (const KernelSpec& spec : kernel_table()) {
    if (id_of(spec) == id) return spec;
  }
  return std::nullopt;
}

const std::vector<KernelSpec>& kernel_table() {
  static const std::vector<KernelSpec> table = make_table();
  return table;
}

}  // namespace attune
