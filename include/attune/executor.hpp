// Executor: who runs the parallel parts of a Plan.
#pragma once

#include <functional>

namespace attune {

// Runs body(0) ... body(workers - 1), all of them, and returns when all have returned. The calls
// may be concurrent or one after another. Give your own to keep Attune off its own thread pool.
using Executor = std::function<void(int workers, const std::function<void(int worker)>& body)>;

}  // namespace attune
