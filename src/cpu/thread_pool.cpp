#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace attune::cpu {

namespace {

// A sleeping thread takes tens of microseconds to wake, as long as a phase of a short call; one that
// looks out for that long itself starts at once.
constexpr std::chrono::microseconds kLookOut{50};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Looks for a while whether it is so; the caller sleeps if not.
template <typename Condition>
void look_out(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + kLookOut;
  do {
    for (int tries = 0; tries < 32; ++tries) {
      if (condition()) return;
      pause();
    }
    std::this_thread::yield();  // to whoever is to do what we wait for, if this core is all it has
  } while (std::chrono::steady_clock::now() < until);
}

class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stopping_ = true;
    announce(0);
    for (std::thread& thread : threads_) thread.join();
  }

  void run(int workers, const std::function<void(int)>& body) {
    const std::lock_guard turn(turn_);
    const int helpers = grow(workers - 1);
    body_ = &body;
    running_ = helpers;
    if (helpers > 0) announce(helpers);
    body(0);
    // Threads that could not be started: their share is done here.
    for (int worker = helpers + 1; worker < workers; ++worker) body(worker);
    if (can_spin()) look_out([this] { return running_ == 0; });
    for (int left = running_; left != 0; left = running_) running_.wait(left);
  }

 private:
  // Returns how many helpers there are, at most `wanted`.
  int grow(int wanted) {
    while (static_cast<int>(threads_.size()) < wanted) {
      const int index = static_cast<int>(threads_.size());
      try {
        threads_.emplace_back([this, index, seen = round_.load()] { serve(index, seen); });
      } catch (const std::system_error&) {
        break;
      }
    }
    spin_ = static_cast<int>(threads_.size()) < usable_cores();
    return std::min(wanted, static_cast<int>(threads_.size()));
  }

  // Threads in excess of cores would only keep the others from their work.
  [[nodiscard]] bool can_spin() const { return spin_.load(std::memory_order_relaxed); }

  void announce(int helpers) {
    round_ = ((round_ >> kHelperBits) + 1) << kHelperBits | static_cast<std::uint64_t>(helpers);
    round_.notify_all();
  }

  void serve(int index, std::uint64_t seen) {
    for (;;) {
      if (can_spin()) look_out([&] { return round_ != seen; });
      round_.wait(seen);
      seen = round_;
      if (stopping_) return;
      // Who is not among the helpers may be rounds behind, and touches nothing else.
      if (index >= static_cast<int>(seen & ((std::uint64_t{1} << kHelperBits) - 1))) continue;
      (*body_)(index + 1);
      if (--running_ == 0) running_.notify_one();
    }
  }

  static constexpr int kHelperBits = 24;
  std::mutex turn_;  // one region at a time
  std::vector<std::thread> threads_;
  const std::function<void(int)>* body_ = nullptr;  // stays while helpers run
  std::atomic<std::uint64_t> round_{0};             // number of the region, and its helpers
  std::atomic<int> running_{0};
  std::atomic<bool> spin_{true}, stopping_{false};
};

}  // namespace

int usable_cores() { return std::max(1u, std::thread::hardware_concurrency()); }

void run_on_pool(int workers, const std::function<void(int)>& body) {
  if (workers <= 1) {
    body(0);
    return;
  }
  static ThreadPool pool;
  pool.run(workers, body);
}

}  // namespace attune::cpu
