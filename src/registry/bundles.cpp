#include "registry/bundles.h"

#include <dlfcn.h>

#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "host/environment.h"
#include "host/notice.h"

#ifdef ATTUNE_EMBEDDED_BUNDLE
// The assembler reads the file into the library's read-only data.
__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    ".globl attune_embedded_bundle\n"
    ".hidden attune_embedded_bundle\n"
    "attune_embedded_bundle:\n"
    ".incbin \"" ATTUNE_EMBEDDED_BUNDLE
    "\"\n"
    ".globl attune_embedded_bundle_end\n"
    ".hidden attune_embedded_bundle_end\n"
    "attune_embedded_bundle_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" {
__attribute__((visibility("hidden"))) extern const std::byte attune_embedded_bundle[];
__attribute__((visibility("hidden"))) extern const std::byte attune_embedded_bundle_end[];
}
#endif

namespace attune {

namespace {

constexpr const char* kFileName = "kernels.attune";

std::filesystem::path beside_the_library() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&default_bundles), &self) == 0 || !self.dli_fname) {
    return {};
  }
  return std::filesystem::path(self.dli_fname).parent_path() / kFileName;
}

void add(Expected<Bundle> bundle, std::vector<Bundle>& bundles) {
  if (bundle.ok()) {
    bundles.push_back(*std::move(bundle));
  } else {
    notice("a bundle of kernels is not used: " + bundle.status().message());
  }
}

}  // namespace

std::vector<Bundle> default_bundles() {
  std::vector<Bundle> bundles;
  if (const auto path = environment("ATTUNE_BUNDLE")) add(Bundle::open(*path), bundles);
  const std::filesystem::path beside = beside_the_library();
  std::error_code error;
  if (!beside.empty() && std::filesystem::exists(beside, error)) {
    add(Bundle::open(beside), bundles);
  }
#ifdef ATTUNE_EMBEDDED_BUNDLE
  const std::span embedded(attune_embedded_bundle, attune_embedded_bundle_end);
  add(Bundle::read(memory_source(embedded), "the embedded bundle"), bundles);
#endif
  return bundles;
}

}  // namespace attune
