// Runs kernels on a Problem and lets the oracle judge what they wrote.
#pragma once

#include <attune/oracle.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spec/kernel_spec.h"
#include "tests/support/tensors.h"

namespace attune::testing {

// The rows of the kernel table that this machine, and ATTUNE_CPU_ISA, can run; with a device under
// test, those that run there. Not all of them serve every Problem there.
[[nodiscard]] std::vector<KernelSpec> available_kernels(Kind kind, DType dtype);
// All of them.
[[nodiscard]] std::vector<KernelSpec> available_kernels();

struct Reference {
  oracle::Result exact, plain;
};

// The oracle's results; for backward they become the o and LSE of the inputs as well.
[[nodiscard]] Expected<Reference> make_reference(const Problem& problem, Tensors& tensors);

// Why nothing of a kind is judged here, for GTEST_SKIP(); empty when something is.
[[nodiscard]] std::string skip_reason(Kind kind, DType dtype);

// The same of one Problem: a device with a part of the table need not have a row for it. Such a Problem
// passes unjudged. Where its tensors lie may decide.
[[nodiscard]] std::string skip_reason(const Problem& problem, const Arguments& arguments = {});

// Whether this row of available_kernels() computes the Problem.
[[nodiscard]] bool serves(const KernelSpec& kernel, const Problem& problem,
                          const Arguments& arguments = {});

// Runs one kernel, on the CPU or on the device under test. Precondition: it serves the Problem.
[[nodiscard]] Status run_kernel(const Problem& problem, const KernelSpec& kernel,
                                const Arguments& arguments, int threads);

// Runs one kernel on poisoned outputs and compares everything that it wrote. Empty when all is
// well; else what is wrong, with the tensor, the ratios and the worst element.
[[nodiscard]] std::string run_and_compare(const Problem& problem, Tensors& tensors,
                                          const Reference& reference, const KernelSpec& kernel,
                                          int threads);

// The same on every available kernel, each failure headed by the kernel's id. `title` is what to
// call this run if it crashes.
[[nodiscard]] std::string judge_all(const Problem& problem, Tensors& tensors,
                                    const Reference& reference, int threads,
                                    std::string_view title);

// check(), the oracle and all kernels. Empty, or everything that is wrong below the Problem's text.
[[nodiscard]] std::string judge_problem(const Problem& problem, Tensors& tensors, int threads = 2);
[[nodiscard]] std::string judge_problem(const Problem& problem,
                                        Distribution distribution = Distribution::normal,
                                        std::uint64_t seed = 1, int threads = 2);

// Compares one tensor; empty when it passes.
[[nodiscard]] std::string compare_tensor(std::string_view name, const TensorView& got,
                                         std::vector<double> oracle::Result::*tensor,
                                         const Reference& reference);

}  // namespace attune::testing
