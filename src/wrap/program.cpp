#include "wrap/program.h"

#include <algorithm>

namespace attune::wrap {

using Op = Expression::Op;

std::optional<Range> Program::range_of(const std::string& size) const {
  const auto found =
      std::find_if(sizes.begin(), sizes.end(), [&](const Size& s) { return s.name == size; });
  if (found == sizes.end()) return std::nullopt;
  return found->range;
}

std::optional<std::size_t> AttentionStep::tensor(std::string_view name) const {
  for (const auto& [own, tensor] : tensors) {
    if (own == name) return tensor;
  }
  return std::nullopt;
}

std::optional<std::size_t> Program::tensor_named(std::string_view tensor) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorDeclaration& t) { return t.name == tensor; });
  if (found == tensors.end()) return std::nullopt;
  return static_cast<std::size_t>(found - tensors.begin());
}

std::size_t Program::storage_of(std::size_t tensor) const {
  while (tensors[tensor].role == TensorRole::view) tensor = tensors[tensor].base;
  return tensor;
}

std::vector<Expression> row_major_strides(const std::vector<Expression>& shape) {
  std::vector<Expression> strides(shape.size(), Expression(1));
  for (std::size_t axis = shape.size(); axis-- > 1;) {
    strides[axis - 1] = combine(Op::multiply, {shape[axis], strides[axis]});
  }
  return strides;
}

Expression count_of(const std::vector<Expression>& shape) {
  Expression count(1);
  for (const Expression& extent : shape) count = combine(Op::multiply, {std::move(count), extent});
  return count;
}

Expression extent_bytes(const TensorDeclaration& tensor) {
  const Expression size(bytes_of(tensor.element));
  if (tensor.contiguous) return combine(Op::multiply, {count_of(tensor.shape), size});
  // One past the last element; an empty tensor's is at most too large.
  Expression last(1);
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    const Expression gaps = combine(
        Op::maximum, {combine(Op::subtract, {tensor.shape[axis], Expression(1)}), Expression(0)});
    last = combine(Op::add, {combine(Op::multiply, {gaps, tensor.strides[axis]}), std::move(last)});
  }
  return combine(Op::multiply, {std::move(last), size});
}

std::string shape_text(const std::vector<Expression>& shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += to_text(shape[axis]);
  }
  return text + "]";
}

std::vector<std::size_t> tensors_of(const Step& step) {
  std::vector<std::size_t> used;
  const auto take = [&](const Argument& argument) {
    if (const auto* tensor = std::get_if<TensorArgument>(&argument)) used.push_back(tensor->tensor);
  };
  if (const auto* kernel = std::get_if<KernelStep>(&step.action)) {
    for (const auto& argument : kernel->arguments) {
      if (argument) take(*argument);
    }
  } else if (const auto* attention = std::get_if<AttentionStep>(&step.action)) {
    for (const auto& [name, tensor] : attention->tensors) used.push_back(tensor);
  } else if (const auto* copy = std::get_if<CopyStep>(&step.action)) {
    used = {copy->from, copy->to};
  } else if (const auto* fill = std::get_if<FillStep>(&step.action)) {
    used = {fill->tensor};
  } else if (const auto* call = std::get_if<CallStep>(&step.action)) {
    for (const Argument& argument : call->arguments) take(argument);
  }
  return used;
}

}  // namespace attune::wrap
