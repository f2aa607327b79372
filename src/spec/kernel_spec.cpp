#include "spec/kernel_spec.h"

#include <array>

#include "spec/hopper_table.h"
#include "spec/portable_table.h"

namespace attune {

namespace {

constexpr std::array kKinds = {std::pair{Kind::forward, std::string_view{"fwd"}},
                               std::pair{Kind::backward, std::string_view{"bwd"}}};
constexpr std::array kDTypes = {DType::f32, DType::f16, DType::bf16};

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

std::vector<KernelSpec> make_table() {
  std::vector<KernelSpec> table;
  for (const auto& [kind, name] : kKinds) {
    for (const DType dtype : kDTypes) {
      for (const Isa isa : sets_for(dtype))
        table.push_back({kind, Family::cpu, dtype, isa, {}, {}});
    }
  }
  for (const auto& [kind, name] : kKinds) {
    for (const DType dtype : kDTypes) {
      if (kind == Kind::forward) {
        for (const kernel::HopperSpec& spec : hopper_forward_rows(dtype)) {
          table.push_back({kind, Family::hopper, dtype, Isa::generic, {}, spec});
        }
      }
      const auto rows =
          kind == Kind::forward ? portable_forward_rows(dtype) : portable_backward_rows(dtype);
      for (const kernel::PortableSpec& spec : rows) {
        table.push_back({kind, Family::portable, dtype, Isa::generic, spec, {}});
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

ArchRange arch_range(const KernelSpec& spec) {
  if (spec.family == Family::hopper) return {90, 91};
  return {spec.portable.arch, spec.portable.arch < 80 ? 80 : kAnyLaterArch};
}

}  // namespace attune
