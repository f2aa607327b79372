// Shapes and strides of a program's tensors and views.
#pragma once

#include <string>

#include "wrap/program.h"
#include "wrap/reading.h"

namespace attune::wrap {

// From `fields`, whose "shape" is `shape`; without "strides" the tensor is row-major.
void read_layout(Reading& reading, const JsonNode& fields, const std::string& path,
                 const JsonNode& shape, TensorDeclaration& tensor);

}  // namespace attune::wrap
