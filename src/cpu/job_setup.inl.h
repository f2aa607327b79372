// for_each_task, which takes any callable.
#pragma once

#include <algorithm>
#include <atomic>

namespace attune::cpu {

template <typename Call>
void for_each_task(const Executor& executor, int threads, std::int64_t count, const Call& call) {
  if (count <= 0) return;
  // The counter is shared by workers only; each worker's scratch memory is its own.
  std::atomic<std::int64_t> next{0};
  const int workers = static_cast<int>(std::min<std::int64_t>(threads, count));
  const auto body = [&](int worker) {
    for (std::int64_t task = next++; task < count; task = next++) call(task, worker);
  };
  if (workers == 1) {
    body(0);
  } else {
    executor(workers, body);
  }
}

}  // namespace attune::cpu
