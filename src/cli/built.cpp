#include "cli/built.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/format.h"
#include "cubin/json_fields.h"
#include "registry/registry.h"
#include "source/translation_unit.h"

namespace attune::cli {
namespace {

struct Built {
  std::string id;
  Target target;
  CubinFacts facts;
  std::uint64_t cubin_bytes = 0;
  std::string from;
  bool current = false;  // made from this library's sources
};

bool is_current(const Recipe& recipe) {
  const auto spec = spec_from(recipe.id);
  return spec && spec->family != Family::cpu && contents_of(*spec) == recipe.contents;
}

std::vector<Built> find_built() {
  std::vector<Built> found;
  const Registry& registry = process_registry();
  for (const Bundle& bundle : registry.bundles()) {
    for (const BundleEntry& entry : bundle.entries()) {
      found.push_back({entry.recipe.id, entry.recipe.target, entry.facts, entry.cubin_bytes,
                       bundle.name(), is_current(entry.recipe)});
    }
  }
  if (registry.cache() != nullptr) {
    for (const CacheItem& item : registry.cache()->list(false)) {
      if (!item.status.ok()) continue;
      found.push_back({item.meta.recipe.id, item.meta.recipe.target, item.meta.facts,
                       item.meta.cubin_bytes, "disk cache", is_current(item.meta.recipe)});
    }
  }
  return found;
}

}  // namespace

int list_built(bool json) {
  const std::vector<Built> built = find_built();
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Built& kernel : built) {
      list.push_back({{"id", kernel.id},
                      {"target", to_string(kernel.target)},
                      {"facts", facts_json(kernel.facts)},
                      {"cubin_bytes", kernel.cubin_bytes},
                      {"from", kernel.from},
                      {"current", kernel.current}});
    }
    fmt::print("{}\n", list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"id", "for", "registers", "local", "shared", "cubin", "from"}};
  std::size_t old = 0;
  for (const Built& kernel : built) {
    if (!kernel.current) {
      ++old;
      continue;
    }
    const int dynamic = block_shape(*spec_from(kernel.id)).shared_bytes;
    rows.push_back({kernel.id, to_string(kernel.target), std::to_string(kernel.facts.registers),
                    say_bytes(kernel.facts.local_bytes),
                    say_bytes(kernel.facts.shared_bytes + static_cast<std::size_t>(dynamic)),
                    say_bytes(kernel.cubin_bytes), kernel.from});
  }
  if (rows.size() > 1) fmt::print("{}\n", table(rows));
  fmt::print("{} kernels are compiled{}.\n", rows.size() - 1,
             old == 0 ? "" : fmt::format(", and {} of other versions of Attune", old));
  return kOk;
}

}  // namespace attune::cli
