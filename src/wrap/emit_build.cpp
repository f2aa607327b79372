// What builds a package, and a program that shows how it is used.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "wrap/blueprint.h"
#include "wrap/naming.h"

namespace attune::wrap {

namespace {

// Sources of the user's functions, by their names in the package.
std::set<std::string> user_sources(const Blueprint& b) {
  std::set<std::string> sources;
  for (const Step& step : b.program->steps) {
    if (const auto* call = std::get_if<CallStep>(&step.action)) {
      if (!call->function.source.empty()) {
        sources.insert(call->function.source.filename().string());
      }
    }
    const auto* kernel = std::get_if<KernelStep>(&step.action);
    if (kernel == nullptr || !b.options.cpu) continue;
    const Kernel& k = b.program->kernels[kernel->kernel];
    if (!k.fallback->source.empty()) sources.insert(k.fallback->source.filename().string());
  }
  return sources;
}

}  // namespace

std::string emit_cmake(const Blueprint& b) {
  const std::string& n = b.program->name;
  std::string sources = n + ".cpp";
  if (b.options.embed) sources += fmt::format(" {}_embedded.cpp", n);
  for (const std::string& source : user_sources(b)) sources += " " + source;
  std::string t = fmt::format(
      "# Written by `attune wrap`. Alone: cmake -B build && cmake --build build; in a project of "
      "yours:\n"
      "# add_subdirectory() and target_link_libraries(... {0}).\n"
      "cmake_minimum_required(VERSION 3.16)\n"
      "project({0} LANGUAGES CXX)\n\n",
      n);
  if (b.options.cpu) t += "find_package(Threads REQUIRED)\nfind_package(attune REQUIRED)\n\n";
  t += fmt::format(
      "if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)\n"
      "  set(CMAKE_BUILD_TYPE Release)\n"
      "endif()\n"
      "add_library({0} SHARED {1})\n"
      "target_include_directories({0} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})\n"
      "target_compile_features({0} PUBLIC cxx_std_17)\n"
      "target_link_libraries({0} PRIVATE ${{CMAKE_DL_LIBS}}{2})\n",
      n, sources, b.options.cpu ? " attune::attune" : "");
  std::string files;
  if (!b.options.embed) {
    if (!b.options.cpu) {
      for (const PackageImage& image : b.images) files += " " + image.file;
    }
    if (!b.constants.bytes.empty()) files += " " + b.constants.file;
  }
  if (!files.empty()) {
    t += fmt::format(
        "# The program looks for its files beside the library.\n"
        "foreach(file{1})\n"
        "  configure_file(${{file}} ${{CMAKE_CURRENT_BINARY_DIR}}/${{file}} COPYONLY)\n"
        "endforeach()\n",
        n, files);
  }
  t += fmt::format(
      "\nif(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)\n"
      "  add_executable({0}_example main.cpp)\n"
      "  target_link_libraries({0}_example PRIVATE {0})\n"
      "endif()\n",
      n);
  return t;
}

std::string emit_main(const Blueprint& b) {
  const Program& p = *b.program;
  const std::string& n = p.name;
  std::string t = fmt::format(
      "// An example for {0}: written by `attune wrap`, to be changed. It says what the program is "
      "and how much\n"
      "// memory it needs; run() shows a call.\n"
      "#include \"{0}.h\"\n\n"
      "#include <cstdio>\n\n"
      "namespace {{\n\n"
      "// Memory {1}.\n"
      "[[maybe_unused]] int run({0}_instance* instance, const {0}_sizes& size",
      n, b.options.cpu ? "of the host" : "on the GPU");
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    t += fmt::format(", void* {}", tensor.name);
  }
  for (const ScalarDeclaration& scalar : p.scalars) {
    if (p.range_of(scalar.name)) continue;
    t += fmt::format(", {} {}", facts(scalar.element).c_type, scalar.name);
  }
  t += fmt::format(",\n                         void* stream) {{\n  {}_arguments a{{}};\n", n);
  if (p.sizes.empty()) t += "  (void)size;\n";
  const auto over_size = [](const Expression& expression) {
    return to_cpp(expression, [](const std::string& name) { return "size." + name; });
  };
  // The example has no arithmetic of its own.
  std::string helpers;
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    std::string shape;
    for (const Expression& extent : tensor.shape) {
      shape += fmt::format("{}{}", shape.empty() ? "" : ", ", over_size(extent));
    }
    helpers += shape;
    t += fmt::format(
        "  const int64_t {0}_shape[] = {{{1}}};\n"
        "  a.{0} = attune_wrapped_contiguous({0}, {2}, {3}, {0}_shape);\n",
        tensor.name, shape.empty() ? "1" : shape, facts(tensor.element).constant,
        tensor.shape.size());
    if (tensor.contiguous) continue;
    for (std::size_t axis = 0; axis < tensor.strides.size(); ++axis) {
      const std::string stride = over_size(tensor.strides[axis]);
      helpers += stride;
      t += fmt::format("  a.{}.strides[{}] = {};\n", tensor.name, axis, stride);
    }
  }
  for (const ScalarDeclaration& scalar : p.scalars) {
    t += p.range_of(scalar.name) ? fmt::format("  a.{0} = static_cast<{1}>(size.{0});\n",
                                               scalar.name, facts(scalar.element).c_type)
                                 : fmt::format("  a.{0} = {0};\n", scalar.name);
  }
  t += fmt::format(
      "  a.stream = stream;\n  return {}_run(instance, &a);\n}}\n\n}}  // namespace\n\n", n);
  std::string arithmetic;
  for (const auto& [name, sign] : {std::pair{"least", "<"}, {"most", ">"}}) {
    if (helpers.find(std::string(name) + "(") == std::string::npos) continue;
    arithmetic += fmt::format("int64_t {0}(int64_t a, int64_t b) {{ return a {1} b ? a : b; }}\n",
                              name, sign);
  }
  if (helpers.find("ceil_div(") != std::string::npos) {
    arithmetic +=
        "int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }\n";
  }
  if (!arithmetic.empty()) {
    const std::string opening = "namespace {\n\n";
    t.insert(t.find(opening) + opening.size(), arithmetic + "\n");
  }
  t += fmt::format(
      "int main() {{\n"
      "  std::fputs({0}_describe(), stdout);\n"
      "  {0}_sizes size{{}};\n",
      n);
  for (const Size& size : p.sizes) {
    const std::int64_t value = std::clamp<std::int64_t>(
        1024 / size.range.multiple_of * size.range.multiple_of, size.range.min, size.range.max);
    t += fmt::format("  size.{} = {};\n", size.name, value);
  }
  t += fmt::format(
      "  size_t bytes = 0;\n"
      "  if ({0}_workspace_bytes(&size, &bytes) != ATTUNE_WRAPPED_OK) {{\n"
      "    std::fprintf(stderr, \"%s\\n\", {0}_last_error());\n    return 1;\n  }}\n"
      "  std::printf(\"workspace: %zu bytes\\n\", bytes);\n"
      "  {0}_instance* instance = nullptr;\n"
      "  if ({0}_create(nullptr, 0, &instance) != ATTUNE_WRAPPED_OK ||\n"
      "      {0}_prepare(instance, nullptr) != ATTUNE_WRAPPED_OK) {{\n"
      "    std::fprintf(stderr, \"%s\\n\", {0}_last_error());\n"
      "    {0}_destroy(instance);\n    return 1;\n  }}\n"
      "  {0}_destroy(instance);\n"
      "  return 0;\n}}\n",
      n);
  return t;
}

}  // namespace attune::wrap
