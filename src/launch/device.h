// Devices, and the context that a call runs in.
#pragma once

#include <attune/status.hpp>

#include "host/device_facts.h"
#include "launch/driver.h"

namespace attune::cuda {

[[nodiscard]] Expected<int> device_count();

// The device of the calling thread's current context; 0 when it has none, as in the CUDA runtime.
[[nodiscard]] Expected<int> current_device();

// Read from the driver once a device. Refuses an index that no device has.
[[nodiscard]] Expected<DeviceFacts> facts_of_device(int index);

// Whether the device reads host memory that no driver call registered, at the memory's own speed.
[[nodiscard]] bool reads_host_memory(int index);

// Makes a context of `device` current while it lives: the one that is, when it is of that device,
// so that streams and memory of a framework's context work; else the stream's, else the device's
// primary one, which the CUDA runtime uses too. Restores what was current.
class ContextScope {
 public:
  [[nodiscard]] static Expected<ContextScope> enter(const Driver& driver, int device,
                                                    Stream stream);
  ContextScope(ContextScope&& other) noexcept;
  ContextScope& operator=(ContextScope&&) = delete;
  ~ContextScope();

  // Tells contexts apart, also those that were at one address after each other.
  [[nodiscard]] unsigned long long id() const { return id_; }

 private:
  ContextScope(const Driver& driver, Context context, bool pushed);
  const Driver* driver_;
  bool pushed_;
  unsigned long long id_ = 0;
};

}  // namespace attune::cuda
