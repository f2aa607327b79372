#include "tests/emulator/entries.h"

#include <vector>

namespace attune::emulator {
namespace {

std::vector<Entry>& all() {
  static std::vector<Entry> entries;
  return entries;
}

}  // namespace

bool add_entry(const Entry& entry) {
  all().push_back(entry);
  return true;
}

std::span<const Entry> entries() { return all(); }

const Entry* find_entry(std::string_view id, std::string_view name) {
  for (const Entry& entry : all()) {
    if (entry.id == id && entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace attune::emulator
