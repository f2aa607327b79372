// What a kernel is given, parameter by parameter: in Triton's order, as its own launcher has it.
#include <fmt/format.h>

#include <string_view>

#include "io/file.h"
#include "wrap/kernel.h"

namespace attune::wrap {

namespace {

using Kind = LaunchValue::Kind;

constexpr std::uint32_t kTensorMapBytes = 128;

// A descriptor is a tensor map and its shape (i32) and strides (i64); one that was not lowered to a map is an
// address, shape and strides (i64), a flag for padding, and the shape and strides once more.
void add_descriptor(std::vector<LaunchValue>& values, std::size_t parameter, std::size_t descriptor,
                    int rank, bool map) {
  const auto add = [&](Kind kind, int axis, std::uint32_t bytes) {
    LaunchValue value;
    value.kind = kind;
    value.parameter = parameter;
    value.axis = axis;
    value.descriptor = descriptor;
    value.bytes = bytes;
    values.push_back(value);
  };
  if (map) {
    add(Kind::tensor_map, 0, kTensorMapBytes);
  } else {
    add(Kind::pointer, 0, 8);
    for (int axis = 0; axis < rank; ++axis) add(Kind::descriptor_shape, axis, 8);
    for (int axis = 0; axis < rank; ++axis) add(Kind::descriptor_stride, axis, 8);
    add(Kind::descriptor_padding, 0, 1);
  }
  for (int axis = 0; axis < rank; ++axis) add(Kind::descriptor_shape, axis, 4);
  for (int axis = 0; axis < rank; ++axis) add(Kind::descriptor_stride, axis, 8);
}

std::string_view name_of(const LaunchValue& value, const Kernel& kernel) {
  if (value.kind == Kind::global_scratch) return "global_scratch";
  if (value.kind == Kind::profile_scratch) return "profile_scratch";
  return kernel.parameters[value.parameter].name;
}

}  // namespace

std::vector<LaunchValue> launch_values(const Kernel& kernel, const Configuration& configuration,
                                       const Binary& binary) {
  std::vector<LaunchValue> values;
  std::size_t descriptors = 0;
  for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
    const Parameter& parameter = kernel.parameters[i];
    bool constant = configuration.constants.count(parameter.name) > 0;
    for (const std::string& name : configuration.absent)
      constant = constant || name == parameter.name;
    if (constant) continue;
    switch (parameter.type.kind) {
      case ParameterType::Kind::constant:
        break;
      case ParameterType::Kind::pointer: {
        LaunchValue value;
        value.kind = Kind::pointer;
        value.parameter = i;
        values.push_back(value);
        break;
      }
      case ParameterType::Kind::scalar: {
        LaunchValue value;
        value.parameter = i;
        const auto type = configuration.types.find(parameter.name);
        value.element = type == configuration.types.end() ? parameter.type.element : type->second;
        value.bytes = static_cast<std::uint32_t>(bytes_of(value.element));
        values.push_back(value);
        break;
      }
      case ParameterType::Kind::descriptor:
        add_descriptor(values, i, descriptors++, static_cast<int>(parameter.type.block.size()),
                       binary.launch.has_descriptors);
        break;
    }
  }
  return values;
}

Expected<std::vector<LaunchValue>> checked_launch_values(const Kernel& kernel,
                                                         const Configuration& configuration,
                                                         const Binary& binary) {
  std::vector<LaunchValue> values = launch_values(kernel, configuration, binary);
  const auto refused = [&](const std::string& why) {
    return in_file(binary.path,
                   {Code::invalid_argument,
                    fmt::format("kernel {}, {}: {}", kernel.name, configuration.name, why)});
  };
  // Triton has had both hidden parameters since 3.5, only the first one before, and none until 3.2.
  const std::size_t visible = values.size();
  const std::size_t has = binary.parameter_bytes
                              ? binary.parameter_bytes->size()
                              : visible + (binary.launch.scratch_parameters ? 2 : 0);
  const std::size_t most = visible + (binary.launch.scratch_parameters ? 2 : 0);
  if (has < visible || has > most) {
    return refused(fmt::format(
        "the file's kernel {} has {} parameters, and the signature {}{}", binary.symbol, has,
        visible, binary.launch.scratch_parameters ? " and up to two for scratch memory" : ""));
  }
  for (const Kind kind : {Kind::global_scratch, Kind::profile_scratch}) {
    if (values.size() >= has) break;
    LaunchValue value;
    value.kind = kind;
    values.push_back(value);
  }
  const bool no_global = has < visible + 1, no_profile = has < visible + 2;
  if ((binary.launch.global_scratch_bytes > 0 && no_global) ||
      (binary.launch.profile_scratch_bytes > 0 && no_profile)) {
    return refused("the metadata asks for scratch memory, and the kernel has no parameter for it");
  }
  if (!binary.parameter_bytes) return values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t bytes = (*binary.parameter_bytes)[i];
    if (bytes == values[i].bytes) continue;
    return refused(fmt::format("parameter {}, {}, has {} bytes in the signature and {} in the file",
                               i, name_of(values[i], kernel), values[i].bytes, bytes));
  }
  return values;
}

}  // namespace attune::wrap
