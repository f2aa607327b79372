#include "source/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "source/device_headers.h"
#include "source/translation_unit.h"
#include "spec/gpu_row.h"

namespace attune {

namespace {

std::string unit_path(const KernelSpec& spec) { return "kernels/" + id_of(spec) + ".cu"; }

std::string dispatch_header(const std::vector<KernelSpec>& specs) {
  std::string rows;
  std::size_t count = 0;
  for (const KernelSpec& spec : specs) {
    const BlockShape shape = block_shape(spec);
    const ArchRange range = spec.archs;
    for (const UnitEntry& entry : entries_of(spec)) {
      rows += fmt::format("    Kernel{{\"{}\", \"{}\", \"{}\", {}, {}, {}, {}}},\n", id_of(spec),
                          unit_path(spec), entry.name, shape.threads,
                          entry.shared ? shape.shared_bytes : 0, range.begin,
                          range.end == kAnyLaterArch ? "kAnyLaterArch" : std::to_string(range.end));
      ++count;
    }
  }
  return fmt::format(
      "// Written by `attune generate`: every kernel of this tree, in order of preference. "
      "Compile\n"
      "// one with\n"
      "//   nvcc -std=c++20 --expt-relaxed-constexpr -I . -cubin -arch=sm_80 kernels/<id>.cu\n"
      "// and hand it one attune::kernel::ForwardParams, or BackwardParams (attune/params.h). A "
      "row "
      "of\n"
      "// backward is a unit of several kernels.\n"
      "#pragma once\n"
      "\n"
      "#include <array>\n"
      "#include <string_view>\n"
      "\n"
      "namespace attune::generated {{\n"
      "\n"
      "inline constexpr int kAnyLaterArch = 1 << 30;\n"
      "\n"
      "struct Kernel {{\n"
      "  std::string_view id;\n"
      "  std::string_view file;   // below this folder\n"
      "  std::string_view entry;  // in the cubin\n"
      "  int threads;             // a block\n"
      "  int shared_bytes;        // dynamic, a block\n"
      "  int arch_begin;          // 10 * major + minor of the first architecture\n"
      "  int arch_end;            // of the first one that is too late\n"
      "}};\n"
      "\n"
      "inline constexpr std::array<Kernel, {}> kKernels = {{\n"
      "{}"
      "}};\n"
      "\n"
      "// Null when this tree has no such kernel. The main one of a unit has the default name.\n"
      "constexpr const Kernel* find(std::string_view id, std::string_view entry = \"{}\") {{\n"
      "  for (const Kernel& kernel : kKernels) {{\n"
      "    if (kernel.id == id && kernel.entry == entry) return &kernel;\n"
      "  }}\n"
      "  return nullptr;\n"
      "}}\n"
      "\n"
      "}}  // namespace attune::generated\n",
      count, rows, kEntryName);
}

nlohmann::ordered_json features(const KernelSpec& spec) {
  const GpuRow row = gpu_row_of(spec);
  return {{"head_dim", row.head_dim}, {"value_dim", row.value_dim}, {"aligned", row.aligned},
          {"bias", row.bias},         {"dropout", row.dropout},     {"general", row.general},
          {"queries", row.queries},   {"keys", row.keys},           {"stages", row.stages},
          {"blocks", row.blocks}};
}

std::string manifest(const std::vector<KernelSpec>& specs) {
  nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
  for (const KernelSpec& spec : specs) {
    const BlockShape shape = block_shape(spec);
    const ArchRange range = spec.archs;
    nlohmann::ordered_json entries = nlohmann::ordered_json::array();
    for (const UnitEntry& entry : entries_of(spec)) {
      entries.push_back(
          {{"name", entry.name}, {"shared_bytes", entry.shared ? shape.shared_bytes : 0}});
    }
    kernels.push_back({{"id", id_of(spec)},
                       {"file", unit_path(spec)},
                       {"entry", kEntryName},
                       {"entries", std::move(entries)},
                       {"threads", shape.threads},
                       {"shared_bytes", shape.shared_bytes},
                       {"arch_begin", range.begin},
                       {"arch_end", range.end == kAnyLaterArch ? nlohmann::ordered_json()
                                                               : nlohmann::ordered_json(range.end)},
                       {"dtype", to_string(spec.dtype)},
                       {"features", features(spec)}});
  }
  const nlohmann::ordered_json json = {{"format", 1}, {"kernels", std::move(kernels)}};
  return json.dump(2) + "\n";
}

}  // namespace

std::vector<GeneratedFile> generate_tree(const std::vector<KernelSpec>& specs) {
  std::vector<GeneratedFile> files;
  for (const DeviceHeader& header : device_headers()) files.push_back({header.name, header.text});
  for (const KernelSpec& spec : specs) files.push_back({unit_path(spec), source_for(spec)});
  files.push_back({"dispatch.h", dispatch_header(specs)});
  files.push_back({"manifest.json", manifest(specs)});
  std::sort(files.begin(), files.end(),
            [](const GeneratedFile& a, const GeneratedFile& b) { return a.path < b.path; });
  return files;
}

}  // namespace attune
