#include "cpu/thread_pool.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace attune::cpu {

namespace {

class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(int workers, const std::function<void(int)>& body) {
    const std::lock_guard turn(turn_);
    const int helpers = grow(workers - 1);
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      helpers_ = helpers;
      running_ = helpers;
      ++round_;
    }
    if (helpers > 0) wake_.notify_all();
    body(0);
    // Threads that could not be started: their share is done here.
    for (int worker = helpers + 1; worker < workers; ++worker) body(worker);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    body_ = nullptr;
  }

 private:
  // Returns how many helpers there are, at most `wanted`.
  int grow(int wanted) {
    while (static_cast<int>(threads_.size()) < wanted) {
      const int index = static_cast<int>(threads_.size());
      try {
        threads_.emplace_back([this, index] { serve(index); });
      } catch (const std::system_error&) {
        break;
      }
    }
    return std::min(wanted, static_cast<int>(threads_.size()));
  }

  void serve(int index) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || (round_ != seen && body_ != nullptr); });
      if (stopping_) return;
      seen = round_;
      if (index >= helpers_) continue;
      const std::function<void(int)>& body = *body_;
      lock.unlock();
      body(index + 1);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_;   // one region at a time
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* body_ = nullptr;
  int helpers_ = 0, running_ = 0;
  std::uint64_t round_ = 0;
  bool stopping_ = false;
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
