// A fiber: a function on a stack of its own that runs until it pauses.
#pragma once

#include <functional>
#include <memory>

namespace attune::emulator {

class Fiber {
 public:
  // `body` never returns. A fiber that is destroyed amid its body leaves what that holds.
  explicit Fiber(std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the body from where it paused to where it pauses next.
  void resume();
  // Called in a body: goes back to where it was resumed.
  static void pause();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attune::emulator
