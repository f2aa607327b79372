// The two ways to hand tasks to workers, for any callable.
#pragma once

#include <algorithm>
#include <array>
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

template <typename Call>
void for_each_chunked(const Executor& executor, int threads, std::int64_t count, const Call& call) {
  if (count <= 0) return;
  constexpr int kMostChunks = 64;
  struct alignas(64) Chunk {
    std::atomic<std::int64_t> next;
    std::int64_t end;
  };
  const int workers = static_cast<int>(std::min<std::int64_t>(threads, count));
  const int chunks = std::min(workers, kMostChunks);
  std::array<Chunk, kMostChunks> ranges;
  for (int c = 0; c < chunks; ++c) {
    ranges[c].next = count * c / chunks;
    ranges[c].end = count * (c + 1) / chunks;
  }
  const auto body = [&](int worker) {
    for (int turn = 0; turn < chunks; ++turn) {
      Chunk& chunk = ranges[(worker + turn) % chunks];
      for (std::int64_t task = chunk.next++; task < chunk.end; task = chunk.next++)
        call(task, worker);
    }
  };
  if (workers == 1) {
    body(0);
  } else {
    executor(workers, body);
  }
}

}  // namespace attune::cpu
