#include "tests/gpu/pattern.h"

#include <algorithm>
#include <cmath>

#include "tests/support/random.h"
#include "tests/support/scalar.h"

namespace attune::testing {

Pattern::Pattern(DType dtype, std::int64_t period) : dtype_(dtype), period_(period) {
  const std::size_t size = size_of(dtype);
  const std::size_t own = static_cast<std::size_t>(period) * size;
  // Short ones repeat here already, so that few copies fill a tensor.
  bytes_.resize(own * static_cast<std::size_t>(std::max<std::int64_t>(1, kPrime / period)));
  Random random(7);
  // Normal enough, and quick to draw: a sum of four uniform numbers.
  for (std::size_t n = 0; n < static_cast<std::size_t>(period); ++n) {
    const std::uint64_t bits = random.next();
    double sum = 0;
    for (int part = 0; part < 4; ++part) sum += static_cast<double>(bits >> 16 * part & 0xFFFF);
    store_scalar(&bytes_[n * size], dtype, (sum / 65535.0 - 2) * std::sqrt(3.0));
  }
  for (std::size_t at = own; at < bytes_.size(); ++at) bytes_[at] = bytes_[at - own];
}

double Pattern::operator()(std::int64_t at) const {
  return load_scalar(&bytes_[static_cast<std::size_t>(at % period_) * size_of(dtype_)], dtype_);
}

Status Pattern::fill(const cuda::DeviceBuffer& buffer, std::int64_t start) const {
  std::size_t from = static_cast<std::size_t>(start % period_) * size_of(dtype_);
  for (std::size_t at = 0; at < buffer.size();) {
    const std::size_t bytes = std::min(bytes_.size() - from, buffer.size() - at);
    Status status = buffer.write(bytes_.data() + from, bytes, at);
    if (!status.ok()) return status;
    at += bytes;
    from = 0;
  }
  return {};
}

}  // namespace attune::testing
