#include "launch/memory.h"

#include <fmt/format.h>

#include <utility>

#include "launch/device.h"

namespace attune::cuda {

namespace {

// Runs call(driver) in a context of `device`.
template <typename Call>
Status in_context(int device, const char* doing, const Call& call) {
  const auto& opened = driver();
  if (!opened.ok()) return opened.status();
  const Expected<ContextScope> scope = ContextScope::enter(**opened, device, nullptr);
  if (!scope.ok()) return scope.status();
  return status_of(**opened, call(**opened), doing);
}

}  // namespace

Expected<DeviceBuffer> DeviceBuffer::allocate(int device, std::size_t bytes) {
  DeviceBuffer buffer;
  buffer.device_ = device;
  buffer.bytes_ = bytes;
  if (bytes == 0) return buffer;
  const std::string doing = fmt::format("allocating {} bytes on GPU {}", bytes, device);
  Status status = in_context(device, doing.c_str(), [&](const Driver& cuda) {
    return cuda.allocate(&buffer.address_, bytes);
  });
  if (!status.ok()) return status;
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_),
      address_(std::exchange(other.address_, 0)),
      bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (address_ == 0) return;
  (void)in_context(device_, "freeing memory",
                   [&](const Driver& cuda) { return cuda.release(address_); });
}

Status DeviceBuffer::write(const void* from, std::size_t bytes, std::size_t offset) const {
  if (bytes == 0) return {};
  return in_context(device_, "copying to the GPU", [&](const Driver& cuda) {
    return cuda.to_device(address_ + offset, from, bytes);
  });
}

Status DeviceBuffer::read(void* to, std::size_t bytes, std::size_t offset) const {
  if (bytes == 0) return {};
  return in_context(device_, "copying from the GPU",
                    [&](const Driver& cuda) { return cuda.to_host(to, address_ + offset, bytes); });
}

Status DeviceBuffer::fill(unsigned char value) const {
  if (bytes_ == 0) return {};
  return in_context(device_, "filling device memory",
                    [&](const Driver& cuda) { return cuda.set_bytes(address_, value, bytes_); });
}

Status synchronize(int device) {
  return in_context(device, "waiting for the GPU",
                    [](const Driver& cuda) { return cuda.context_synchronize(); });
}

Expected<Stopwatch> Stopwatch::make(int device) {
  Stopwatch watch(device);
  for (Event* event : {&watch.begin_, &watch.end_}) {
    Status status = in_context(device, "cuEventCreate", [&](const Driver& cuda) {
      return cuda.event_create(event, kEventDefault);
    });
    if (!status.ok()) return status;
  }
  return watch;
}

Stopwatch::Stopwatch(Stopwatch&& other) noexcept
    : device_(other.device_),
      begin_(std::exchange(other.begin_, nullptr)),
      end_(std::exchange(other.end_, nullptr)) {}

Stopwatch::~Stopwatch() {
  for (Event event : {begin_, end_}) {
    if (event == nullptr) continue;
    (void)in_context(device_, "cuEventDestroy",
                     [&](const Driver& cuda) { return cuda.event_destroy(event); });
  }
}

Status Stopwatch::start(Stream stream) const {
  return in_context(device_, "cuEventRecord",
                    [&](const Driver& cuda) { return cuda.event_record(begin_, stream); });
}

Status Stopwatch::stop(Stream stream) const {
  return in_context(device_, "cuEventRecord",
                    [&](const Driver& cuda) { return cuda.event_record(end_, stream); });
}

Expected<double> Stopwatch::seconds() const {
  float milliseconds = 0;
  Status status = in_context(device_, "waiting for the GPU", [&](const Driver& cuda) {
    const Result waited = cuda.event_synchronize(end_);
    return waited != kSuccess ? waited : cuda.event_elapsed(&milliseconds, begin_, end_);
  });
  if (!status.ok()) return status;
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace attune::cuda
