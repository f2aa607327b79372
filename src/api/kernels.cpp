#include <attune/kernels.hpp>
#include <string_view>
#include <vector>

#include "host/device_facts.h"
#include "host/isa.h"
#include "launch/device.h"
#include "spec/kernel_spec.h"

namespace attune {
namespace {

std::string_view word(Family family) {
  switch (family) {
    case Family::cpu:
      return "cpu";
    case Family::portable:
      return "portable";
    case Family::hopper:
      return "hopper";
  }
  return "?";
}

// Compute capabilities of this machine's GPUs.
std::vector<int> archs_here() {
  std::vector<int> archs;
  const Expected<int> count = cuda::device_count();
  for (int index = 0; count.ok() && index < *count; ++index) {
    const Expected<DeviceFacts> facts = cuda::facts_of_device(index);
    if (facts.ok()) archs.push_back(facts->arch);
  }
  return archs;
}

std::string missing_for(const ArchRange& range, const std::vector<int>& archs) {
  for (const int arch : archs) {
    if (arch >= range.begin && arch < range.end) return {};
  }
  return archs.empty() ? "there is no GPU" : "no GPU here is of these architectures";
}

}  // namespace

std::vector<KernelInfo> list_kernels() {
  const std::vector<int> archs = archs_here();
  std::vector<KernelInfo> kernels;
  for (const KernelSpec& spec : kernel_table()) {
    KernelInfo info;
    info.id = id_of(spec);
    info.family = word(spec.family);
    info.kind = spec.kind;
    info.dtype = spec.dtype;
    if (spec.family == Family::cpu) {
      info.isa = to_string(spec.isa);
      info.missing = attune::missing_for(spec.isa);
    } else {
      const ArchRange range = spec.archs;
      info.arch_begin = range.begin;
      info.arch_end = range.end == kAnyLaterArch ? 0 : range.end;
      info.missing = missing_for(range, archs);
    }
    kernels.push_back(std::move(info));
  }
  return kernels;
}

}  // namespace attune
