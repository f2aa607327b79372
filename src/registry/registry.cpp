#include "registry/registry.h"

#include <fmt/format.h>

#include <chrono>

#include "cubin/recipe.h"
#include "host/environment.h"
#include "host/notice.h"
#include "io/no_throw.h"
#include "registry/bundles.h"

namespace attune {

// One kernel for one device. Its own mutex makes those who ask for it wait for the first, and nobody
// else.
struct Registry::Slot {
  std::mutex mutex;
  std::shared_ptr<const Image> image;
};

namespace {

bool jit_allowed() {
  const auto value = environment("ATTUNE_JIT");
  if (!value || *value == "on" || *value == "1") return true;
  if (*value == "off" || *value == "0") return false;
  notice(fmt::format("ATTUNE_JIT = \"{}\" is neither on nor off; it counts as on", *value));
  return true;
}

Image make_image(std::string id, const Target& target, Cubin cubin, Origin origin) {
  return {std::move(id), target, std::move(cubin.bytes), cubin.facts, origin, 0};
}

std::string how_to_build(const std::string& id, int device) {
  return fmt::format(
      "Build it ahead of time with `attune compile --spec {} --arch sm_{} -o kernels.attune` and "
      "name "
      "that file in ATTUNE_BUNDLE",
      id, device);
}

}  // namespace

std::string_view to_string(Origin origin) {
  switch (origin) {
    case Origin::bundle:
      return "bundle";
    case Origin::disk:
      return "disk cache";
    case Origin::compiler:
      return "compiled";
  }
  return "?";
}

Registry::Options Registry::default_options() {
  Options options;
  options.bundles = default_bundles();
  options.cache = default_cache();
  options.may_compile = jit_allowed();
  return options;
}

Registry::Registry(Options options) : options_(std::move(options)) {
  if (!options_.toolchain) {
    options_.toolchain = [compiler = options_.compiler] { return find_toolchain(compiler); };
  }
  if (!options_.compile) options_.compile = compile_spec;
}

Registry::~Registry() = default;

Expected<std::shared_ptr<const Image>> Registry::image_for(const KernelSpec& spec, int device) {
  return no_throw([&]() -> Expected<std::shared_ptr<const Image>> {
    std::shared_ptr<Slot> slot;
    {
      const std::lock_guard lock(mutex_);
      std::shared_ptr<Slot>& entry = slots_[{id_of(spec), device}];
      if (!entry) entry = std::make_shared<Slot>();
      slot = entry;
    }
    const std::lock_guard lock(slot->mutex);
    if (slot->image) return slot->image;
    const auto start = std::chrono::steady_clock::now();
    auto image = find(spec, device);
    // A refusal is not remembered: another process may have compiled it by the next time.
    if (!image.ok()) return image.status();
    image->seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    slot->image = std::make_shared<const Image>(*std::move(image));
    return slot->image;
  });
}

Expected<Image> Registry::find(const KernelSpec& spec, int device) {
  if (const ArchRange range = spec.archs; device < range.begin || device >= range.end) {
    return Status(Code::unsupported, fmt::format("{} does not run on sm_{}", id_of(spec), device));
  }
  if (auto image = from_bundles(spec, device)) return *std::move(image);
  return find_or_compile(spec, device);
}

std::optional<Image> Registry::from_bundles(const KernelSpec& spec, int device) const {
  if (options_.bundles.empty()) return std::nullopt;
  const std::string id = id_of(spec);
  const std::string contents = contents_of(spec);
  for (const Bundle& bundle : options_.bundles) {
    const BundleEntry* entry = bundle.find(id, device);
    if (entry == nullptr) continue;
    if (entry->recipe.contents != contents) {
      notice(
          fmt::format("{} was made by another version of Attune and is not used: its {} was "
                      "compiled from other sources. Build it anew with `attune compile`",
                      bundle.name(), id));
      continue;
    }
    auto cubin = bundle.load(*entry);
    if (cubin.ok()) return make_image(id, entry->recipe.target, *std::move(cubin), Origin::bundle);
    notice(cubin.status().message());
  }
  return std::nullopt;
}

std::optional<Image> Registry::from_disk(const KernelSpec& spec, int device) {
  if (!options_.cache) return std::nullopt;
  const std::string id = id_of(spec);
  auto found = options_.cache->find_any(id, contents_of(spec), device);
  if (!found) return std::nullopt;
  return make_image(id, found->recipe.target, std::move(found->cubin), Origin::disk);
}

Expected<Image> Registry::find_or_compile(const KernelSpec& spec, int device) {
  const std::string id = id_of(spec);
  if (!options_.may_compile) {
    if (auto image = from_disk(spec, device)) return *std::move(image);
    return Status(
        Code::unsupported,
        fmt::format("{} is not compiled for sm_{}, and ATTUNE_JIT=off forbids compiling it "
                    "now. {}",
                    id, device, how_to_build(id, device)));
  }
  const auto toolchain = options_.toolchain();
  if (!toolchain.ok()) {
    if (auto image = from_disk(spec, device)) return *std::move(image);
    return Status(toolchain.status().code(), fmt::format("{} is not compiled for sm_{}, and {}", id,
                                                         device, toolchain.status().message()));
  }
  const auto target = target_for(*toolchain, device);
  if (!target.ok()) {
    if (auto image = from_disk(spec, device)) return *std::move(image);
    return Status(target.status().code(), fmt::format("{}: {}", id, target.status().message()));
  }
  const Target own = target_of(spec, *target);
  auto got = obtain(spec, own, *toolchain, options_.cache.get(), options_.compile);
  if (!got.ok()) return got.status();
  return make_image(id, own, std::move(got->cubin),
                    got->compiled ? Origin::compiler : Origin::disk);
}

std::vector<std::shared_ptr<const Image>> Registry::images() const {
  std::vector<std::shared_ptr<Slot>> slots;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, slot] : slots_) slots.push_back(slot);
  }
  std::vector<std::shared_ptr<const Image>> images;
  for (const auto& slot : slots) {
    const std::lock_guard lock(slot->mutex);
    if (slot->image) images.push_back(slot->image);
  }
  return images;
}

namespace {

std::optional<Registry::Options>& chosen_options() {
  static std::optional<Registry::Options> options;
  return options;
}

}  // namespace

void set_process_registry(Registry::Options options) { chosen_options() = std::move(options); }

Registry& process_registry() {
  // Never destroyed: kernels may still be asked for while the process ends.
  static Registry& registry =
      *new Registry(chosen_options() ? std::move(*chosen_options()) : Registry::default_options());
  return registry;
}

Expected<std::shared_ptr<const Image>> image_for(const KernelSpec& spec, int device) {
  return process_registry().image_for(spec, device);
}

}  // namespace attune
