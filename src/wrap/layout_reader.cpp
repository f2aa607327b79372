#include "wrap/layout_reader.h"

#include <fmt/format.h>

#include "io/tensor.h"

namespace attune::wrap {

void read_layout(Reading& reading, const JsonNode& fields, const std::string& path,
                 const JsonNode& shape, TensorDeclaration& tensor) {
  tensor.shape = reading.expressions(shape, in(path, "shape"), kMaxTensorRank);
  tensor.strides = row_major_strides(tensor.shape);
  const JsonNode* strides = fields.field("strides");
  if (strides == nullptr) return;
  tensor.strides = reading.expressions(*strides, in(path, "strides"), kMaxTensorRank);
  tensor.contiguous = tensor.strides == row_major_strides(tensor.shape);
  if (tensor.strides.size() != tensor.shape.size()) {
    reading.refuse(*strides, in(path, "strides"),
                   fmt::format("there are {} strides for {} dimensions", tensor.strides.size(),
                               tensor.shape.size()));
  }
}

}  // namespace attune::wrap
