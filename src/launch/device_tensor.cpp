#include "launch/device_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "problem/shapes.h"
#include "problem/strides.h"

namespace attune::cuda {

namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kGuard = 512;  // bytes at least
constexpr unsigned char kGuardByte = 0xFF;

}  // namespace

Expected<DeviceTensor> DeviceTensor::copy_of(const TensorView& host, int device,
                                             std::size_t misalignment) {
  DeviceTensor tensor;
  tensor.view_ = host;
  if (host.elements() == 0) return tensor;
  const auto size = static_cast<std::int64_t>(size_of(host.dtype));
  const auto reach = reach_of(host.shape, host.strides, host.rank, size);
  if (!reach) return Status{Code::invalid_argument, "a tensor reaches past 2^63 bytes"};
  const auto before = static_cast<std::size_t>(-reach->first * size);
  tensor.bytes_ = static_cast<std::size_t>((reach->last - reach->first + 1) * size);
  tensor.host_ = static_cast<std::byte*>(host.data) - before;
  // The first element's place is a multiple of the alignment and some bytes.
  const std::size_t first = (kGuard + before + kAlignment - 1) / kAlignment * kAlignment;
  tensor.offset_ = first + misalignment - before;
  Expected<DeviceBuffer> buffer =
      DeviceBuffer::allocate(device, tensor.offset_ + tensor.bytes_ + kGuard);
  if (!buffer.ok()) return buffer.status();
  tensor.buffer_ = std::move(buffer).value();
  if (Status status = tensor.buffer_.fill(kGuardByte); !status.ok()) return status;
  tensor.view_.data = tensor.buffer_.data() + first + misalignment;
  Status status = tensor.buffer_.write(tensor.host_, tensor.bytes_, tensor.offset_);
  if (!status.ok()) return status;
  return tensor;
}

Status DeviceTensor::fetch() const { return buffer_.read(host_, bytes_, offset_); }

Status DeviceTensor::check_guards() const {
  if (bytes_ == 0) return {};
  const std::size_t end = offset_ + bytes_;
  for (const auto& [begin, size] : {std::pair{std::size_t{0}, offset_}, {end, kGuard}}) {
    std::vector<unsigned char> guard(size);
    if (Status status = buffer_.read(guard.data(), size, begin); !status.ok()) return status;
    const auto bad = std::find_if(guard.begin(), guard.end(),
                                  [](unsigned char byte) { return byte != kGuardByte; });
    if (bad == guard.end()) continue;
    const auto at = static_cast<std::int64_t>(begin) + (bad - guard.begin());
    return {Code::internal, fmt::format("a byte was written {} the tensor, at {} of its {} bytes",
                                        begin == 0 ? "before" : "behind",
                                        at - static_cast<std::int64_t>(offset_), bytes_)};
  }
  return {};
}

Expected<DeviceArguments> DeviceArguments::copy_of(const Problem& problem, const Arguments& host,
                                                   int device, std::size_t misalignment) {
  DeviceArguments copy;
  copy.device_ = device;
  copy.arguments_ = host;
  for (const TensorSpec& spec : tensors_of(problem)) {
    if (spec.role == Role::unused) continue;
    // The others are aligned to their elements alone anyway.
    const std::size_t shift = spec.aligned ? misalignment : 0;
    Expected<DeviceTensor> tensor = DeviceTensor::copy_of(host.*spec.view, device, shift);
    if (!tensor.ok()) {
      return Status{tensor.status().code(),
                    fmt::format("{}: {}", spec.name, tensor.status().message())};
    }
    copy.arguments_.*spec.view = tensor->view();
    copy.tensors_.push_back({spec.name, spec.role == Role::output, std::move(tensor).value()});
  }
  return copy;
}

Status DeviceArguments::fetch(bool all) const {
  if (Status status = synchronize(device_); !status.ok()) return status;
  for (const Named& named : tensors_) {
    if (!all && !named.output) continue;
    if (Status status = named.tensor.fetch(); !status.ok()) {
      return {status.code(), fmt::format("{}: {}", named.name, status.message())};
    }
  }
  return {};
}

Status DeviceArguments::fetch_outputs() const { return fetch(false); }
Status DeviceArguments::fetch_all() const { return fetch(true); }

Status DeviceArguments::check_guards() const {
  for (const Named& named : tensors_) {
    if (Status status = named.tensor.check_guards(); !status.ok()) {
      return {status.code(), fmt::format("{}: {}", named.name, status.message())};
    }
  }
  return {};
}

}  // namespace attune::cuda
