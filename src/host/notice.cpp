#include "host/notice.h"

#include <cstdio>
#include <mutex>
#include <set>
#include <utility>

namespace attune {

namespace {

struct Notices {
  std::mutex mutex;
  std::set<std::string> said;
  std::function<void(const std::string&)> sink;
};

// Never destroyed: threads may still have something to say while the process ends.
Notices& notices() {
  static Notices& all = *new Notices;
  return all;
}

constexpr std::size_t kMostTexts = 1000;  // a process that repeats itself in ever new words

}  // namespace

void notice(const std::string& text) {
  Notices& all = notices();
  const std::lock_guard lock(all.mutex);
  if (all.sink) return all.sink(text);
  if (all.said.size() >= kMostTexts || !all.said.insert(text).second) return;
  std::fprintf(stderr, "attune: %s\n", text.c_str());
}

void set_notice_sink(std::function<void(const std::string&)> sink) {
  Notices& all = notices();
  const std::lock_guard lock(all.mutex);
  all.sink = std::move(sink);
}

}  // namespace attune
