#include "wrap/size_binding.h"

#include <string>

namespace attune::wrap {

namespace {

using From = SizeSource::From;

SizeSource source_of(const Program& program, const std::string& size) {
  for (std::size_t i = 0; i < program.scalars.size(); ++i) {
    if (program.scalars[i].name == size) return {From::scalar, i, 0};
  }
  for (const From from : {From::extent, From::stride}) {
    for (const TensorRole role : {TensorRole::input, TensorRole::output}) {
      for (std::size_t i = 0; i < program.tensors.size(); ++i) {
        const TensorDeclaration& tensor = program.tensors[i];
        if (tensor.role != role) continue;
        const auto& list = from == From::extent ? tensor.shape : tensor.strides;
        for (std::size_t axis = 0; axis < list.size(); ++axis) {
          if (list[axis].op == Expression::Op::name && list[axis].name == size) {
            return {from, i, axis};
          }
        }
      }
    }
  }
  return {};
}

}  // namespace

std::vector<SizeSource> bind_sizes(const Program& program) {
  std::vector<SizeSource> sources;
  for (const Size& size : program.sizes) sources.push_back(source_of(program, size.name));
  return sources;
}

}  // namespace attune::wrap
