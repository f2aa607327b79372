// The C library's own jump may refuse to reach another stack.
#undef _FORTIFY_SOURCE
#include "tests/emulator/fiber.h"

#include <setjmp.h>
#include <ucontext.h>

#include <utility>

namespace attune::emulator {

namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;

}  // namespace

// ucontext makes the stack; from then on jumps take turns, since its own switch asks the kernel for the
// signal mask each time.
struct Fiber::State {
  std::function<void()> body;
  std::unique_ptr<char[]> stack;
  ucontext_t first{};
  jmp_buf here, back;
  bool started = false;
};

namespace {

Fiber* resumed = nullptr;
const std::function<void()>* first_body = nullptr;

void begin() { (*first_body)(); }

}  // namespace

Fiber::Fiber(std::function<void()> body) : state_(std::make_unique<State>()) {
  state_->body = std::move(body);
  state_->stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  getcontext(&state_->first);
  state_->first.uc_stack.ss_sp = state_->stack.get();
  state_->first.uc_stack.ss_size = kStackBytes;
  state_->first.uc_link = nullptr;
  makecontext(&state_->first, begin, 0);
}

Fiber::~Fiber() = default;

void Fiber::resume() {
  resumed = this;
  if (_setjmp(state_->back) != 0) return;
  if (state_->started) _longjmp(state_->here, 1);
  state_->started = true;
  first_body = &state_->body;
  setcontext(&state_->first);
}

void Fiber::pause() {
  State& mine = *resumed->state_;
  if (_setjmp(mine.here) == 0) _longjmp(mine.back, 1);
}

}  // namespace attune::emulator
