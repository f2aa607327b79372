// What kernels are judged on in place of the CPU: a GPU, or what stands in for one. A test program
// chooses it first of all.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spec/kernel_spec.h"

namespace attune::testing {

class DeviceUnderTest {
 public:
  DeviceUnderTest() = default;
  DeviceUnderTest(const DeviceUnderTest&) = delete;
  DeviceUnderTest& operator=(const DeviceUnderTest&) = delete;
  virtual ~DeviceUnderTest() = default;

  // Empty, or why nothing can run there: no driver, no such device, a kernel that broke the context.
  [[nodiscard]] virtual std::string missing() const = 0;
  // Whether some row should serve every Problem.
  [[nodiscard]] virtual bool has_whole_table() const = 0;
  // Rows that run there.
  [[nodiscard]] virtual std::vector<KernelSpec> kernels() const = 0;
  // Precondition of the rest: problem.device is cuda.
  [[nodiscard]] virtual bool serves(const KernelSpec& kernel, const Problem& problem) const = 0;
  // The rows to judge with this Problem; `salt` chooses where not all are taken.
  [[nodiscard]] virtual std::vector<KernelSpec> serving(const Problem& problem,
                                                        std::string_view salt) const = 0;
  // Copies the tensors there, runs, and copies everything back, inputs and gaps too, so that
  // Tensors::damage() sees what happened to them.
  [[nodiscard]] virtual Status run(const Problem& problem, const KernelSpec& kernel,
                                   const Arguments& host) = 0;
};

void judge_on(std::unique_ptr<DeviceUnderTest> device);
// Whether there is one; else kernels are judged on the CPU.
[[nodiscard]] bool on_gpu();
// Precondition: on_gpu().
[[nodiscard]] DeviceUnderTest& device_under_test();
// Its missing().
[[nodiscard]] std::string no_gpu();

// The same problem for it. Some come with q, k, v and o less aligned than to 16 bytes; `salt` decides,
// and so does the layout of the gradients among `arguments`.
[[nodiscard]] Problem for_gpu(Problem problem, std::string_view salt,
                              const Arguments& arguments = {});

}  // namespace attune::testing
