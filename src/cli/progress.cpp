#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/format.h"

namespace attune::cli {
namespace {

constexpr int kBarWidth = 32;
constexpr auto kPatience = std::chrono::seconds(1);
constexpr auto kRedraw = std::chrono::milliseconds(200);

}  // namespace

Progress::Progress(std::string label, std::int64_t total)
    : label_(std::move(label)), total_(total), start_(std::chrono::steady_clock::now()) {
  if (isatty(STDERR_FILENO) == 1) ticker_ = std::thread([this] { tick(); });
}

Progress::~Progress() {
  if (!ticker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  changed_.notify_one();
  ticker_.join();
  if (drawn_) {
    std::fputs("\r\x1b[K", stderr);
    std::fflush(stderr);
  }
}

void Progress::advance(std::int64_t steps) {
  const std::lock_guard lock(mutex_);
  done_ = std::min(total_, done_ + steps);
}

void Progress::tick() {
  std::unique_lock lock(mutex_);
  auto wake = start_ + kPatience;
  while (!changed_.wait_until(lock, wake, [this] { return finished_; })) {
    const auto now = std::chrono::steady_clock::now();
    const std::string elapsed = say_seconds(static_cast<double>(
        std::chrono::duration_cast<std::chrono::seconds>(now - start_).count()));
    if (total_ > 1) {
      const int filled =
          static_cast<int>(kBarWidth * static_cast<double>(done_) / static_cast<double>(total_));
      fmt::print(stderr, "\r\x1b[K{} [{:=<{}}{:<{}}] {}/{}, {}", label_, "", filled, "",
                 kBarWidth - filled, done_, total_, elapsed);
    } else {
      fmt::print(stderr, "\r\x1b[K{} ... {}", label_, elapsed);
    }
    std::fflush(stderr);
    drawn_ = true;
    wake = now + kRedraw;
  }
}

}  // namespace attune::cli
