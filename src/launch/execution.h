// A planned pass, forward or backward, on one GPU: its kernels are compiled, loaded and launched here.
#pragma once

#include <atomic>
#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "host/device_facts.h"
#include "launch/kernel.h"
#include "plan/gpu.h"
#include "registry/registry.h"
#include "spec/kernel_spec.h"

namespace attune::cuda {

class Execution {
 public:
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;
  ~Execution() = default;

  // Compiles and loads nothing yet.
  [[nodiscard]] static Expected<std::unique_ptr<Execution>> make(const Problem& problem,
                                                                 const KernelSpec& spec, int device,
                                                                 const DeviceFacts& facts);

  [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }
  [[nodiscard]] int device() const { return device_; }
  // One fact a line, for explain(); registers once the kernels are compiled.
  [[nodiscard]] std::string describe() const;

  // Gets the kernels and loads them into the current context, or the device's primary one.
  [[nodiscard]] Status prepare() const;

  // Queues the work on the stream of the arguments. `workspace` is device memory, 256-byte aligned;
  // null when it is to be had from the stream's memory pool. Allocates nothing on the host once the
  // kernels are loaded. Precondition: check_arguments(problem, arguments) is ok.
  [[nodiscard]] Status run(const Arguments& arguments, void* workspace) const;

 private:
  struct Resident {
    unsigned long long context;
    std::span<const Function> functions;  // as entries_of(spec)
  };

  Execution(const Problem& problem, const KernelSpec& spec, int device, GpuPlan plan, int arch);
  [[nodiscard]] Expected<std::span<const Function>> functions_in(const Driver& driver,
                                                                 unsigned long long context) const;
  [[nodiscard]] Status check_layout(const Arguments& arguments) const;
  [[nodiscard]] Status check_memory(const Driver& driver, const Arguments& arguments) const;
  [[nodiscard]] Status launch_with(const Driver& driver, std::span<const Function> functions,
                                   const Arguments& arguments, void* workspace) const;

  Problem problem_;
  KernelSpec spec_;
  std::string id_;
  int device_;
  int arch_;
  bool any_memory_;  // the device reads whatever the host does
  GpuPlan plan_;
  std::span<const KernelLaunch> launches_;  // of plan_
  std::size_t workspace_bytes_;

  mutable std::atomic<const Resident*> latest_{nullptr};
  mutable std::atomic<bool> memory_checked_{false};
  mutable std::mutex mutex_;  // of the two below
  mutable std::shared_ptr<const Image> image_;
  mutable std::deque<Resident> residents_;
};

}  // namespace attune::cuda
