#include "source/device_headers.h"

#include <algorithm>
#include <set>

namespace attune {

namespace {

using Names = std::set<std::string_view>;

// What lies between < and > of `#include <...>`, which starts a line in all device code.
void add_included(std::string_view text, Names& names, std::vector<std::string_view>& fresh) {
  constexpr std::string_view kDirective = "#include <";
  for (std::size_t at = text.find(kDirective); at != text.npos; at = text.find(kDirective, at)) {
    at += kDirective.size();
    const std::string_view name = text.substr(at, text.find('>', at) - at);
    if (names.insert(name).second) fresh.push_back(name);
  }
}

}  // namespace

std::vector<DeviceHeader> headers_of(std::string_view unit) {
  const std::span<const DeviceHeader> all = device_headers();
  Names names;
  std::vector<std::string_view> fresh;
  std::vector<DeviceHeader> headers;
  add_included(unit, names, fresh);
  while (!fresh.empty()) {
    const std::string_view name = fresh.back();
    fresh.pop_back();
    const auto found = std::find_if(all.begin(), all.end(), [&](const DeviceHeader& header) {
      return std::string_view(header.name) == name;
    });
    if (found == all.end()) continue;  // the compiler's own, or a mistake that it will name
    headers.push_back(*found);
    add_included(found->text, names, fresh);
  }
  std::sort(headers.begin(), headers.end(), [](const DeviceHeader& a, const DeviceHeader& b) {
    return std::string_view(a.name) < b.name;
  });
  return headers;
}

}  // namespace attune
