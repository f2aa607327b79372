// A function of a user's, called by a program: here it only remembers its arguments.
#include <cstdint>
#include <cstdio>

extern "C" {

int finish_result = 0;
thread_local char finish_said[128] = "";

int finish(void* stream, void* z, int64_t count, double ratio) {
  std::snprintf(finish_said, sizeof(finish_said), "%d %d %lld %g", stream != nullptr, z != nullptr,
                static_cast<long long>(count), ratio);
  return finish_result;
}
}
