#include "cubin/recipe.h"

#include "cubin/content_hash.h"
#include "source/device_headers.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

const std::string& device_headers_hash() {
  static const std::string hash = [] {
    ContentHash headers;
    for (const DeviceHeader& header : device_headers()) headers.add(header.name).add(header.text);
    return headers.text();
  }();
  return hash;
}

}  // namespace

std::string Recipe::key() const {
  return ContentHash().add(id).add(contents).add(to_string(target)).add(compiler).text();
}

std::string contents_of(const KernelSpec& spec) {
  return ContentHash().add(device_headers_hash()).add(source_for(spec)).text();
}

Recipe recipe_for(const KernelSpec& spec, const Target& target, const Toolchain& toolchain) {
  return {id_of(spec), contents_of(spec), target,
          toolchain.version + " " + compile_flags(toolchain.compiler)};
}

}  // namespace attune
