// A compiled kernel as a program names it: its parameters, and the ways in which it was compiled.
#pragma once

#include <array>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cubin/target.h"
#include "wrap/element.h"
#include "wrap/expression.h"
#include "wrap/json_tree.h"

namespace attune::wrap {

struct ParameterType {
  enum class Kind : std::uint8_t { pointer, scalar, constant, descriptor };
  Kind kind = Kind::scalar;
  Element element = Element::i32;   // that a pointer points at; of a scalar; of a descriptor
  bool untyped = false;             // a pointer to anything
  std::vector<std::int64_t> block;  // of a descriptor
};

struct Parameter {
  std::string name;
  ParameterType type;
  Place place;
};

enum class BinaryForm : std::uint8_t { cubin, ptx, fatbin };

// How Triton lowered a tensor descriptor (its tensordesc_meta).
struct DescriptorLayout {
  int swizzle = 0;  // as CUtensorMapSwizzle
  int element_bytes = 0;
  int element_type = 0;  // as CUtensorMapDataType
  std::vector<std::int64_t> block;
};

// How a kernel is launched, beside its grid.
struct LaunchShape {
  std::array<std::int64_t, 3> block = {1, 1, 1};
  std::int64_t shared_bytes = 0;  // dynamic
  std::array<std::int64_t, 3> cluster = {1, 1, 1};
  bool multiply_grid = false;  // the grid counts clusters, as Triton's does
  bool spread = false;         // clusters over processors
  bool cooperative = false;
  bool programmatic = false;  // starts before its predecessor has ended
  std::int64_t global_scratch_bytes = 0, global_scratch_alignment = 1;    // a block of the grid
  std::int64_t profile_scratch_bytes = 0, profile_scratch_alignment = 1;  // likewise
  bool scratch_parameters = false;  // hidden parameters for scratch may follow the others
  bool has_descriptors = false;     // `descriptors` says how they were lowered, as tensor maps
  std::vector<DescriptorLayout> descriptors;
};

// One compiled file for one architecture.
struct Binary {
  BinaryForm form = BinaryForm::cubin;
  std::filesystem::path path;  // of Triton's metadata until its files are read
  bool metadata = false;
  bool target_declared = false;
  std::string symbol;
  Target target;  // of a fatbin: the first one that is in it, or arch 0: nobody knows
  LaunchShape launch;
  std::vector<std::byte> bytes;
  // Sizes of the parameters, in order, as the file says; nothing when it does not.
  std::optional<std::vector<std::uint32_t>> parameter_bytes;
  Place place;
};

// Constants, divisibilities and a condition under which these binaries are right.
struct Configuration {
  std::string name;
  std::optional<Expression> when;  // over sizes, the kernel's integer parameters and constants
  std::map<std::string, std::int64_t> constants;  // parameters that are compiled in
  std::vector<std::string> absent;  // and those compiled in as something else than numbers
  std::map<std::string, std::int64_t> divisible_by;
  std::map<std::string, Element>
      types;  // of scalar parameters, where they differ from the kernel's
  std::array<Expression, 3> grid = {Expression(1), Expression(1), Expression(1)};
  bool fold = false;  // what of y is past the limit goes to z
  std::vector<Binary> binaries;
  Place place;
};

// A C function of the user's: int NAME(void* stream, ...), 0 when all is well.
struct HostFunction {
  std::string name;
  std::filesystem::path source;  // empty: it comes from elsewhere
  Place place;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  std::vector<Configuration> configurations;
  std::optional<HostFunction> fallback;  // what computes the same on the CPU
  Place place;
};

// A value of a launch, in order: a parameter of the kernel or a part of one (a descriptor has several),
// or hidden scratch.
struct LaunchValue {
  enum class Kind : std::uint8_t {
    pointer,
    scalar,
    tensor_map,
    descriptor_shape,   // i32, or i64 where the descriptor is no tensor map
    descriptor_stride,  // i64
    descriptor_padding,
    global_scratch,
    profile_scratch
  };
  Kind kind = Kind::scalar;
  std::size_t parameter = 0;
  Element element = Element::i64;  // of a scalar
  int axis = 0;                    // of a descriptor's shape or stride
  std::size_t descriptor = 0;      // which of the binary's descriptors
  std::uint32_t bytes = 8;
};

// What a launch of a configuration is given, hidden parameters aside. Whether a descriptor is a tensor
// map is known from the binary.
[[nodiscard]] std::vector<LaunchValue> launch_values(const Kernel& kernel,
                                                     const Configuration& configuration,
                                                     const Binary& binary);

// The same with the hidden parameters that the file itself has. Refused when the file's parameters are
// others: "k.cubin: saxpy: parameter 2, n, has 4 bytes in the signature and 8 in the file".
[[nodiscard]] Expected<std::vector<LaunchValue>> checked_launch_values(
    const Kernel& kernel, const Configuration& configuration, const Binary& binary);

}  // namespace attune::wrap
