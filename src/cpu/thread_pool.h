// The library's own threads: one pool a process, grown on demand; asleep when 50 microseconds have
// brought no work.
//
// Why not OpenMP or TBB: a caller may hand in its own Executor instead, ThreadSanitizer must see
// every hand-over, and the installed library should need nothing beyond the C++ runtime.
#pragma once

#include <functional>

namespace attune::cpu {

// Cores this process may use, at least 1.
[[nodiscard]] int usable_cores();

// Runs body(0) ... body(workers - 1) concurrently on the pool, worker 0 on the calling thread, and
// returns when all have returned. Calls from several threads take turns. body must not throw.
void run_on_pool(int workers, const std::function<void(int worker)>& body);

}  // namespace attune::cpu
