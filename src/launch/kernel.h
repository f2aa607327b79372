// Kernels in the memory of a context, and their launch.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <span>
#include <string>

#include "launch/driver.h"

namespace attune::cuda {

struct KernelEntry {
  const char* name = "";
  int shared_bytes = 0;  // dynamic, of every launch
};

// What it takes to load the kernels of a cubin into a context.
struct KernelImage {
  std::string id;  // with the cubin's architecture: what tells loaded cubins apart
  std::span<const std::byte> cubin;
  std::span<const KernelEntry> entries;
};

// The kernels in the current context, whose number is `context`, in the order of the entries: loaded on
// the first call, whatever threads race, and never unloaded. Allowed while a stream is being captured.
[[nodiscard]] Expected<std::span<const Function>> load_kernels(const Driver& driver,
                                                               unsigned long long context,
                                                               const KernelImage& image);

// Registers a thread, as the driver says; 0 when it does not.
[[nodiscard]] int registers_of(const Driver& driver, Function function);

struct Launch {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;
  unsigned threads = 1;
  unsigned shared_bytes = 0;
  unsigned cluster = 0;       // blocks a cluster, along x; 0: none, not even of one
  bool programmatic = false;  // may start before its predecessor in the stream has ended
  Stream stream = nullptr;
};

// `parameters` is the one struct that the kernel takes; the driver copies it.
[[nodiscard]] Status launch(const Driver& driver, Function function, const Launch& how,
                            const void* parameters, const std::string& id);

}  // namespace attune::cuda
