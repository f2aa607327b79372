// The disk cache among processes and under failures: races, killed writers, damage, full and
// unwritable folders, eviction.
#include "cubin/disk_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "cubin/process.h"
#include "registry/registry.h"
#include "source/translation_unit.h"
#include "tests/support/cubins.h"

namespace attune {
namespace {

namespace fs = std::filesystem;
using testing::counting_options;
using testing::entries_of;
using testing::fake_cubin;
using testing::first_row;
using testing::Notices;
using testing::nth_row;

constexpr std::uint64_t kLimit = 1 << 30;

Recipe recipe_of(const KernelSpec& spec, int arch = 80) {
  return recipe_for(spec, {arch, 0}, testing::fake_toolchain());
}

Cubin cubin_of(unsigned seed, std::size_t code_bytes = 1024) {
  Cubin cubin;
  cubin.bytes = fake_cubin({.code_bytes = code_bytes, .seed = seed});
  cubin.facts = read_facts(cubin.bytes, kEntryName).value();
  cubin.seconds = 0.25;
  return cubin;
}

// Runs `body` in a process of its own; its exit status is what body returns.
int in_process(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(DiskCache, GivesBackWhatWasStored) {
  const TemporaryFolder folder;
  DiskCache cache(folder.path(), kLimit);
  const Recipe recipe = recipe_of(first_row());
  EXPECT_FALSE(cache.find(recipe));
  const Cubin cubin = cubin_of(1);
  cache.store(recipe, cubin);
  const auto found = cache.find(recipe);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->bytes, cubin.bytes);
  EXPECT_EQ(found->facts, cubin.facts);
  EXPECT_EQ(found->seconds, 0.25);
  // Any other ingredient is another kernel.
  Recipe other = recipe;
  other.compiler += " -O1";
  EXPECT_FALSE(cache.find(other));
  other = recipe;
  other.contents[0] = other.contents[0] == '0' ? '1' : '0';
  EXPECT_FALSE(cache.find(other));
  EXPECT_FALSE(cache.find(recipe_of(first_row(), 86)));
}

TEST(DiskCache, AnEntryIsAFolderWithItsIdInItsName) {
  const TemporaryFolder folder;
  DiskCache cache(folder.path(), kLimit);
  cache.store(recipe_of(first_row()), cubin_of(1));
  const fs::path entry = testing::only_entry(folder.path());
  EXPECT_EQ(entry.filename().string(),
            id_of(first_row()) + ".sm_80." + recipe_of(first_row()).key());
  EXPECT_TRUE(fs::exists(entry / "kernel.cubin"));
  EXPECT_TRUE(fs::exists(entry / "meta.json"));
  EXPECT_TRUE(fs::is_empty(folder.path() / "tmp"));
}

// Two processes ask for one kernel at the same time; the compiler of each takes a while and counts in
// a file. One compiles, the other waits and reads.
TEST(DiskCache, TwoProcessesCompileOneKernelOnce) {
  const TemporaryFolder folder;
  const fs::path log = folder.path() / "compiled";
  const auto ask = [&] {
    std::atomic<int> compiled{0};
    Registry::Options options = counting_options(compiled, folder.path() / "cache");
    const auto fake = options.compile;
    options.compile = [&](const KernelSpec& spec, const Target& target,
                          const Toolchain& toolchain) {
      std::ofstream(log, std::ios::app) << "x";
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return fake(spec, target, toolchain);
    };
    Registry registry(std::move(options));
    return registry.image_for(first_row(), 80).ok() ? 0 : 1;
  };
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(ask());
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(fs::file_size(log), 1U);
  EXPECT_EQ(entries_of(folder.path() / "cache").size(), 1U);
}

// A process dies of SIGKILL between writing its temporary folder and renaming it, with the lock held.
// The next one gets the lock, finds no entry, compiles, and sweeps what was left.
TEST(DiskCache, AKilledWriterLeavesNothingThatCounts) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(first_row());
  const int status = in_process([&] {
    DiskCache cache(folder.path(), kLimit);
    const CacheLock lock = cache.lock(recipe);
    const fs::path half = folder.path() / "tmp" / (recipe.key() + ".1234.0");
    fs::create_directories(half);
    std::ofstream(half / kCubinFile) << "half";
    ::raise(SIGKILL);
    return 0;
  });
  EXPECT_EQ(status, 128 + SIGKILL);
  ASSERT_FALSE(fs::is_empty(folder.path() / "tmp"));

  DiskCache cache(folder.path(), kLimit);
  EXPECT_FALSE(cache.find(recipe));
  {
    const CacheLock lock = cache.lock(recipe);
    EXPECT_TRUE(lock.held());
    EXPECT_TRUE(fs::is_empty(folder.path() / "tmp"));
    cache.store(recipe, cubin_of(1));
  }
  EXPECT_TRUE(cache.find(recipe));
}

// Whatever byte of either file is changed, the entry is refused or still the same kernel.
TEST(DiskCache, AFlippedByteIsFound) {
  const TemporaryFolder folder;
  const Notices notices;
  const Recipe recipe = recipe_of(first_row());
  const Cubin cubin = cubin_of(1, 64);
  std::size_t damaged = 0;
  for (const char* name : {kCubinFile, kMetaFile}) {
    for (std::uint64_t at = 0;; at += 7) {
      DiskCache cache(folder.path(), kLimit);
      if (!cache.find(recipe)) cache.store(recipe, cubin);
      const fs::path file = testing::only_entry(folder.path()) / name;
      if (at >= fs::file_size(file)) break;
      testing::flip_byte(file, at);
      if (const auto found = cache.find(recipe)) {
        EXPECT_EQ(found->bytes, cubin.bytes) << name << " " << at;
        testing::flip_byte(file, at);
      } else {
        ++damaged;
      }
      for (const CacheItem& item : cache.list(true)) (void)cache.remove(item);
    }
  }
  EXPECT_GT(damaged, 100U);
  EXPECT_GT(notices.texts().size(), 100U);
}

TEST(DiskCache, AnotherKernelsEntryUnderANameIsFoundAndReplaced) {
  const TemporaryFolder folder;
  const Notices notices;
  const Recipe recipe = recipe_of(first_row()), other = recipe_of(nth_row(1));
  DiskCache cache(folder.path(), kLimit);
  cache.store(recipe, cubin_of(1));
  const fs::path path = testing::only_entry(folder.path());
  ASSERT_TRUE(cache.clear().ok());
  cache.store(other, cubin_of(2));
  fs::rename(testing::only_entry(folder.path()), path);
  ASSERT_EQ(cache.list(true).size(), 1U);
  EXPECT_FALSE(cache.list(true)[0].status.ok());

  EXPECT_FALSE(cache.find(recipe));
  EXPECT_EQ(notices.texts().size(), 1U);
  cache.store(recipe, cubin_of(1));
  ASSERT_TRUE(cache.find(recipe));
  EXPECT_EQ(cache.find(recipe)->bytes, cubin_of(1).bytes);
}

TEST(DiskCache, ATruncatedEntryIsFound) {
  const TemporaryFolder folder;
  const Notices notices;
  const Recipe recipe = recipe_of(first_row());
  for (const char* name : {kCubinFile, kMetaFile}) {
    for (const std::uint64_t size : {0, 10}) {
      DiskCache cache(folder.path(), kLimit);
      cache.store(recipe, cubin_of(1));
      fs::resize_file(testing::only_entry(folder.path()) / name, size);
      EXPECT_FALSE(cache.find(recipe));
      EXPECT_TRUE(entries_of(folder.path()).empty());
    }
  }
  EXPECT_EQ(notices.texts().size(), 4U);
}

// RLIMIT_FSIZE stands in for a full disk: a write past it fails.
TEST(DiskCache, AFullDiskIsSaidOnceAndNothingIsLost) {
  const TemporaryFolder folder;
  const int status = in_process([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{512, 512};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    const Notices notices;
    std::atomic<int> compiled{0};
    Registry registry(counting_options(compiled, folder.path()));
    for (const int n : {0, 1, 2}) {
      const auto image = registry.image_for(nth_row(static_cast<std::size_t>(n)), 80);
      if (!image.ok() || (*image)->origin != Origin::compiler) return 2;
    }
    if (compiled != 3) return 3;
    if (notices.texts().size() != 1) return 4;
    if (notices.texts()[0].find("compiled kernels are not kept") == std::string::npos) return 5;
    return 0;
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(entries_of(folder.path()).empty());
  EXPECT_TRUE(fs::is_empty(folder.path() / "tmp"));
}

// Permissions do not bind root, so a file stands where the folder should be.
TEST(DiskCache, AFolderThatCannotBeWrittenIsSaidOnce) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "cache";
  std::ofstream(file) << "in the way";
  const Notices notices;
  std::atomic<int> compiled{0};
  Registry registry(counting_options(compiled, file));
  EXPECT_TRUE(registry.image_for(nth_row(0), 80).ok());
  EXPECT_TRUE(registry.image_for(nth_row(1), 80).ok());
  EXPECT_EQ(compiled, 2);
  ASSERT_EQ(notices.texts().size(), 1U);
  EXPECT_NE(notices.texts()[0].find(file.string()), std::string::npos) << notices.texts()[0];
}

// A cache on a medium that is mounted read-only is read all the same. As root only an entry without
// locks and temporary folders can be made: files stand in their place.
TEST(DiskCache, AReadOnlyCacheStillServes) {
  const TemporaryFolder folder;
  const Recipe recipe = recipe_of(first_row());
  {
    DiskCache cache(folder.path(), kLimit);
    cache.store(recipe, cubin_of(1));
  }
  for (const char* name : {"tmp", "locks"}) {
    fs::remove_all(folder.path() / name);
    std::ofstream(folder.path() / name) << "in the way";
  }
  const Notices notices;
  DiskCache cache(folder.path(), kLimit);
  EXPECT_TRUE(cache.find(recipe));
  EXPECT_FALSE(cache.lock(recipe_of(nth_row(1))).held());
  cache.store(recipe_of(nth_row(1)), cubin_of(2));
  EXPECT_EQ(notices.texts().size(), 1U);
  EXPECT_TRUE(cache.find(recipe));
}

TEST(DiskCache, TheLeastRecentlyUsedGoesFirst) {
  const TemporaryFolder folder;
  const std::uint64_t three = 3 * 12000;
  DiskCache cache(folder.path(), three);
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); };
  for (const std::size_t n : {0U, 1U, 2U}) {
    cache.store(recipe_of(nth_row(n)), cubin_of(static_cast<unsigned>(n), 10000));
    wait();
  }
  ASSERT_EQ(entries_of(folder.path()).size(), 3U);
  EXPECT_TRUE(cache.find(recipe_of(nth_row(0))));  // used again: the second is now the oldest
  wait();
  cache.store(recipe_of(nth_row(3)), cubin_of(3, 10000));
  EXPECT_EQ(entries_of(folder.path()).size(), 3U);
  EXPECT_TRUE(cache.find(recipe_of(nth_row(0))));
  EXPECT_FALSE(cache.find(recipe_of(nth_row(1))));
  EXPECT_TRUE(cache.find(recipe_of(nth_row(3))));
}

TEST(DiskCache, ListsVerifiesAndClears) {
  const TemporaryFolder folder;
  DiskCache cache(folder.path(), kLimit);
  cache.store(recipe_of(nth_row(0)), cubin_of(1));
  cache.store(recipe_of(nth_row(1)), cubin_of(2));
  ASSERT_EQ(cache.list(false).size(), 2U);
  testing::flip_byte(entries_of(folder.path())[0] / kCubinFile, 500);
  int damaged = 0;
  for (const CacheItem& item : cache.list(true)) damaged += item.status.ok() ? 0 : 1;
  EXPECT_EQ(damaged, 1);
  (void)cache.lock(recipe_of(nth_row(2)));
  const auto removed = cache.clear();
  ASSERT_TRUE(removed.ok()) << removed.status().message();
  EXPECT_EQ(*removed, 2U);
  EXPECT_TRUE(cache.list(false).empty());
  EXPECT_FALSE(fs::exists(folder.path() / "locks"));
}

TEST(DiskCache, LimitsAreBytesWithASuffix) {
  EXPECT_EQ(bytes_from("0"), 0U);
  EXPECT_EQ(bytes_from("512"), 512U);
  EXPECT_EQ(bytes_from("10K"), 10240U);
  EXPECT_EQ(bytes_from("500M"), 500U << 20);
  EXPECT_EQ(bytes_from("2G"), 2ULL << 30);
  for (const char* text : {"", "G", "-1", "1.5G", "1T", "1 G", "99999999999G", "0x10"}) {
    EXPECT_FALSE(bytes_from(text)) << text;
  }
}

}  // namespace
}  // namespace attune
