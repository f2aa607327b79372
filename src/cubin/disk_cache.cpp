#include "cubin/disk_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "host/notice.h"

namespace attune {

namespace {

namespace fs = std::filesystem;

// A temporary folder this old belongs to nobody: a kernel compiles in seconds.
constexpr std::int64_t kAbandonedSeconds = 24 * 60 * 60;

std::int64_t now_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

std::int64_t modified(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<std::int64_t>(info.st_mtime) : 0;
}

// In nanoseconds: entries used within one second still have an order.
std::int64_t used_ns(const fs::path& entry) {
  struct stat info {};
  if (::stat((entry / kMetaFile).c_str(), &info) != 0) return 0;
  return static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
}

std::uint64_t bytes_of(const fs::path& entry) {
  std::uint64_t bytes = 0;
  for (const char* name : {kCubinFile, kMetaFile}) {
    std::error_code error;
    const auto size = fs::file_size(entry / name, error);
    if (!error) bytes += size;
  }
  return bytes;
}

std::vector<fs::path> children(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    found.push_back(it->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

CacheLock::~CacheLock() {
  if (fd_ >= 0) ::close(fd_);
}

CacheLock::CacheLock(CacheLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

DiskCache::DiskCache(fs::path folder, std::uint64_t limit_bytes)
    : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

fs::path DiskCache::path_of(const Recipe& recipe) const {
  return folder_ / "entries" / entry_name(recipe);
}

// Names that no other thread or process has; the key comes first, for sweep().
fs::path DiskCache::temporary(const std::string& key) const {
  static std::atomic<unsigned> counter{0};
  return folder_ / "tmp" / fmt::format("{}.{}.{}", key, ::getpid(), counter++);
}

std::optional<CachedCubin> DiskCache::read(const fs::path& path) {
  EntryMeta meta;
  auto cubin = read_entry(path, meta);
  if (cubin.ok()) {
    // The time of the last use, for eviction. A folder that cannot be written keeps the old one.
    (void)::utimensat(AT_FDCWD, (path / kMetaFile).c_str(), nullptr, 0);
    return CachedCubin{std::move(meta.recipe), *std::move(cubin)};
  }
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;  // evicted while it was being read
  notice(fmt::format("the kernel cache has a damaged entry, which is compiled anew: {}",
                     cubin.status().message()));
  (void)remove({.path = path, .meta = {}, .bytes = 0, .used = 0, .status = {}});
  return std::nullopt;
}

std::optional<Cubin> DiskCache::find(const Recipe& recipe) {
  const fs::path path = path_of(recipe);
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  auto found = read(path);
  if (!found) return std::nullopt;
  return std::move(found->cubin);
}

std::optional<CachedCubin> DiskCache::find_any(const std::string& id, const std::string& contents,
                                               int device) {
  std::vector<std::pair<int, fs::path>> candidates;
  for (const fs::path& path : children(folder_ / "entries")) {
    if (!path.filename().string().starts_with(id + ".sm_")) continue;
    const auto meta = read_meta(path);
    if (!meta.ok() || meta->recipe.id != id || meta->recipe.contents != contents) continue;
    if (runs_on(meta->recipe.target, device)) {
      candidates.emplace_back(-meta->recipe.target.arch, path);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  for (const auto& [order, path] : candidates) {
    if (auto found = read(path)) return found;
  }
  return std::nullopt;
}

CacheLock DiskCache::lock(const Recipe& recipe) {
  if (!writable_) return {};
  const fs::path folder = folder_ / "locks";
  std::error_code error;
  fs::create_directories(folder, error);
  const std::string key = recipe.key();
  const fs::path path = folder / (key + ".lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return {};  // store() will say what is wrong with the folder
  int locked = 0;
  do {
    locked = ::flock(fd, LOCK_EX);
  } while (locked != 0 && errno == EINTR);
  if (locked != 0) {
    ::close(fd);
    return {};
  }
  sweep(key);
  return CacheLock(fd);
}

// Who holds the key's lock is its only writer: what lies there under its name was left by a process
// that died.
void DiskCache::sweep(const std::string& key) {
  for (const fs::path& path : children(folder_ / "tmp")) {
    if (!path.filename().string().starts_with(key + ".")) continue;
    std::error_code error;
    fs::remove_all(path, error);
  }
}

void DiskCache::store(const Recipe& recipe, const Cubin& cubin) {
  if (!writable_) return;
  const Status status = store_or_say(recipe, cubin);
  if (status.ok()) return;
  writable_ = false;
  notice(fmt::format("compiled kernels are not kept, for the cache cannot be written: {}",
                     status.message()));
}

Status DiskCache::store_or_say(const Recipe& recipe, const Cubin& cubin) {
  const fs::path target = path_of(recipe);
  const fs::path folder = temporary(recipe.key());
  for (const fs::path& needed : {target.parent_path(), folder}) {
    std::error_code error;
    fs::create_directories(needed, error);
    if (error) return {Code::io_error, needed.string() + ": " + error.message()};
  }
  Status status = write_entry(folder, recipe, cubin);
  std::error_code error;
  if (status.ok()) {
    fs::rename(folder, target, error);
    // Another writer, who had no lock either, was first: its entry is as good.
    const bool lost = error == std::errc::directory_not_empty || error == std::errc::file_exists;
    if (error && !lost) status = {Code::io_error, target.string() + ": " + error.message()};
  }
  if (!status.ok() || error) {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }
  if (status.ok()) evict(target);
  return status;
}

void DiskCache::evict(const fs::path& newest) {
  struct Entry {
    std::int64_t used;
    std::uint64_t bytes;
    fs::path path;
  };
  std::vector<Entry> entries;
  std::uint64_t total = 0;
  for (const fs::path& path : children(folder_ / "entries")) {
    entries.push_back({used_ns(path), bytes_of(path), path});
    total += entries.back().bytes;
  }
  for (const fs::path& path : children(folder_ / "tmp")) {
    if (now_seconds() - modified(path) < kAbandonedSeconds) continue;
    std::error_code error;
    fs::remove_all(path, error);
  }
  if (total <= limit_bytes_) return;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= limit_bytes_) break;
    if (entry.path == newest) continue;
    if (!remove({.path = entry.path, .meta = {}, .bytes = 0, .used = 0, .status = {}}).ok()) break;
    total -= entry.bytes;
  }
}

std::vector<CacheItem> DiskCache::list(bool thorough) const {
  std::vector<CacheItem> items;
  for (const fs::path& path : children(folder_ / "entries")) {
    CacheItem item{path, {}, bytes_of(path), used_ns(path) / 1'000'000'000, {}};
    if (thorough) {
      const auto cubin = read_entry(path, item.meta);
      if (!cubin.ok()) item.status = cubin.status();
    } else {
      auto meta = read_meta(path);
      if (meta.ok()) {
        item.meta = *std::move(meta);
      } else {
        item.status = meta.status();
      }
    }
    items.push_back(std::move(item));
  }
  return items;
}

// Renamed away first, so that nobody opens what is half removed.
Status DiskCache::remove(const CacheItem& item) {
  const fs::path away = temporary("removed");
  std::error_code error;
  fs::create_directories(away.parent_path(), error);
  fs::rename(item.path, away, error);
  if (error == std::errc::no_such_file_or_directory) return {};
  if (error) return {Code::io_error, item.path.string() + ": " + error.message()};
  fs::remove_all(away, error);
  return {};
}

Expected<std::uint64_t> DiskCache::clear() {
  std::uint64_t removed = 0;
  for (const CacheItem& item : list(false)) {
    if (Status status = remove(item); !status.ok()) return status;
    ++removed;
  }
  for (const char* name : {"tmp", "locks"}) {
    std::error_code error;
    fs::remove_all(folder_ / name, error);
    if (error) {
      return Status(Code::io_error, (folder_ / name).string() + ": " + error.message());
    }
  }
  return removed;
}

}  // namespace attune
