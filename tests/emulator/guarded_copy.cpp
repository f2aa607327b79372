#include "tests/emulator/guarded_copy.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "problem/strides.h"

namespace attune::emulator {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::byte kPoison{0xFF};

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

std::size_t bytes_below(const TensorView& view) {
  if (view.elements() == 0) return 0;
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  return static_cast<std::size_t>(-reach_of(view.shape, view.strides, view.rank, size)->first *
                                  size);
}

std::size_t bytes_of(const TensorView& view) {
  if (view.elements() == 0) return 0;
  const auto size = static_cast<std::int64_t>(size_of(view.dtype));
  const auto reach = reach_of(view.shape, view.strides, view.rank, size);
  return static_cast<std::size_t>((reach->last - reach->first + 1) * size);
}

}  // namespace

GuardedMemory::GuardedMemory(std::size_t bytes, std::size_t first, std::size_t misalignment)
    : bytes_(bytes) {
  const std::size_t page = page_bytes();
  const std::size_t usable = (bytes + 2 * kAlignment + page - 1) / page * page;
  mapping_bytes_ = usable + 2 * page;
  void* const mapping =
      mmap(nullptr, mapping_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(mapping);
  begin_ = mapping_ + page;
  end_ = begin_ + usable;
  if (mprotect(begin_, usable, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  std::memset(begin_, static_cast<int>(kPoison), usable);
  // The last place that is as aligned as asked for.
  const auto last = reinterpret_cast<std::uintptr_t>(end_) - bytes;
  const std::size_t over = (last + first - misalignment) % kAlignment;
  data_ = end_ - bytes - over;
}

GuardedMemory::~GuardedMemory() { munmap(mapping_, mapping_bytes_); }

std::string GuardedMemory::damage() const {
  for (const auto& [begin, end] : {std::pair{begin_, data_}, std::pair{data_ + bytes_, end_}}) {
    for (const std::byte* at = begin; at != end; ++at) {
      if (*at != kPoison) {
        return fmt::format("a byte was written at {} of its {} bytes", at - data_, bytes_);
      }
    }
  }
  return {};
}

GuardedCopy::GuardedCopy(const TensorView& host, std::size_t misalignment)
    : host_(host),
      before_(bytes_below(host)),
      bytes_(bytes_of(host)),
      memory_(bytes_, before_, misalignment) {
  if (bytes_ > 0) {
    std::memcpy(memory_.data(), static_cast<const std::byte*>(host.data) - before_, bytes_);
  }
}

TensorView GuardedCopy::view() const {
  TensorView view = host_;
  if (bytes_ > 0) view.data = memory_.data() + before_;
  return view;
}

void GuardedCopy::fetch() const {
  if (bytes_ > 0) {
    std::memcpy(static_cast<std::byte*>(host_.data) - before_, memory_.data(), bytes_);
  }
}

}  // namespace attune::emulator
