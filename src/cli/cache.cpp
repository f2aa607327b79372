// `attune cache`: what the disk cache of compiled kernels holds.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/format.h"
#include "cubin/disk_cache.h"
#include "cubin/json_fields.h"

namespace attune::cli {
namespace {

struct CacheOptions {
  bool json = false;
  CLI::App* ls = nullptr;
  CLI::App* clear = nullptr;
  CLI::App* verify = nullptr;
};

std::string date(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm local{};
  return localtime_r(&time, &local) == nullptr ? "?" : fmt::format("{:%Y-%m-%d %H:%M}", local);
}

nlohmann::json to_json(const DiskCache& cache, const std::vector<CacheItem>& items) {
  nlohmann::json entries = nlohmann::json::array();
  for (const CacheItem& item : items) {
    nlohmann::json entry = {{"path", item.path.string()},
                            {"bytes", item.bytes},
                            {"used", item.used},
                            {"ok", item.status.ok()}};
    if (item.status.ok()) {
      entry["id"] = item.meta.recipe.id;
      entry["target"] = to_string(item.meta.recipe.target);
      entry["compiler"] = item.meta.recipe.compiler;
      entry["created"] = item.meta.created;
      entry["compile_seconds"] = item.meta.compile_seconds;
      entry["facts"] = facts_json(item.meta.facts);
    } else {
      entry["damage"] = item.status.message();
    }
    entries.push_back(std::move(entry));
  }
  return {{"folder", cache.folder().string()},
          {"limit_bytes", cache.limit_bytes()},
          {"entries", std::move(entries)}};
}

void print(const nlohmann::json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

int list(const DiskCache& cache, bool json) {
  const std::vector<CacheItem> items = cache.list(false);
  if (json) {
    print(to_json(cache, items));
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {{"id", "for", "size", "compiled in", "last used"}};
  std::uint64_t bytes = 0;
  for (const CacheItem& item : items) {
    bytes += item.bytes;
    if (!item.status.ok()) {
      rows.push_back({item.status.message(), "", say_bytes(item.bytes), "", date(item.used)});
      continue;
    }
    rows.push_back({item.meta.recipe.id, to_string(item.meta.recipe.target), say_bytes(item.bytes),
                    say_seconds(item.meta.compile_seconds), date(item.used)});
  }
  if (!items.empty()) fmt::print("{}\n", table(rows));
  fmt::print("{}: {} kernels, {} of at most {}\n", cache.folder().string(), items.size(),
             say_bytes(bytes), say_bytes(cache.limit_bytes()));
  return kOk;
}

int verify(DiskCache& cache, bool json) {
  const std::vector<CacheItem> items = cache.list(true);
  if (json) print(to_json(cache, items));
  int damaged = 0;
  for (const CacheItem& item : items) {
    if (item.status.ok()) continue;
    ++damaged;
    const Status removed = cache.remove(item);
    fmt::print(stderr, "attune: {} ({})\n", item.status.message(),
               removed.ok() ? "removed; it is compiled anew when it is needed"
                            : "it cannot be removed: " + removed.message());
  }
  if (!json) {
    fmt::print("{}: {} kernels, {} damaged\n", cache.folder().string(), items.size(), damaged);
  }
  return damaged == 0 ? kOk : kFailed;
}

int clear(DiskCache& cache, bool json) {
  const auto removed = cache.clear();
  if (!removed.ok()) return refuse(removed.status());
  if (json) {
    print({{"folder", cache.folder().string()}, {"removed", *removed}});
  } else {
    fmt::print("{}: {} kernels removed\n", cache.folder().string(), *removed);
  }
  return kOk;
}

int run(const CacheOptions& options) {
  const auto folder = default_cache_folder();
  if (!folder) {
    return refuse(
        {Code::io_error,
         "there is no folder for the cache: HOME, XDG_CACHE_HOME and ATTUNE_CACHE_DIR are "
         "unset"});
  }
  DiskCache cache(*folder, default_cache_limit());
  if (options.clear->parsed()) return clear(cache, options.json);
  if (options.verify->parsed()) return verify(cache, options.json);
  return list(cache, options.json);
}

}  // namespace

Command add_cache(CLI::App& app) {
  auto options = std::make_shared<CacheOptions>();
  CLI::App* sub = app.add_subcommand("cache", "Show, check or empty the cache of compiled kernels");
  options->ls = sub->add_subcommand("ls", "List the entries");
  options->clear = sub->add_subcommand("clear", "Remove everything");
  options->verify = sub->add_subcommand("verify", "Read every entry; remove what is damaged");
  for (CLI::App* action : {options->ls, options->clear, options->verify}) {
    action->add_flag("--json", options->json, "Print JSON");
  }
  sub->require_subcommand(1);
  sub->footer("Example:\n  attune cache ls");
  return {sub, [options] { return run(*options); }};
}

}  // namespace attune::cli
