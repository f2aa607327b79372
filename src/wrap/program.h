// A program as it is read from JSON: what goes in and out, what is kept between, and the steps in order.
// docs/wrap.md describes the format. Plain data; read_program() holds it together.
#pragma once

#include <array>
#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "io/tensor.h"
#include "wrap/element.h"
#include "wrap/expression.h"
#include "wrap/json_tree.h"
#include "wrap/kernel.h"

namespace attune::wrap {

// Sizes without a "max" go up to this.
inline constexpr std::int64_t kDefaultMost = std::int64_t{1} << 20;
inline constexpr int kMaxTensorRank = 8;
// Of constants, temporaries and what nobody says otherwise of.
inline constexpr int kDefaultAlignment = 16;
inline constexpr int kStorageAlignment = 256;

// A whole number that calls bring: an extent or a stride of an input, or a scalar.
struct Size {
  std::string name;
  Range range;
  Place place;
};

enum class TensorRole : std::uint8_t { input, output, constant, temporary, view };

struct TensorDeclaration {
  std::string name;
  TensorRole role = TensorRole::temporary;
  Element element = Element::f32;
  std::vector<Expression> shape;
  std::vector<Expression> strides;    // in elements; as many as the shape has
  bool contiguous = true;             // the strides are those of a row-major tensor
  int alignment = kDefaultAlignment;  // bytes that its address is a multiple of
  // A view: of which tensor, and where it starts in it, in elements.
  std::size_t base = 0;
  Expression offset;
  // A constant: where it comes from.
  std::filesystem::path file;
  std::string tensor;
  std::shared_ptr<const Tensor> data;
  Place place;
};

// Whether calls bring it: an input or an output.
[[nodiscard]] inline bool is_outside(const TensorDeclaration& tensor) {
  return tensor.role == TensorRole::input || tensor.role == TensorRole::output;
}

// A number that calls bring. Integers are sizes too, of the same name.
struct ScalarDeclaration {
  std::string name;
  Element element = Element::f32;
  Place place;
};

// What a kernel or a C function is given: a tensor's address, no address, a whole number, a scalar
// that calls bring, or a number with a point.
struct TensorArgument {
  std::size_t tensor;
};
struct NullArgument {};
struct ScalarArgument {
  std::size_t scalar;
};
using Argument = std::variant<TensorArgument, NullArgument, Expression, ScalarArgument, double>;

struct KernelStep {
  std::size_t kernel = 0;
  std::vector<std::optional<Argument>> arguments;  // as Kernel::parameters; none: not given
  std::optional<std::array<Expression, 3>> grid;   // in place of the configurations'
};

// Tensors by their names in attune::Arguments.
struct AttentionStep {
  std::string problem;  // words of a Problem's text, without what the tensors say
  std::vector<std::pair<std::string, std::size_t>> tensors;
  std::uint64_t dropout_seed = 0, dropout_offset = 0;
  // Packed or paged: the longest lengths, which no tensor says.
  std::optional<Expression> max_seqlen_q, max_seqlen_k;

  [[nodiscard]] std::optional<std::size_t> tensor(std::string_view name) const;
};

struct CopyStep {
  std::size_t from = 0, to = 0;
};

struct FillStep {
  std::size_t tensor = 0;
  double value = 0;
};

struct CallStep {
  HostFunction function;
  std::vector<Argument> arguments;
  std::vector<std::string> names;  // of the arguments, in the function's declaration
};

using Action = std::variant<KernelStep, AttentionStep, CopyStep, FillStep, CallStep>;

struct Step {
  std::string name;
  Action action;
  Place place;
};

struct Program {
  std::string name;
  std::vector<Size> sizes;
  std::vector<TensorDeclaration> tensors;  // inputs, outputs, constants, temporaries, views
  std::vector<ScalarDeclaration> scalars;
  std::vector<Kernel> kernels;
  std::vector<Step> steps;

  [[nodiscard]] std::optional<Range> range_of(const std::string& size) const;
  [[nodiscard]] std::optional<std::size_t> tensor_named(std::string_view tensor) const;
  // What holds a tensor's bytes: itself, or what it is a view of.
  [[nodiscard]] std::size_t storage_of(std::size_t tensor) const;
};

// Strides of a row-major tensor.
[[nodiscard]] std::vector<Expression> row_major_strides(const std::vector<Expression>& shape);
// Bytes from the first element to the end of the last one of a tensor of this shape and these strides.
[[nodiscard]] Expression extent_bytes(const TensorDeclaration& tensor);
[[nodiscard]] Expression count_of(const std::vector<Expression>& shape);

// "[B, S, 512]"
[[nodiscard]] std::string shape_text(const std::vector<Expression>& shape);

// Tensors that a step uses.
[[nodiscard]] std::vector<std::size_t> tensors_of(const Step& step);

}  // namespace attune::wrap
