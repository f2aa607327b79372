// Writes the unit of one row for the emulator: the source that a GPU's compiler gets, its kernels under
// names of their own, and their places in the table of entries.
//
// usage: attune_emulator_make_unit ID FILE
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <string_view>

#include "source/translation_unit.h"
#include "spec/kernel_spec.h"

namespace {

using namespace attune;

// attune_kernel, or all that begin like it.
std::set<std::string> names_of_kernels(std::string_view source) {
  std::set<std::string> names;
  for (std::size_t at = source.find(kEntryName); at != std::string_view::npos;
       at = source.find(kEntryName, at + 1)) {
    const std::size_t end = source.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at);
    names.emplace(source.substr(at, end - at));
  }
  return names;
}

std::string unit_for(const KernelSpec& spec) {
  const std::string id = id_of(spec), source = source_for(spec);
  std::string own = id;
  std::replace(own.begin(), own.end(), '.', '_');
  std::string renames, places;
  for (const std::string& name : names_of_kernels(source)) {
    renames += fmt::format("#define {0} {0}_of_{1}\n", name, own);
    places += fmt::format(
        "[[maybe_unused]] const bool {0}_added =\n"
        "    attune::emulator::add_kernel<{0}_of_{1}>(\"{2}\", \"{0}\");\n",
        name, own, id);
  }
  // `name_added` is another word to the preprocessor than `name`.
  return fmt::format(
      "#define __CUDA_ARCH__ {}\n"
      "#include \"tests/emulator/entries.h\"\n"
      "#include \"tests/emulator/device.h\"\n"
      "{}\n{}\nnamespace {{\n{}}}  // namespace\n",
      spec.archs.begin < 80 ? 750 : 900, renames, source, places);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: attune_emulator_make_unit ID FILE\n", stderr);
    return 2;
  }
  const auto spec = spec_from(argv[1]);
  if (!spec || spec->family == Family::cpu) {
    fmt::print(stderr, "\"{}\" is no GPU kernel's id: tests/emulator/rows.txt\n", argv[1]);
    return 1;
  }
  std::ofstream file(argv[2]);
  file << unit_for(*spec);
  file.close();
  return file ? 0 : 1;
}
