// The source of a package: run-time text, tables, steps, and the functions of the header.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "wrap/blueprint.h"
#include "wrap/naming.h"
#include "wrap/runtime_text.h"

namespace attune::wrap {

namespace {

template <typename T>
bool any(const Program& program) {
  return std::any_of(program.steps.begin(), program.steps.end(),
                     [](const Step& s) { return std::holds_alternative<T>(s.action); });
}

bool has_descriptors(const Program& program) {
  for (const Kernel& kernel : program.kernels) {
    for (const Parameter& p : kernel.parameters) {
      if (p.type.kind == ParameterType::Kind::descriptor) return true;
    }
  }
  return false;
}

bool any_attention(const Blueprint& b) {
  return std::any_of(b.attention.begin(), b.attention.end(),
                     [](const auto& a) { return a.has_value(); });
}

RuntimeText runtime_of(const Blueprint& b) {
  const Program& p = *b.program;
  std::vector<std::string_view> parts = {"wrap/runtime/check.h"};
  if (b.options.cpu) {
    parts.emplace_back("wrap/runtime/host.h");
  } else {
    parts.emplace_back("wrap/runtime/launch.h");
    if (any<CopyStep>(p) || any<FillStep>(p)) parts.emplace_back("wrap/runtime/copy_device.h");
    if (has_descriptors(p)) parts.emplace_back("wrap/runtime/tensor_map.h");
    if (any<AttentionStep>(p)) parts.emplace_back("wrap/runtime/attention_device.h");
  }
  constexpr std::array<std::string_view, 1> kInHeader = {"wrap/runtime/abi.h"};
  return runtime_text(parts, kInHeader);
}

std::string summary(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t;
  for (std::size_t i = 0; i < p.steps.size(); ++i) {
    t += fmt::format("//   {:>3}  {}\n", i, as_comment(p.steps[i].name));
  }
  return t;
}

std::string description(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t = fmt::format("{}, for {}\n", p.name, b.options.cpu ? "the CPU" : "NVIDIA GPUs");
  for (const Size& size : p.sizes) {
    t += fmt::format("size {}: {} to {}", size.name, size.range.min, size.range.max);
    if (size.range.multiple_of > 1) t += fmt::format(", multiples of {}", size.range.multiple_of);
    t += "\n";
  }
  for (const TensorDeclaration& tensor : p.tensors) {
    const char* role = tensor.role == TensorRole::input      ? "input"
                       : tensor.role == TensorRole::output   ? "output"
                       : tensor.role == TensorRole::constant ? "constant"
                                                             : nullptr;
    if (role == nullptr) continue;
    t += fmt::format("{} {}: {}{}\n", role, tensor.name, facts(tensor.element).name,
                     shape_text(tensor.shape));
  }
  for (const ScalarDeclaration& scalar : p.scalars) {
    t += fmt::format("scalar {}: {}\n", scalar.name, facts(scalar.element).name);
  }
  for (std::size_t i = 0; i < p.steps.size(); ++i) {
    const Step& step = p.steps[i];
    std::string what = "host";
    if (const auto* kernel = std::get_if<KernelStep>(&step.action)) {
      what = "kernel " + p.kernels[kernel->kernel].name;
      for (const KernelChoice& choice : b.choices[i]) {
        const PackageVariant& v = b.variants[choice.variant];
        what += "; " + v.name + " for";
        for (std::size_t n = 0; n < v.count; ++n) {
          const PackageBinary& binary = b.binaries[v.first + n];
          what += fmt::format("{} {}", n == 0 ? "" : ",", to_string(binary.target));
          if (binary.form == BinaryForm::ptx) what += " and later, as PTX";
        }
      }
    } else if (b.attention[i]) {
      what = "attention";
      for (const AttentionRow& row : b.attention[i]->rows) what += " " + id_of(row.spec);
    } else if (std::holds_alternative<AttentionStep>(step.action)) {
      what = "attention";
    }
    t += fmt::format("step {}, {}: {}\n", i, step.name, what);
  }
  return t;
}

std::string lines_as_literals(const std::string& text, const std::string& in) {
  std::string t;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    t += "\n" + in + as_literal(std::string(rest.substr(0, end)) + "\n");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return t;
}

std::string step_list(const Blueprint& b) {
  const Program& p = *b.program;
  if (p.steps.empty()) return "";
  std::string t =
      "\nstruct StepEntry {\n  int (*run)(Run&);\n  const char* name;\n};\n\n"
      "inline constexpr StepEntry kSteps[] = {\n";
  for (std::size_t i = 0; i < p.steps.size(); ++i) {
    t += fmt::format("    {{step_{}, {}}},\n", i,
                     as_literal(fmt::format("{}: step {}, {}", p.name, i, p.steps[i].name)));
  }
  return t + "};\n";
}

std::string run_function(const Blueprint& b) {
  const bool cpu = b.options.cpu, workspace = !b.slots.empty(), steps = !b.program->steps.empty();
  std::string t = fmt::format(
      "\n// What {0}_run() does; an error is told without the program's name yet.\n"
      "inline int run_all(Instance& instance, Run& run) {{\n"
      "  if (const int code = take_arguments(run)) return fail_in(\"{0}\", code);\n",
      b.program->name);
  if (cpu) {
    t += "  run.call = {&instance};\n";
  } else {
    t += fmt::format(
        "  ContextScope scope;\n"
        "  const auto stream = static_cast<Stream>(run.arguments->stream);\n"
        "  if (const int code = enter(instance, stream, scope, run.call)) return fail_in(\"{0}\", "
        "code);\n"
        "  if (const int code = load_constants(instance, *run.call.loaded)) return "
        "fail_in(\"{0}\", code);\n",
        b.program->name);
  }
  const std::string constants = b.constants.bytes.empty() ? (cpu ? "nullptr" : "0")
                                : cpu
                                    ? "constants_of(instance)"
                                    : "run.call.loaded->constants.load(std::memory_order_relaxed)";
  if (workspace) {
    t += fmt::format(
        "  const Workspace layout = lay_out(run.size);\n"
        "  Address workspace = {0}<Address>(run.arguments->workspace);\n"
        "  OwnWorkspace own{1};\n"
        "  if (run.arguments->workspace != nullptr) {{\n"
        "    if (const int code = check_workspace(run.arguments->workspace,\n"
        "                                         run.arguments->workspace_bytes, layout.bytes)) "
        "{{\n"
        "      return fail_in(\"{2}\", code);\n"
        "    }}\n"
        "  }} else if (layout.bytes > 0) {{\n",
        cpu ? "static_cast" : "reinterpret_cast", cpu ? "" : "(run.call.stream)", b.program->name);
    t += cpu ? "    void* memory = nullptr;\n    const int code = own.allocate(layout.bytes, "
               "&memory);\n"
               "    workspace = static_cast<Address>(memory);\n"
             : "    const int code = own.allocate(layout.bytes, &workspace);\n";
    t += fmt::format("    if (code != ATTUNE_WRAPPED_OK) return fail_in(\"{}\", code);\n  }}\n",
                     b.program->name);
  }
  t += fmt::format("  take_addresses(run, {}{});\n", constants,
                   workspace ? ", workspace, layout" : "");
  if (steps) {
    t += "  for (const StepEntry& step : kSteps) {\n"
         "    if (const int code = step.run(run)) return fail_in(step.name, code);\n"
         "  }\n";
  }
  if (workspace && !cpu) {
    t += fmt::format("  if (const int code = own.release()) return fail_in(\"{}\", code);\n",
                     b.program->name);
  }
  return t + "  return ATTUNE_WRAPPED_OK;\n}\n";
}

std::string package_table(const Blueprint& b) {
  const Program& p = *b.program;
  std::string t;
  std::vector<std::string> reads;
  std::string rows;
  std::size_t count = 0;
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    rows += fmt::format("    {{{}, {}, {}, {}}},\n", as_literal(tensor.name),
                        tensor.role == TensorRole::input ? 0 : 1, facts(tensor.element).constant,
                        tensor.shape.size());
    reads.push_back(fmt::format("  a.{} = arguments[{}];\n", tensor.name, count++));
  }
  for (const ScalarDeclaration& scalar : p.scalars) {
    rows += fmt::format("    {{{}, 2, {}, 0}},\n", as_literal(scalar.name),
                        facts(scalar.element).constant);
    reads.push_back(fmt::format("  std::memcpy(&a.{0}, arguments[{1}].data, sizeof(a.{0}));\n",
                                scalar.name, count++));
  }
  if (count > 0) {
    t += fmt::format("\ninline constexpr attune_wrapped_argument kArguments[] = {{\n{}}};\n", rows);
  }
  t += fmt::format(
      "\n// For tools: the arguments as a list.\n"
      "inline int run_list(void* instance, [[maybe_unused]] const attune_wrapped_tensor* "
      "arguments,\n"
      "                    void* workspace, std::size_t workspace_bytes, void* stream) {{\n"
      "  {}_arguments a{{}};\n",
      p.name);
  for (const std::string& read : reads) t += read;
  t += fmt::format(
      "  a.workspace = workspace;\n  a.workspace_bytes = workspace_bytes;\n  a.stream = stream;\n"
      "  return {0}_run(static_cast<{0}_instance*>(instance), &a);\n}}\n\n"
      "inline int create_any(const char* folder, int device_index, void** instance) {{\n"
      "  {0}_instance* made = nullptr;\n"
      "  const int code = {0}_create(folder, device_index, &made);\n"
      "  *instance = made;\n  return code;\n}}\n\n"
      "inline void destroy_any(void* instance) {{ "
      "{0}_destroy(static_cast<{0}_instance*>(instance)); }}\n\n"
      "inline constexpr attune_wrapped_package kPackage = {{\n"
      "    sizeof(attune_wrapped_package), {1}, {2}, {3}, {4}, create_any, run_list, destroy_any,\n"
      "    {0}_last_error}};\n",
      p.name, as_literal(p.name), b.options.cpu ? "\"cpu\"" : "\"cuda\"",
      count > 0 ? "kArguments" : "nullptr", count);
  return t;
}

}  // namespace

std::string emit_interface(const Blueprint& b) {
  const std::string& n = b.program->name;
  const bool cpu = b.options.cpu;
  std::string t = "\nextern \"C\" {\n\n";
  t += fmt::format(
      "int {0}_create(const char* folder, [[maybe_unused]] int device_index, {0}_instance** out) "
      "{{\n"
      "  using namespace {0}_program;\n"
      "  if (out == nullptr) return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, \"{0}: out is NULL\");\n"
      "  *out = nullptr;\n"
      "  try {{\n"
      "    std::unique_ptr<Instance> made(new Instance);\n"
      "    made->tables = &kTables;\n"
      "    made->folder =\n"
      "        folder != nullptr ? folder : folder_of(reinterpret_cast<const "
      "void*>(&{0}_create));\n"
      "{1}"
      "    *out = reinterpret_cast<{0}_instance*>(made.release());\n"
      "    return ATTUNE_WRAPPED_OK;\n"
      "  }} catch (const std::exception&) {{\n"
      "    return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, \"{0}: there is no memory\");\n"
      "  }}\n"
      "}}\n\n",
      n,
      cpu ? fmt::format(
                "    if (const int code = load_constants(*made)) return fail_in(\"{}\", code);\n",
                n)
          : "    made->device = device_index;\n");
  t += fmt::format(
      "void {0}_destroy({0}_instance* instance) {{\n  using namespace {0}_program;\n"
      "  if (instance == nullptr) return;\n{1}"
      "  delete &instance_of(instance);\n}}\n\n",
      n, cpu ? "" : "  unload(instance_of(instance));\n");
  t += fmt::format(
      "int {0}_prepare({0}_instance* instance, [[maybe_unused]] void* stream) {{\n"
      "  using namespace {0}_program;\n"
      "  if (instance == nullptr) {{\n"
      "    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, \"{0}: the instance is NULL\");\n"
      "  }}\n",
      n);
  if (!cpu) {
    t += fmt::format(
        "  try {{\n"
        "    ContextScope scope;\n"
        "    Call call{{}};\n"
        "    if (const int code = enter(instance_of(instance), static_cast<Stream>(stream), scope, "
        "call)) {{\n"
        "      return fail_in(\"{0}\", code);\n"
        "    }}\n"
        "    if (const int code = load_everything(instance_of(instance), *call.loaded)) return "
        "fail_in(\"{0}\", code);\n"
        "  }} catch (const std::exception&) {{\n"
        "    return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, \"{0}: there is no memory\");\n"
        "  }}\n",
        n);
  }
  t += "  return ATTUNE_WRAPPED_OK;\n}\n\n";
  t += fmt::format(
      "int {0}_workspace_bytes(const {0}_sizes* sizes, size_t* bytes) {{\n"
      "  using namespace {0}_program;\n"
      "  if (sizes == nullptr || bytes == nullptr) {{\n"
      "    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, \"{0}: sizes or bytes is NULL\");\n"
      "  }}\n"
      "  [[maybe_unused]] Sizes s{{}};\n",
      n);
  for (std::size_t i = 0; i < b.program->sizes.size(); ++i) {
    const std::string& size = b.program->sizes[i].name;
    t += fmt::format(
        "  s.{0} = sizes->{0};\n"
        "  if (const int code = check_size(kSizes[{1}], s.{0})) return fail_in(\"{2}\", code);\n",
        size, i, n);
  }
  t += b.slots.empty() ? "  *bytes = 0;\n" : "  *bytes = static_cast<size_t>(lay_out(s).bytes);\n";
  t += "  return ATTUNE_WRAPPED_OK;\n}\n\n";
  t += fmt::format(
      "int {0}_run({0}_instance* instance, const {0}_arguments* arguments) {{\n"
      "  using namespace {0}_program;\n"
      "  if (instance == nullptr || arguments == nullptr) {{\n"
      "    return fail(ATTUNE_WRAPPED_INVALID_ARGUMENT, \"{0}: the instance or the arguments are "
      "NULL\");\n"
      "  }}\n"
      "  Run run{{}};\n"
      "  run.arguments = arguments;\n"
      "  try {{\n"
      "    return run_all(instance_of(instance), run);\n"
      "  }} catch (const std::exception&) {{\n"
      "    return fail(ATTUNE_WRAPPED_OUT_OF_MEMORY, \"{0}: there is no memory\");\n"
      "  }}\n"
      "}}\n\n"
      "const char* {0}_last_error(void) {{ return {0}_program::last_error().text; }}\n\n"
      "const char* {0}_describe(void) {{\n  return {1};\n}}\n\n"
      "const attune_wrapped_package* {0}_package(void) {{ return &{0}_program::kPackage; }}\n\n"
      "}}  // extern \"C\"\n",
      n, lines_as_literals(description(b), "         ").substr(1 + 9));
  return t;
}

std::string emit_runtime(const Blueprint& b) {
  const std::string& n = b.program->name;
  const RuntimeText runtime = runtime_of(b);
  std::string t = fmt::format(
      "// {0}_runtime.h: written by `attune wrap`, the same for all programs that need the same of "
      "it. Only\n"
      "// {0}.cpp includes it.\n"
      "#pragma once\n\n"
      "#include \"{0}.h\"\n\n",
      n);
  for (const std::string& include : runtime.includes) t += "#include " + include + "\n";
  // A namespace of the program's own, so that programs of different versions of Attune live side by side.
  t += fmt::format(
      "\n#pragma GCC visibility push(hidden)\nnamespace {0}_program {{\n\n{1}\n"
      "using namespace attune::wrapped;\n{2}\n}}  // namespace {0}_program\n"
      "#pragma GCC visibility pop\n",
      n, runtime.text, any_attention(b) ? "namespace kernel = attune::kernel;\n" : "");
  return t;
}

std::string emit_source(const Blueprint& b) {
  const std::string& n = b.program->name;
  std::string t = fmt::format(
      "// {0}.cpp: written by `attune wrap`, for {1}. Do not edit.\n//\n// Steps:\n{2}"
      "#include \"{0}.h\"\n\n",
      n, b.options.cpu ? "the CPU" : "NVIDIA GPUs", summary(b));
  for (const char* include : {"cstdint", "cstdio", "cstring", "exception", "memory", "string"}) {
    t += fmt::format("#include <{}>\n", include);
  }
  t += fmt::format("\n#include \"{}_runtime.h\"\n", n);
  if (b.options.embed) {
    t += "\n// In " + n + "_embedded.cpp.\n";
    for (std::size_t i = 0; i < b.images.size() && !b.options.cpu; ++i) {
      t += fmt::format("extern const char {}_image_{}[];\n", n, i);
    }
    if (!b.constants.bytes.empty()) t += fmt::format("extern const char {}_constants[];\n", n);
  }
  t += fmt::format("\n#pragma GCC visibility push(hidden)\nnamespace {}_program {{\n\n", n);
  t += "// ---- What it is made of\n\n";
  t += emit_tables(b);
  t += "\n// ---- What a call brings\n\n";
  t += emit_arguments(b);
  t += "\n// ---- Steps\n\n";
  t += emit_steps(b);
  t += step_list(b);
  t += run_function(b);
  t += package_table(b);
  t += fmt::format(
      "\n// Handed out as a {0}_instance, which nobody else can look into.\n"
      "inline Instance& instance_of({0}_instance* handle) {{ return "
      "*reinterpret_cast<Instance*>(handle); }}\n"
      "\n}}  // namespace {0}_program\n#pragma GCC visibility pop\n",
      n);
  t += emit_interface(b);
  return t;
}

std::string emit_embedded(const Blueprint& b) {
  const std::string& n = b.program->name;
  std::string t = fmt::format(
      "// {}_embedded.cpp: written by `attune wrap`: the files of the program, as texts.\n", n);
  const auto array = [&](const std::string& name, const std::string& bytes) {
    t += fmt::format("\nalignas(256) extern const char {}[];\nalignas(256) const char {}[] =", name,
                     name);
    for (std::size_t at = 0; at < bytes.size();) {
      t += "\n    \"";
      std::string line;
      for (; at < bytes.size() && line.size() < 90; ++at) {
        const auto byte = static_cast<unsigned char>(bytes[at]);
        const bool plain =
            byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\' && byte != '?';
        // Three digits end an escape whatever follows.
        line += plain ? std::string(1, bytes[at]) : fmt::format("\\{:03o}", byte);
      }
      t += line + "\"";
    }
    t += bytes.empty() ? " \"\";\n" : ";\n";
  };
  if (!b.options.cpu) {
    for (std::size_t i = 0; i < b.images.size(); ++i) {
      array(fmt::format("{}_image_{}", n, i), b.images[i].bytes);
    }
  }
  if (!b.constants.bytes.empty()) array(n + "_constants", b.constants.bytes);
  return t;
}

}  // namespace attune::wrap
