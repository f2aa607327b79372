#include "tests/stand_in/state.h"

// NOLINTBEGIN: as in its header.
namespace attune::testing {

State& state() {
  static State& instance = *new State;
  return instance;
}
std::atomic<bool> quiet_mode{false};
thread_local std::vector<Context*> stack;
thread_local int capture_mode = 0;

Context* current() { return stack.empty() ? nullptr : stack.back(); }

Result enter(const char* name) {
  if (quiet_mode.load(std::memory_order_relaxed)) return 0;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.calls.push_back(name);
  ++s.counts[name];
  if (static_cast<int>(s.calls.size()) - 1 == s.fail_at) return s.fail_with;
  const auto order = s.orders.find(name);
  if (order == s.orders.end()) return 0;
  if (order->second.skip-- > 0) return 0;
  const Result result = order->second.result;
  s.orders.erase(order);
  return result;
}

Result synchronising() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (capture_mode == cuda::kCaptureRelaxed) return 0;
  bool any = false;
  for (Stream* stream : s.streams) {
    if (!stream->capturing) continue;
    stream->valid = false;
    any = true;
  }
  return any ? kCaptureUnsupported : 0;
}

}  // namespace attune::testing
// NOLINTEND
