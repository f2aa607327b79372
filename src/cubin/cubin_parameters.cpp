#include "cubin/cubin_parameters.h"

#include <fmt/format.h>

#include <map>
#include <string>

#include "cubin/elf.h"
#include "cubin/nv_info.h"

namespace attune {

Expected<std::vector<std::uint32_t>> read_parameters(std::span<const std::byte> cubin,
                                                     std::string_view kernel) {
  const auto elf = read_cubin(cubin);
  if (!elf.ok()) return elf.status();
  const ElfSection* code = elf->section(std::string(kText) + std::string(kernel));
  const ElfSection* own = elf->section(".nv.info." + std::string(kernel));
  if (code == nullptr || own == nullptr) {
    return contradicts_itself(fmt::format("it has no kernel {}", kernel));
  }
  std::map<std::uint32_t, std::uint32_t> found;
  bool whole = true;
  const Status status = each_record(*own, [&](const NvInfoRecord& record) {
    if (record.attribute != kParameter) return;
    const auto place = number_at<std::uint32_t>(record.data, kParameterPlaceAt);
    const auto facts = number_at<std::uint32_t>(record.data, kParameterBytesAt);
    whole = whole && place && facts &&
            found.emplace(*place & 0xffff, *facts >> kParameterBytesShift).second;
  });
  if (!status.ok()) return status;
  std::vector<std::uint32_t> bytes;
  for (const auto& [ordinal, size] : found) {
    whole = whole && ordinal == bytes.size();
    bytes.push_back(size);
  }
  if (!whole) {
    return contradicts_itself(fmt::format("the parameters of {} are not told one by one", kernel));
  }
  return bytes;
}

Expected<std::optional<std::uint64_t>> read_required_threads(std::span<const std::byte> cubin,
                                                             std::string_view kernel) {
  const auto elf = read_cubin(cubin);
  if (!elf.ok()) return elf.status();
  const ElfSection* own = elf->section(".nv.info." + std::string(kernel));
  if (own == nullptr) return contradicts_itself(fmt::format("it has no kernel {}", kernel));
  constexpr unsigned kRequiredThreads = 0x10;  // x, y, z
  std::optional<std::uint64_t> threads;
  const Status status = each_record(*own, [&](const NvInfoRecord& record) {
    if (record.attribute != kRequiredThreads) return;
    threads = 1;
    for (std::uint64_t axis = 0; axis < 3; ++axis) {
      const std::uint64_t extent = number_at<std::uint32_t>(record.data, axis * 4).value_or(1);
      *threads *= extent & 0xfffff;
    }
  });
  if (!status.ok()) return status;
  return threads;
}

Expected<std::vector<std::string_view>> read_kernels(std::span<const std::byte> cubin) {
  const auto elf = read_cubin(cubin);
  if (!elf.ok()) return elf.status();
  std::vector<std::string_view> names;
  for (const ElfSection& section : elf->sections) {
    if (!section.name.starts_with(kText)) continue;
    const std::string_view name = section.name.substr(kText.size());
    if (elf->section(".nv.info." + std::string(name)) != nullptr) names.push_back(name);
  }
  return names;
}

Expected<Target> read_target(std::span<const std::byte> cubin) {
  const auto elf = read_cubin(cubin);
  if (!elf.ok()) return elf.status();
  // e_flags. Compilers since CUDA 13 write another version of it, which the ABI's number tells.
  constexpr std::uint64_t kAbi = 7, kFlags = 48;
  constexpr unsigned kNewAbi = 0x41;
  const auto abi = number_at<std::uint8_t>(cubin, kAbi);
  const auto flags = number_at<std::uint32_t>(cubin, kFlags);
  if (!abi || !flags) return contradicts_itself("it has no header");
  const bool recent = *abi == kNewAbi;
  Target target;
  target.arch = static_cast<int>((recent ? *flags >> 8 : *flags) & 0xff);
  if ((*flags & (recent ? 0x8U : 0x800U)) != 0) target.variant = 'a';
  if (target.arch < 30) {
    return contradicts_itself(fmt::format("it is for an architecture sm_{}", target.arch));
  }
  return target;
}

}  // namespace attune
