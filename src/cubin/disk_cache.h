// Compiled kernels on disk, shared by all processes of a user.
//
//   <folder>/entries/<id>.<target>.<key>/{kernel.cubin, meta.json}
//   <folder>/locks/<key>.lock    held while a kernel is compiled, so that a machine compiles it once
//   <folder>/tmp/                entries being written; renamed into place in one step
//
// Nothing here is ever a reason to fail: what cannot be read is compiled, what cannot be written is
// not kept, and either is said once.
#pragma once

#include <atomic>
#include <attune/status.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cubin/cache_entry.h"
#include "cubin/recipe.h"

namespace attune {

// An exclusive lock on one key, among processes and threads; released when it goes, or its process
// dies. Not held when the folder or its file system has no locks: then a kernel may be compiled twice,
// and still nothing is read half-written.
class CacheLock {
 public:
  CacheLock() = default;
  explicit CacheLock(int fd) : fd_(fd) {}
  ~CacheLock();
  CacheLock(CacheLock&& other) noexcept;
  CacheLock& operator=(CacheLock&&) = delete;
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

  [[nodiscard]] bool held() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct CachedCubin {
  Recipe recipe;
  Cubin cubin;
};

// What `attune cache ls` shows of an entry.
struct CacheItem {
  std::filesystem::path path;
  EntryMeta meta;  // when status is ok
  std::uint64_t bytes = 0;
  std::int64_t used = 0;  // seconds since 1970
  Status status;          // why it cannot be used
};

class DiskCache {
 public:
  DiskCache(std::filesystem::path folder, std::uint64_t limit_bytes);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  [[nodiscard]] std::uint64_t limit_bytes() const { return limit_bytes_; }

  // Nothing when it is not there. A damaged entry is said, removed, and not there.
  [[nodiscard]] std::optional<Cubin> find(const Recipe& recipe);

  // The same kernel by any compiler, for the latest architecture that `device` runs: for a machine
  // where none is left or compiling is forbidden.
  [[nodiscard]] std::optional<CachedCubin> find_any(const std::string& id,
                                                    const std::string& contents, int device);

  // Waits until no other process or thread holds the key.
  [[nodiscard]] CacheLock lock(const Recipe& recipe);

  void store(const Recipe& recipe, const Cubin& cubin);

  // In order of path. Meta files only; with `thorough`, the cubins' hashes too.
  [[nodiscard]] std::vector<CacheItem> list(bool thorough) const;
  [[nodiscard]] Status remove(const CacheItem& item);
  // Everything, leftovers of killed writers and locks included. Returns how many entries went.
  [[nodiscard]] Expected<std::uint64_t> clear();

 private:
  [[nodiscard]] std::filesystem::path path_of(const Recipe& recipe) const;
  [[nodiscard]] std::optional<CachedCubin> read(const std::filesystem::path& path);
  [[nodiscard]] Status store_or_say(const Recipe& recipe, const Cubin& cubin);
  [[nodiscard]] std::filesystem::path temporary(const std::string& key) const;
  void sweep(const std::string& key);
  void evict(const std::filesystem::path& newest);

  std::filesystem::path folder_;
  std::uint64_t limit_bytes_;
  std::atomic<bool> writable_{true};
};

// $ATTUNE_CACHE_DIR, else $XDG_CACHE_HOME/attune, else ~/.cache/attune; nothing without any of them.
[[nodiscard]] std::optional<std::filesystem::path> default_cache_folder();

// $ATTUNE_CACHE_LIMIT: "500M", "2G"; a value that makes no sense is said, and 1 GiB counts. 0: none.
[[nodiscard]] std::uint64_t default_cache_limit();
[[nodiscard]] std::optional<std::uint64_t> bytes_from(std::string_view text);

// The cache that these two say; null where there is no folder, or no room.
[[nodiscard]] std::unique_ptr<DiskCache> default_cache();

}  // namespace attune
