// The stand-in's part of the copy engine: descriptions of tensors.
#pragma once

#include "tests/stand_in/control.h"

namespace attune::testing {

const StandInTensorMap* tensor_map(int n);
int tensor_map_count();
void forget_tensor_maps();

}  // namespace attune::testing
