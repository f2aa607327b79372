#include "cubin/recipe.h"

#include "cubin/content_hash.h"
#include "source/device_headers.h"
#include "source/translation_unit.h"

namespace attune {

std::string Recipe::key() const {
  return ContentHash().add(id).add(contents).add(to_string(target)).add(compiler).text();
}

std::string contents_of(const KernelSpec& spec) {
  const std::string unit = source_for(spec);
  ContentHash contents;
  for (const DeviceHeader& header : headers_of(unit)) contents.add(header.name).add(header.text);
  return contents.add(unit).text();
}

Target target_of(const KernelSpec& spec, const Target& target) {
  return {target.arch, spec.family == Family::hopper ? 'a' : target.variant};
}

Recipe recipe_for(const KernelSpec& spec, const Target& target, const Toolchain& toolchain) {
  return {id_of(spec), contents_of(spec), target_of(spec, target),
          toolchain.version + " " + compile_flags(toolchain.compiler)};
}

}  // namespace attune
