// The header of a package: what a program that uses it sees.
#include <fmt/format.h>

#include <set>

#include "wrap/blueprint.h"
#include "wrap/naming.h"
#include "wrap/runtime_text.h"

namespace attune::wrap {

namespace {

std::string tensor_text(const TensorDeclaration& tensor) {
  std::string text = fmt::format("{}{}", facts(tensor.element).name, shape_text(tensor.shape));
  if (!tensor.contiguous) text += fmt::format(" strides {}", shape_text(tensor.strides));
  return fmt::format("{}, {}-byte aligned", text, tensor.alignment);
}

std::string c_type(Element element) { return std::string(facts(element).c_type); }

// The type of a function's argument in C.
std::string type_of(const Blueprint& b, const Argument& argument, const Parameter* parameter) {
  if (std::holds_alternative<TensorArgument>(argument) ||
      std::holds_alternative<NullArgument>(argument)) {
    return "void*";
  }
  if (parameter != nullptr && parameter->type.kind == ParameterType::Kind::scalar) {
    const std::string type = c_type(parameter->type.element);
    return type.empty() ? "float" : type;  // of a half: C has none
  }
  if (const auto* scalar = std::get_if<ScalarArgument>(&argument)) {
    return c_type(b.program->scalars[scalar->scalar].element);
  }
  return std::holds_alternative<double>(argument) ? "double" : "int64_t";
}

std::string declaration(const std::string& name, const std::vector<std::string>& arguments) {
  std::string text = fmt::format("int {}(void* stream", name);
  for (const std::string& argument : arguments) text += ", " + argument;
  return text + ")";
}

}  // namespace

std::vector<std::string> declarations_of_functions(const Blueprint& b) {
  std::vector<std::string> all;
  std::set<std::string> seen;
  for (const Step& step : b.program->steps) {
    std::vector<std::string> arguments;
    std::string name;
    if (const auto* call = std::get_if<CallStep>(&step.action)) {
      name = call->function.name;
      for (std::size_t i = 0; i < call->arguments.size(); ++i) {
        arguments.push_back(type_of(b, call->arguments[i], nullptr) + " " + call->names[i]);
      }
    } else if (const auto* kernel = std::get_if<KernelStep>(&step.action);
               kernel != nullptr && b.options.cpu) {
      const Kernel& k = b.program->kernels[kernel->kernel];
      name = k.fallback->name;
      for (std::size_t i = 0; i < k.parameters.size(); ++i) {
        if (!kernel->arguments[i]) continue;
        arguments.push_back(type_of(b, *kernel->arguments[i], &k.parameters[i]) + " " +
                            as_identifier(k.parameters[i].name));
      }
    } else {
      continue;
    }
    if (seen.insert(name).second) all.push_back(declaration(name, arguments));
  }
  return all;
}

std::string emit_header(const Blueprint& b) {
  const Program& p = *b.program;
  const std::string& n = p.name;
  std::string t = fmt::format(
      "/* {}.h: written by `attune wrap`, for {}. Do not edit.\n"
      " *\n"
      " * A program of {} steps; {}_describe() tells them. Functions return ATTUNE_WRAPPED_OK or "
      "say in\n"
      " * {}_last_error() what was wrong, with the values; none throws or exits. An instance may "
      "run on\n"
      " * several threads at once.\n"
      " */\n",
      n, b.options.cpu ? "the CPU" : "NVIDIA GPUs", p.steps.size(), n, n);
  t += fmt::format("#ifndef {0}_H\n#define {0}_H\n\n", as_macro(n));
  t += runtime_header("wrap/runtime/abi.h");
  t += "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n";

  t += "/* What a call brings: memory on the device that runs it. */\n";
  t += fmt::format("typedef struct {}_arguments {{\n", n);
  for (const TensorDeclaration& tensor : p.tensors) {
    if (!is_outside(tensor)) continue;
    t += fmt::format("  attune_wrapped_tensor {}; /* {}: {} */\n", tensor.name,
                     tensor.role == TensorRole::input ? "input" : "output", tensor_text(tensor));
  }
  for (const ScalarDeclaration& scalar : p.scalars) {
    t += fmt::format("  {} {};\n", c_type(scalar.element), scalar.name);
  }
  t += fmt::format(
      "  void* workspace; /* of {}_workspace_bytes(), 256-byte aligned; NULL: each run allocates "
      "*/\n"
      "  size_t workspace_bytes;\n",
      n);
  t += b.options.cpu
           ? "  void* stream; /* handed to functions */\n"
           : "  void* stream; /* CUstream or cudaStream_t; NULL is the default stream */\n";
  t += fmt::format("}} {}_arguments;\n\n", n);

  t += fmt::format("typedef struct {}_sizes {{\n", n);
  for (const Size& size : p.sizes) {
    t += fmt::format(
        "  int64_t {}; /* {} to {}{} */\n", size.name, size.range.min, size.range.max,
        size.range.multiple_of > 1 ? fmt::format(", multiples of {}", size.range.multiple_of) : "");
  }
  if (p.sizes.empty()) t += "  int64_t unused;\n";
  t += fmt::format("}} {}_sizes;\n\n", n);

  t += fmt::format(
      "typedef struct {0}_instance {0}_instance;\n\n"
      "/* folder: where the program's files lie; NULL is the folder of the library or program that "
      "this\n"
      " * is linked into. device_index: the GPU of calls without a stream and a current context. "
      "*/\n"
      "int {0}_create(const char* folder, int device_index, {0}_instance** out);\n"
      "/* NULL is fine. No call may be running. */\n"
      "void {0}_destroy({0}_instance* instance);\n"
      "/* Loads everything into the context of `stream` (or the current one), so that no run has "
      "to: do so\n"
      " * before capturing a graph. */\n"
      "int {0}_prepare({0}_instance* instance, void* stream);\n"
      "int {0}_workspace_bytes(const {0}_sizes* sizes, size_t* bytes);\n"
      "{1}"
      "int {0}_run({0}_instance* instance, const {0}_arguments* arguments);\n"
      "/* Arguments, sizes and steps, for people. */\n"
      "const char* {0}_describe(void);\n"
      "/* Of the calling thread; never NULL. */\n"
      "const char* {0}_last_error(void);\n"
      "/* For tools. */\n"
      "const attune_wrapped_package* {0}_package(void);\n",
      n,
      b.options.cpu
          ? "/* Computes. */\n"
          : "/* Queues the work on the stream; allocates nothing but a workspace where none is "
            "given. */\n");

  const auto functions = declarations_of_functions(b);
  if (!functions.empty()) {
    t += "\n/* Functions of yours that it calls: 0 when all is well. */\n";
    for (const std::string& function : functions) t += function + ";\n";
  }
  t += "\n#ifdef __cplusplus\n}\n";
  const std::string type = as_type(n);
  t += fmt::format(
      "\n"
      "// The same for C++; nothing throws.\n"
      "class {1} {{\n"
      " public:\n"
      "  explicit {1}(const char* folder = nullptr, int device_index = 0)\n"
      "      : status_({0}_create(folder, device_index, &instance_)) {{}}\n"
      "  ~{1}() {{ {0}_destroy(instance_); }}\n"
      "  {1}(const {1}&) = delete;\n"
      "  {1}& operator=(const {1}&) = delete;\n"
      "\n"
      "  // Of the constructor.\n"
      "  int status() const {{ return status_; }}\n"
      "  int prepare(void* stream = nullptr) {{ return {0}_prepare(instance_, stream); }}\n"
      "  int run(const {0}_arguments& arguments) {{ return {0}_run(instance_, &arguments); }}\n"
      "  static const char* last_error() {{ return {0}_last_error(); }}\n"
      "\n"
      " private:\n"
      "  {0}_instance* instance_ = nullptr;\n"
      "  int status_;\n"
      "}};\n"
      "#endif\n\n#endif\n",
      n, type == n ? type + "_" : type);
  return t;
}

}  // namespace attune::wrap
