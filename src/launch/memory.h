// Device memory and events, for the command, the benchmarks and the tests; the library itself
// allocates nothing but a workspace that its caller did not bring.
#pragma once

#include <attune/status.hpp>
#include <bit>
#include <cstddef>

#include "launch/driver.h"

namespace attune::cuda {

// Memory of one device, freed with the object.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  [[nodiscard]] static Expected<DeviceBuffer> allocate(int device, std::size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  [[nodiscard]] std::byte* data() const { return std::bit_cast<std::byte*>(address_); }
  [[nodiscard]] std::size_t size() const { return bytes_; }

  // Blocking copies of `bytes` at `offset`. Precondition: they lie inside.
  [[nodiscard]] Status write(const void* from, std::size_t bytes, std::size_t offset = 0) const;
  [[nodiscard]] Status read(void* to, std::size_t bytes, std::size_t offset = 0) const;
  [[nodiscard]] Status fill(unsigned char value) const;

 private:
  int device_ = 0;
  DevicePointer address_ = 0;
  std::size_t bytes_ = 0;
};

// Waits for all work of a device.
[[nodiscard]] Status synchronize(int device);

// The time between two points of a stream, by the device's own clock.
class Stopwatch {
 public:
  [[nodiscard]] static Expected<Stopwatch> make(int device);
  Stopwatch(Stopwatch&& other) noexcept;
  Stopwatch& operator=(Stopwatch&&) = delete;
  ~Stopwatch();

  [[nodiscard]] Status start(Stream stream) const;
  [[nodiscard]] Status stop(Stream stream) const;
  [[nodiscard]] Expected<double> seconds() const;  // waits for the end

 private:
  explicit Stopwatch(int device) : device_(device) {}
  int device_;
  Event begin_ = nullptr, end_ = nullptr;
};

}  // namespace attune::cuda
