// A progress bar on stderr: only on a terminal, and only once the work has taken a second.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace attune::cli {

class Progress {
 public:
  // `total` steps of work; with 1 there is no bar to fill and only the elapsed time is shown.
  Progress(std::string label, std::int64_t total);
  ~Progress();  // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::int64_t steps = 1);  // from any thread

 private:
  void tick();

  std::string label_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  bool finished_ = false;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread ticker_;  // redraws while the work itself is busy; not started off a terminal
};

}  // namespace attune::cli
