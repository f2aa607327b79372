// The whole table as files: a tree that nvcc compiles by itself, without this library.
#pragma once

#include <string>
#include <vector>

#include "spec/kernel_spec.h"

namespace attune {

struct GeneratedFile {
  std::string path;  // below the tree's root
  std::string text;
};

//   kernels/<id>.cu   one unit a spec
//   attune/...        the device headers that they include
//   dispatch.h        a constexpr array: id -> file, entry, launch shape, architectures
//   manifest.json     the same, with each row's features, for other languages
//
// In order of path; the same specs give the same bytes. Precondition: none is of family cpu.
[[nodiscard]] std::vector<GeneratedFile> generate_tree(const std::vector<KernelSpec>& specs);

}  // namespace attune
