// Tensors of host memory, copied to a device and back as they lie: for the command, the benchmarks
// and the tests.
#pragma once

#include <attune/arguments.hpp>
#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <attune/tensor.hpp>
#include <cstddef>
#include <deque>

#include "launch/memory.h"

namespace attune::cuda {

class DeviceTensor {
 public:
  // Copies all bytes between the view's first and last element, what lies between elements too.
  // Element [0, 0, ...] comes to lie `misalignment` bytes past a multiple of 256. Guards of 0xFF
  // stand before and behind.
  [[nodiscard]] static Expected<DeviceTensor> copy_of(const TensorView& host, int device,
                                                      std::size_t misalignment = 0);

  [[nodiscard]] const TensorView& view() const { return view_; }

  // Copies all bytes back to where they came from.
  [[nodiscard]] Status fetch() const;
  // Refused when something wrote outside of the tensor.
  [[nodiscard]] Status check_guards() const;

 private:
  DeviceBuffer buffer_;
  TensorView view_;
  std::byte* host_ = nullptr;  // the first byte that was copied
  std::size_t offset_ = 0;     // of that byte in buffer_
  std::size_t bytes_ = 0;
};

// Every tensor of a call.
class DeviceArguments {
 public:
  // Copies what the Problem uses, the outputs' present contents too. The host's memory is written
  // by fetch alone. Precondition: check(problem with device=cpu, host) is ok.
  [[nodiscard]] static Expected<DeviceArguments> copy_of(const Problem& problem,
                                                         const Arguments& host, int device,
                                                         std::size_t misalignment = 0);

  // As on the host, with the tensors on the device.
  [[nodiscard]] const Arguments& arguments() const { return arguments_; }
  [[nodiscard]] Arguments& arguments() { return arguments_; }

  // Waits for the device and copies back: the outputs, or all.
  [[nodiscard]] Status fetch_outputs() const;
  [[nodiscard]] Status fetch_all() const;
  [[nodiscard]] Status check_guards() const;

 private:
  struct Named {
    const char* name;
    bool output;
    DeviceTensor tensor;
  };
  [[nodiscard]] Status fetch(bool all) const;

  int device_ = 0;
  Arguments arguments_;
  std::deque<Named> tensors_;
};

}  // namespace attune::cuda
