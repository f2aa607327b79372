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

}  // namespace attune
