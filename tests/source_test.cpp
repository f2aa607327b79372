// Generated sources: one unit a row, deterministic, and a tree whose parts agree.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "source/device_headers.h"
#include "source/translation_unit.h"
#include "source/tree.h"
#include "spec/kernel_spec.h"

namespace attune {
namespace {

std::vector<KernelSpec> rows() {
  std::vector<KernelSpec> specs;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family != Family::cpu) specs.push_back(spec);
  }
  return specs;
}

TEST(Source, AUnitIsAFewLinesWithOneKernel) {
  KernelSpec spec;
  spec.family = Family::portable;
  spec.dtype = DType::bf16;
  spec.portable = {.element = kernel::Element::bf16,
                   .arch = 80,
                   .head_dim = 128,
                   .queries = 128,
                   .keys = 64,
                   .warps = 4,
                   .stages = 2};
  EXPECT_EQ(
      source_for(spec),
      "// fwd.portable.sm80.bf16.d128.aligned.plain.q128k64\n"
      "#include <attune/kernel/forward_portable.cuh>\n"
      "\n"
      "namespace attune::kernel {\n"
      "constexpr PortableSpec kSpec{\n"
      "    .element = Element::bf16, .arch = 80, .head_dim = 128, .aligned = true, .bias = "
      "false,\n"
      "    .dropout = false, .general = false, .queries = 128, .keys = 64, .warps = 4, .stages "
      "= 2,\n"
      "    .blocks = 1, .paired = false};\n"
      "}  // namespace attune::kernel\n"
      "\n"
      "extern \"C\" __global__ void __launch_bounds__(128, 1)\n"
      "    attune_kernel(const __grid_constant__ attune::kernel::ForwardParams params) {\n"
      "  attune::kernel::forward_portable<attune::kernel::kSpec>(params);\n"
      "}\n");
}

// So a change of the backward pass leaves what is compiled of the forward.
TEST(Source, AUnitNamesTheHeadersItIncludes) {
  std::set<std::string> all, reached;
  for (const DeviceHeader& header : device_headers()) all.insert(header.name);
  for (const KernelSpec& spec : rows()) {
    std::set<std::string> names;
    for (const DeviceHeader& header : headers_of(source_for(spec))) names.insert(header.name);
    const bool backward = spec.kind == Kind::backward, hopper = spec.family == Family::hopper;
    EXPECT_EQ(names.count("attune/kernel/backward_portable.cuh"), backward) << id_of(spec);
    EXPECT_EQ(names.count("attune/kernel/forward_hopper.cuh"), hopper) << id_of(spec);
    EXPECT_EQ(names.count("attune/kernel/forward_portable.cuh"), !backward && !hopper)
        << id_of(spec);
    EXPECT_EQ(names.count("attune/params.h"), 1U) << id_of(spec);
    reached.insert(names.begin(), names.end());
  }
  EXPECT_EQ(reached, all) << "a header that no unit includes is dead";
  EXPECT_TRUE(headers_of("#include <nowhere.h>\n").empty());
}

// Several kernels in one cubin, which share their spec, parameters and number of threads.
TEST(Source, ABackwardUnitHasAKernelAStep) {
  const auto spec = spec_from("bwd.portable.sm80.f16.d64.aligned.bias.q64k64");
  ASSERT_TRUE(spec);
  const std::string unit = source_for(*spec);
  EXPECT_NE(unit.find("#include <attune/kernel/backward_portable.cuh>\n"), std::string::npos);
  EXPECT_NE(
      unit.find("\nextern \"C\" __global__ void __launch_bounds__(128, 2)\n"
                "    attune_kernel_rows(const __grid_constant__ attune::kernel::BackwardParams "
                "params) {\n"
                "  attune::kernel::backward_rows<attune::kernel::kSpec>(params);\n"
                "}\n"),
      std::string::npos)
      << unit;
  const auto names = [](const KernelSpec& row) {
    std::vector<std::string> all;
    for (const UnitEntry& entry : entries_of(row)) all.emplace_back(entry.name);
    return all;
  };
  EXPECT_EQ(names(*spec), (std::vector<std::string>{"attune_kernel", "attune_kernel_rows",
                                                    "attune_kernel_finish", "attune_kernel_bias"}));
  EXPECT_STREQ(entries_of(*spec)[kBiasEntry].function, "backward_bias");
  for (const KernelSpec& row : rows()) {
    const std::vector<std::string> entries = names(row);
    EXPECT_EQ(entries.front(), kEntryName);
    const std::size_t expected = row.kind == Kind::forward ? 1 : row.portable.bias ? 4 : 3;
    EXPECT_EQ(entries.size(), expected) << id_of(row);
    const std::string text = source_for(row);
    for (const std::string& entry : entries) {
      EXPECT_NE(text.find("    " + entry + "(const"), std::string::npos) << id_of(row);
    }
  }
}

TEST(Source, NoTwoRowsHaveTheSameUnit) {
  std::set<std::string> units;
  for (const KernelSpec& spec : rows()) {
    const std::string unit = source_for(spec);
    EXPECT_TRUE(units.insert(unit.substr(unit.find('\n'))).second) << id_of(spec);
  }
  EXPECT_GT(units.size(), 100U);
}

TEST(Source, TheTreeIsTheSameEveryTime) {
  const auto first = generate_tree(rows());
  const auto second = generate_tree(rows());
  ASSERT_EQ(first.size(), second.size());
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].path, second[i].path);
    EXPECT_EQ(first[i].text, second[i].text) << first[i].path;
  }
}

TEST(Source, TheManifestNamesEveryUnit) {
  const auto files = generate_tree(rows());
  std::set<std::string> paths;
  std::string manifest;
  for (const GeneratedFile& file : files) {
    EXPECT_TRUE(paths.insert(file.path).second) << file.path;
    if (file.path == "manifest.json") manifest = file.text;
  }
  const auto json = nlohmann::json::parse(manifest);
  ASSERT_EQ(json["kernels"].size(), rows().size());
  for (const auto& kernel : json["kernels"]) {
    EXPECT_TRUE(paths.contains(kernel["file"])) << kernel["file"];
    const auto spec = spec_from(kernel["id"].get<std::string>());
    ASSERT_TRUE(spec);
    EXPECT_EQ(kernel["threads"], block_shape(*spec).threads);
    EXPECT_EQ(kernel["shared_bytes"], block_shape(*spec).shared_bytes);
    EXPECT_EQ(kernel["entry"], kEntryName);
    ASSERT_EQ(kernel["entries"].size(), entries_of(*spec).size());
    for (std::size_t i = 0; i < kernel["entries"].size(); ++i) {
      const UnitEntry& entry = entries_of(*spec)[i];
      EXPECT_EQ(kernel["entries"][i]["name"], entry.name);
      EXPECT_EQ(kernel["entries"][i]["shared_bytes"],
                entry.shared ? block_shape(*spec).shared_bytes : 0);
    }
    EXPECT_EQ(kernel["arch_begin"], spec->archs.begin);
  }
}

// The library's copies are the files themselves.
TEST(Source, EveryDeviceHeaderIsEmbedded) {
  const std::filesystem::path root = std::filesystem::path(ATTUNE_SOURCE_DIR) / "kernels";
  std::set<std::string> embedded;
  for (const DeviceHeader& header : device_headers()) {
    std::ifstream file(root / header.name);
    ASSERT_TRUE(file) << header.name;
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    EXPECT_EQ(text, header.text) << header.name << " was embedded from another version";
    embedded.insert(header.name);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().lexically_relative(root).generic_string();
    EXPECT_TRUE(embedded.contains(name)) << name << " is not embedded";
  }
}

// Device code is compiled by itself, and once for all architectures of a row: it may ask for no other
// than those at which rows begin.
TEST(Source, DeviceHeadersIncludeOnlyEachOtherAndAskOnlyWhereRowsBegin) {
  // Sums in global memory by vectors: one place, and no reason for rows of their own.
  std::set<std::string> questions = {"__CUDA_ARCH__ >= 900\n"};
  for (const KernelSpec& spec : rows()) {
    questions.insert("__CUDA_ARCH__ >= " + std::to_string(spec.archs.begin) + "0\n");
  }
  std::set<std::string> names;
  for (const DeviceHeader& header : device_headers()) names.insert(header.name);
  for (const DeviceHeader& header : device_headers()) {
    const std::string text = header.text;
    for (std::size_t at = text.find("__CUDA_ARCH__"); at != std::string::npos;
         at = text.find("__CUDA_ARCH__", at + 1)) {
      const std::string question = text.substr(at, text.find('\n', at) + 1 - at);
      EXPECT_TRUE(questions.contains(question)) << header.name << ": " << question;
    }
    for (std::size_t at = text.find("#include"); at != std::string::npos;
         at = text.find("#include", at + 1)) {
      const std::size_t open = text.find_first_of("<\"", at);
      const std::size_t close = text.find_first_of(">\"", open + 1);
      EXPECT_TRUE(names.contains(text.substr(open + 1, close - open - 1)))
          << header.name << " includes " << text.substr(open, close - open + 1);
    }
  }
}

}  // namespace
}  // namespace attune
