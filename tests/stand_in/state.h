// What the functions of the stand-in share: what it remembers, and how each call begins.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "launch/cuda_types.h"
#include "tests/stand_in/control.h"
#include "tests/stand_in/module_image.h"

// NOLINTBEGIN: names are those of the library that this stands in for.
namespace attune::testing {

using cuda::DevicePointer;
using cuda::LaunchConfig;
using cuda::Result;

inline constexpr Result kInvalidValue = 1;
inline constexpr Result kInvalidDevice = 101;
inline constexpr Result kInvalidImage = 200;
inline constexpr Result kInvalidContext = 201;
inline constexpr Result kInvalidHandle = 400;
inline constexpr Result kNotFound = 500;
inline constexpr Result kCaptureUnsupported = 900;
inline constexpr Result kCaptureInvalidated = 901;

struct Context {
  int device;
  std::uint64_t id;
};
struct Module;
struct Function {
  Module* module;
  std::string name;
  int dynamic_shared = 48 * 1024;
};
struct Module {
  Context* context;
  std::vector<std::unique_ptr<Function>> functions;
  bool backward = false;  // it has the kernels of a backward row
  ModuleImage image;
};
struct Stream {
  Context* context;
  bool capturing = false;
  bool valid = true;
};
struct Order {
  Result result;
  int skip;
};

struct State {
  std::mutex mutex;
  std::vector<StandInDevice> devices{StandInDevice{}};
  std::map<int, Context*> primary;
  std::deque<Context> contexts;  // addresses stay; ids change
  std::vector<Context*> free_contexts;
  std::set<Context*> alive;
  std::set<Stream*> streams;
  std::map<std::string, Order> orders;
  std::map<std::string, int> counts;
  std::vector<const char*> calls;
  std::string log_text;
  std::map<DevicePointer, std::size_t> memory;
  StandInLaunch latest{};
  StandInLaunch first[kStandInLaunches]{};
  std::vector<std::string> launch_texts;
  int launches = 0;
  std::set<Module*> modules;
  const char* latest_image = "";
  int primaries = 0;
  int fail_at = -1, fail_with = 0;
  std::uint64_t next_id = 1;
};

State& state();
extern std::atomic<bool> quiet_mode;
extern thread_local std::vector<Context*> stack;
extern thread_local int capture_mode;

Context* current();

// Records a call; what it was told to answer, if anything.
Result enter(const char* name);
#define ENTER(name) \
  if (const Result told = enter(name); told != 0) return told

// What may synchronise is forbidden while a stream is being captured, unless the thread relaxes.
Result synchronising();

}  // namespace attune::testing
// NOLINTEND
