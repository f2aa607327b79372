// The same tests on a GPU: a test program that calls use_gpu() judges its kernels instead of the
// CPU's.
#pragma once

#include "host/device_facts.h"
#include "tests/support/device_under_test.h"

namespace attune::testing {

// From now on kernels are judged on this GPU.
void use_gpu(int device);
[[nodiscard]] int gpu();

// Precondition: no_gpu() is empty.
[[nodiscard]] const DeviceFacts& gpu_facts();

}  // namespace attune::testing
