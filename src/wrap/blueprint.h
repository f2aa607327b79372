// A program with everything decided that generated text depends on: names, tables of kernels, the workspace.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wrap/attention_step.h"
#include "wrap/generator.h"
#include "wrap/kernel.h"
#include "wrap/program.h"

namespace attune::wrap {

// A file that goes with the program.
struct PackageImage {
  std::string file;
  std::string bytes;
  std::uint64_t hash = 0;
};

struct PackageBinary {
  std::size_t image = 0;
  std::string symbol;
  Target target;
  BinaryForm form = BinaryForm::cubin;
  LaunchShape launch;
  std::vector<std::uint32_t> parameter_bytes;
};

struct PackageVariant {
  std::string kernel, name;
  std::size_t first = 0, count = 0;  // of the binaries
};

// A kernel step: the configurations that may run it, and what each is given.
struct KernelChoice {
  std::size_t configuration = 0;
  std::size_t variant = 0;
  std::vector<LaunchValue> values;
};

struct Blueprint {
  const Program* program = nullptr;
  GenerateOptions options;
  std::vector<std::string> place;  // of each tensor: a member of the generated Places

  std::vector<PackageImage> images;
  std::vector<PackageBinary> binaries;
  std::vector<PackageVariant> variants;
  std::vector<std::vector<KernelChoice>> choices;         // of each step
  std::vector<std::optional<AttentionChoice>> attention;  // of each step, on a GPU

  // Constants lie one after another in one file.
  PackageImage constants;
  std::vector<std::uint64_t> constant_offset;  // of each tensor

  // Parts of the workspace, and who lies in them: members of Places.
  std::vector<Expression> slots;
  struct Resident {
    std::string place;
    std::size_t slot = 0;
  };
  std::vector<Resident> residents;
  std::vector<std::string> global_scratch, profile_scratch;  // of each step; empty: none
  std::vector<std::string> attention_scratch;
};

[[nodiscard]] Expected<Blueprint> make_blueprint(const Program& program,
                                                 const GenerateOptions& options);

// As generated programs hash files.
[[nodiscard]] std::uint64_t hash_of(std::string_view bytes);

// Pieces of the generated text, one file each.
[[nodiscard]] std::string emit_header(const Blueprint& blueprint);
[[nodiscard]] std::string emit_runtime(const Blueprint& blueprint);
[[nodiscard]] std::string emit_source(const Blueprint& blueprint);
[[nodiscard]] std::string emit_tables(const Blueprint& blueprint);
[[nodiscard]] std::string emit_arguments(const Blueprint& blueprint);
[[nodiscard]] std::string emit_steps(const Blueprint& blueprint);
[[nodiscard]] std::string emit_attention_device(const Blueprint& blueprint, std::size_t step);
[[nodiscard]] std::string emit_attention_host(const Blueprint& blueprint, std::size_t step);
[[nodiscard]] std::string emit_interface(const Blueprint& blueprint);
[[nodiscard]] std::string emit_cmake(const Blueprint& blueprint);
[[nodiscard]] std::string emit_main(const Blueprint& blueprint);
[[nodiscard]] std::string emit_embedded(const Blueprint& blueprint);
// "int scale_cpu(void* stream, void* x, int32_t n)": a function of the user's.
[[nodiscard]] std::vector<std::string> declarations_of_functions(const Blueprint& blueprint);

}  // namespace attune::wrap
