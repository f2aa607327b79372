#include "wrap/runtime_text.h"

#include <algorithm>
#include <set>

namespace attune::wrap {

namespace {

class Collector {
 public:
  void leave_out(std::string_view path) { done_.insert(std::string(path)); }

  void add(std::string_view path) {
    if (!done_.insert(std::string(path)).second) return;
    std::string own;
    std::string_view rest = runtime_header(path);
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      line(rest.substr(0, end), own);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    text_ += own;
  }

  RuntimeText take() {
    RuntimeText result;
    result.includes.assign(includes_.begin(), includes_.end());
    result.text = std::move(text_);
    return result;
  }

 private:
  void line(std::string_view line, std::string& own) {
    constexpr std::string_view kOurs = "#include \"", kOther = "#include <";
    if (line == "#pragma once") return;
    if (line.starts_with(kOurs)) {
      line.remove_prefix(kOurs.size());
      add(line.substr(0, line.find('"')));
      return;
    }
    if (line.starts_with(kOther)) {
      const std::string_view name = line.substr(kOther.size() - 1);
      const std::string inner(name.substr(1, name.find('>') - 1));
      const auto headers = runtime_headers();
      if (std::any_of(headers.begin(), headers.end(),
                      [&](const RuntimeHeader& h) { return h.path == inner; })) {
        add(inner);
      } else {
        includes_.insert("<" + inner + ">");
      }
      return;
    }
    // No two empty lines after each other.
    if (line.empty() && (own.empty() || own.ends_with("\n\n"))) return;
    own += line;
    own += '\n';
  }

  std::set<std::string> done_;
  std::set<std::string> includes_;
  std::string text_;
};

}  // namespace

std::string_view runtime_header(std::string_view path) {
  for (const RuntimeHeader& header : runtime_headers()) {
    if (header.path == path) return header.text;
  }
  return {};
}

RuntimeText runtime_text(std::span<const std::string_view> paths,
                         std::span<const std::string_view> keep_out) {
  Collector collector;
  for (const std::string_view path : keep_out) collector.leave_out(path);
  for (const std::string_view path : paths) collector.add(path);
  return collector.take();
}

}  // namespace attune::wrap
