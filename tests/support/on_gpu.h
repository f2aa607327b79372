// The same tests on a GPU: a test program that calls use_gpu() judges the portable kernels instead of
// the CPU's.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "host/device_facts.h"
#include "spec/kernel_spec.h"
#include "tests/support/tensors.h"

namespace attune::testing {

// From now on kernels are judged on this GPU.
void use_gpu(int device);
[[nodiscard]] bool on_gpu();
[[nodiscard]] int gpu();

// Empty, or why nothing can run there: no driver, no such device, a kernel that broke the context.
[[nodiscard]] std::string no_gpu();
// Precondition: no_gpu() is empty.
[[nodiscard]] const DeviceFacts& gpu_facts();

// Rows for the GPU's architecture.
[[nodiscard]] std::vector<KernelSpec> gpu_kernels();

// The same problem for the GPU. Some come with q, k, v and o less aligned than to 16 bytes; `salt`
// decides, and so does the layout of the gradients among `arguments`.
[[nodiscard]] Problem for_gpu(Problem problem, std::string_view salt,
                              const Arguments& arguments = {});

// Those that serve the Problem: the one that make_plan() takes, and another (or all of them, with
// --every-kernel). Precondition: problem.device is cuda.
[[nodiscard]] std::vector<KernelSpec> serving_gpu_kernels(const Problem& problem,
                                                          std::string_view salt);

// Copies the tensors there, runs, and copies everything back, inputs and gaps too, so that
// Tensors::damage() sees what happened to them. Precondition: problem.device is cuda.
[[nodiscard]] Status run_on_gpu(const Problem& problem, const KernelSpec& kernel,
                                const Arguments& host);

}  // namespace attune::testing
