// The stand-in's part of the copy engine: descriptions of tensors.
#pragma once

#include "launch/cuda_types.h"
#include "tests/stand_in/control.h"

namespace attune::testing {

// Counts a call, and what it was told to answer.
cuda::Result enter(const char* name);

const StandInTensorMap* tensor_map(int n);
int tensor_map_count();
void forget_tensor_maps();

}  // namespace attune::testing
