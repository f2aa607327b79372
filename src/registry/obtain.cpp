#include "registry/obtain.h"

#include <utility>

#include "cubin/recipe.h"
#include "source/translation_unit.h"

namespace attune {

Expected<Cubin> compile_spec(const KernelSpec& spec, const Target& target,
                             const Toolchain& toolchain) {
  return compile(source_for(spec), id_of(spec), target, toolchain);
}

Expected<Obtained> obtain(const KernelSpec& spec, const Target& target, const Toolchain& toolchain,
                          DiskCache* cache, const CompileFunction& compile) {
  if (cache == nullptr) {
    auto cubin = compile(spec, target, toolchain);
    if (!cubin.ok()) return cubin.status();
    return Obtained{*std::move(cubin), true};
  }
  const Recipe recipe = recipe_for(spec, target, toolchain);
  if (auto cubin = cache->find(recipe)) return Obtained{*std::move(cubin), false};
  const CacheLock lock = cache->lock(recipe);
  // Another process may have compiled it while this one waited.
  if (lock.held()) {
    if (auto cubin = cache->find(recipe)) return Obtained{*std::move(cubin), false};
  }
  auto cubin = compile(spec, target, toolchain);
  if (!cubin.ok()) return cubin.status();
  cache->store(recipe, *cubin);
  return Obtained{*std::move(cubin), true};
}

std::vector<Expected<Obtained>> obtain_for(const KernelSpec& spec,
                                           const std::vector<Target>& targets,
                                           const Toolchain& toolchain, DiskCache* cache) {
  std::vector<Expected<Obtained>> all(targets.size(), Expected<Obtained>(Status()));
  std::vector<Target> missing;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (cache != nullptr) {
      if (auto cubin = cache->find(recipe_for(spec, targets[i], toolchain))) {
        all[i] = Obtained{*std::move(cubin), false};
        continue;
      }
    }
    if (targets[i].variant != 0) {
      all[i] = obtain(spec, targets[i], toolchain, cache, compile_spec);
      continue;
    }
    missing.push_back(targets[i]);
    places.push_back(i);
  }
  auto cubins = compile_for(source_for(spec), id_of(spec), missing, toolchain);
  for (std::size_t i = 0; i < cubins.size(); ++i) {
    if (!cubins[i].ok()) {
      all[places[i]] = cubins[i].status();
      continue;
    }
    if (cache != nullptr) {
      const Recipe recipe = recipe_for(spec, missing[i], toolchain);
      const CacheLock lock = cache->lock(recipe);
      cache->store(recipe, *cubins[i]);
    }
    all[places[i]] = Obtained{*std::move(cubins[i]), true};
  }
  return all;
}

}  // namespace attune
