// Bundles: what is written is read back; what is truncated, damaged or lies is refused, saying what.
#include "cubin/bundle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <string>

#include "cubin/bundle_format.h"
#include "cubin/content_hash.h"
#include "cubin/process.h"
#include "registry/registry.h"
#include "source/translation_unit.h"
#include "tests/support/cubins.h"

namespace attune {
namespace {

using testing::counting_options;
using testing::fake_cubin;
using testing::Notices;
using testing::nth_row;

BundleItem item_of(std::size_t n, int arch) {
  BundleItem item;
  item.recipe = recipe_for(nth_row(n), {arch, 0}, testing::fake_toolchain());
  item.cubin.bytes =
      fake_cubin({.seed = static_cast<unsigned>(n) * 1000 + static_cast<unsigned>(arch)});
  item.cubin.facts = read_facts(item.cubin.bytes, kEntryName).value();
  return item;
}

std::vector<BundleItem> some_items() {
  return {item_of(2, 90), item_of(0, 80), item_of(0, 86), item_of(1, 80)};
}

Expected<Bundle> read(const std::vector<std::byte>& bytes) {
  return Bundle::read(memory_source(bytes), "a bundle");
}

// A bundle around any manifest, with its hash right.
std::vector<std::byte> with_manifest(const std::string& manifest, std::size_t blob_bytes) {
  bundle::Header header{bundle::kMagic, manifest.size(), {}};
  const std::string hash = content_hash(std::as_bytes(std::span(manifest)));
  std::copy_n(hash.begin(), header.manifest_hash.size(), header.manifest_hash.begin());
  std::vector<std::byte> bytes(sizeof(header) + manifest.size() + blob_bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), manifest.data(), manifest.size());
  return bytes;
}

std::string entry(const std::string& offset, const std::string& bytes,
                  const std::string& cubin_bytes, const std::string& id = "a") {
  return R"({"id":")" + id +
         R"(","target":"sm_80","contents":"c","compiler":"x","cubin_hash":"h",)" + R"("offset":)" +
         offset + R"(,"bytes":)" + bytes + R"(,"cubin_bytes":)" + cubin_bytes + "}";
}

std::string manifest(const std::string& entries) {
  return R"({"format":1,"entries":[)" + entries + "]}";
}

std::string refusal(const std::vector<std::byte>& bytes) {
  const auto bundle = read(bytes);
  return bundle.ok() ? "" : bundle.status().message();
}

TEST(Bundle, GivesBackEveryCubin) {
  const auto items = some_items();
  const auto bytes = format_bundle(items);
  ASSERT_TRUE(bytes.ok()) << bytes.status().message();
  const auto bundle = read(*bytes);
  ASSERT_TRUE(bundle.ok()) << bundle.status().message();
  ASSERT_EQ(bundle->entries().size(), items.size());
  for (const BundleItem& item : items) {
    const BundleEntry* found = bundle->find(item.recipe.id, item.recipe.target.arch);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->recipe, item.recipe);
    const auto cubin = bundle->load(*found);
    ASSERT_TRUE(cubin.ok()) << cubin.status().message();
    EXPECT_EQ(cubin->bytes, item.cubin.bytes);
    EXPECT_EQ(cubin->facts, item.cubin.facts);
  }
}

TEST(Bundle, TheSameItemsGiveTheSameBytes) {
  auto items = some_items();
  const auto first = format_bundle(items);
  std::reverse(items.begin(), items.end());
  const auto second = format_bundle(items);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*first, *second);
  items.push_back(items.front());
  EXPECT_FALSE(format_bundle(items).ok());
}

TEST(Bundle, FindsTheLatestArchitectureThatTheDeviceRuns) {
  const auto bytes = format_bundle(some_items());
  const auto bundle = read(*bytes);
  ASSERT_TRUE(bundle.ok());
  const std::string id = id_of(nth_row(0));
  EXPECT_EQ(bundle->find(id, 80)->recipe.target.arch, 80);
  EXPECT_EQ(bundle->find(id, 86)->recipe.target.arch, 86);
  EXPECT_EQ(bundle->find(id, 89)->recipe.target.arch, 86);
  EXPECT_EQ(bundle->find(id, 90), nullptr);
  EXPECT_EQ(bundle->find("no such id", 80), nullptr);
}

TEST(Bundle, RefusesEveryTruncation) {
  const auto bytes = format_bundle({item_of(0, 80), item_of(1, 80)});
  ASSERT_TRUE(bytes.ok());
  for (std::size_t size = 0; size < bytes->size(); ++size) {
    const std::vector<std::byte> part(bytes->begin(),
                                      bytes->begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_NE(refusal(part), "") << size;
  }
}

TEST(Bundle, NoFlippedByteGivesAnotherKernel) {
  const auto item = item_of(0, 80);
  const auto bytes = format_bundle({item});
  ASSERT_TRUE(bytes.ok());
  for (std::size_t at = 0; at < bytes->size(); ++at) {
    auto changed = *bytes;
    changed[at] ^= std::byte{0x10};
    const auto bundle = read(changed);
    if (!bundle.ok()) continue;
    ASSERT_EQ(bundle->entries().size(), 1U);
    const auto cubin = bundle->load(bundle->entries()[0]);
    if (!cubin.ok()) continue;
    EXPECT_EQ(cubin->bytes, item.cubin.bytes) << at;
  }
}

TEST(Bundle, RefusesLies) {
  const auto says = [](const std::string& text, std::size_t blobs = 100) {
    return refusal(with_manifest(text, blobs));
  };
  EXPECT_EQ(says("{"), "a bundle: has no manifest of format 1");
  EXPECT_EQ(says(R"({"format":2,"entries":[]})"), "a bundle: has no manifest of format 1");
  EXPECT_EQ(says(R"({"format":1,"entries":{}})"), "a bundle: has no manifest of format 1");
  EXPECT_EQ(says(manifest("7")), "a bundle: entry 0 has no id");
  EXPECT_EQ(says(manifest(entry("0", "101", "10"))),
            "a bundle: entry 0 a claims 101 bytes at 0; there are 100");
  EXPECT_EQ(says(manifest(entry("18446744073709551615", "2", "10"))),
            "a bundle: entry 0 a claims 2 bytes at 18446744073709551615; there are 100");
  EXPECT_EQ(says(manifest(entry("0", "10", "1099511627776"))),
            "a bundle: entry 0 a claims a cubin of 1099511627776 bytes; the limit is 268435456");
  EXPECT_EQ(says(manifest(entry("-1", "10", "10"))),
            "a bundle: entry 0 a lacks a field, or has one of another type");
  EXPECT_EQ(says(manifest(entry("0", "1", "1", "b") + "," + entry("0", "1", "1", "a"))),
            "a bundle: entry 1 (a for sm_80) is out of order or there twice");
  EXPECT_EQ(says(std::string(100000, '[')), "a bundle: has no manifest of format 1");
  EXPECT_EQ(says(manifest("")), "");

  // The manifest is fine, and what it leads to is no zstd frame of that size.
  const auto bytes = with_manifest(manifest(entry("0", "50", "1000")), 100);
  const auto bundle = read(bytes);
  ASSERT_TRUE(bundle.ok()) << bundle.status().message();
  const auto cubin = bundle->load(bundle->entries()[0]);
  ASSERT_FALSE(cubin.ok());
  EXPECT_EQ(cubin.status().message(),
            "a bundle: a: is damaged: its compressed size differs from the manifest's");
}

TEST(Bundle, TheRegistryLooksThereFirst) {
  const TemporaryFolder folder;
  const auto bytes = format_bundle(some_items());
  ASSERT_TRUE(bytes.ok());
  const auto path = folder.path() / "kernels.attune";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes->data()),
             static_cast<std::streamsize>(bytes->size()));
  auto bundle = Bundle::open(path);
  ASSERT_TRUE(bundle.ok()) << bundle.status().message();
  std::atomic<int> compiled{0};
  Registry::Options options = counting_options(compiled);
  options.may_compile = false;
  options.bundles.push_back(*std::move(bundle));
  Registry registry(std::move(options));
  const auto image = registry.image_for(nth_row(0), 89);
  ASSERT_TRUE(image.ok()) << image.status().message();
  EXPECT_EQ((*image)->origin, Origin::bundle);
  EXPECT_EQ((*image)->target.arch, 86);
  EXPECT_FALSE(registry.image_for(nth_row(5), 80).ok());
}

TEST(Bundle, KernelsOfOtherSourcesAreSaidAndNotUsed) {
  auto item = item_of(0, 80);
  item.recipe.contents = "of another version";
  const auto bytes = format_bundle({item});
  ASSERT_TRUE(bytes.ok());
  auto bundle = read(*bytes);
  ASSERT_TRUE(bundle.ok());
  std::atomic<int> compiled{0};
  Registry::Options options = counting_options(compiled);
  options.bundles.push_back(*std::move(bundle));
  Registry registry(std::move(options));
  const Notices notices;
  const auto image = registry.image_for(nth_row(0), 80);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ((*image)->origin, Origin::compiler);
  ASSERT_EQ(notices.texts().size(), 1U);
  EXPECT_NE(notices.texts()[0].find("another version of Attune"), std::string::npos);
}

TEST(Bundle, OpenNamesTheFile) {
  const auto bundle = Bundle::open("/nowhere/kernels.attune");
  ASSERT_FALSE(bundle.ok());
  EXPECT_EQ(bundle.status().message(),
            "/nowhere/kernels.attune: cannot be opened: No such file or directory");
}

}  // namespace
}  // namespace attune
