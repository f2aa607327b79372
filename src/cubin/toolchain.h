// Text -> cubin: one interface over NVRTC, in this process, and nvcc, as another.
#pragma once

#include <attune/status.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cubin/cubin_facts.h"
#include "cubin/target.h"

namespace attune {

enum class Compiler : std::uint8_t { nvrtc, nvcc };

// A compiler that is there.
struct Toolchain {
  Compiler compiler = Compiler::nvrtc;
  std::string version;          // "NVRTC 13.0", with what else tells builds apart
  std::string path;             // the library or the program
  std::vector<Target> targets;  // that it knows, in ascending order
};

// The result is remembered. Refused with where it was looked for, and what to install.
[[nodiscard]] Expected<Toolchain> find_toolchain(Compiler compiler);

struct Cubin {
  std::vector<std::byte> bytes;
  CubinFacts facts;
  double seconds = 0;  // that compiling took
};

// Compiles one unit whose kernel is kEntryName; its #include <attune/...> find the library's own
// headers. `name` is the kernel's id: errors carry it, with what the compiler said. Safe from several
// threads; NVRTC itself takes one at a time.
[[nodiscard]] Expected<Cubin> compile(const std::string& source, const std::string& name,
                                      const Target& target, const Toolchain& toolchain);

// One unit for several targets, in their order. Where a ptxas of NVRTC's own release is there, the
// front end runs once for all targets that it makes the same PTX for, and ptxas does the rest: the
// same code in less time. Other PTX comes from sm_90 on, of whose instructions device code knows,
// and from sm_100 on, where NVRTC 13 optimizes otherwise.
// Precondition: no target has a variant.
[[nodiscard]] std::vector<Expected<Cubin>> compile_for(const std::string& source,
                                                       const std::string& name,
                                                       const std::vector<Target>& targets,
                                                       const Toolchain& toolchain);

// The flags of every compilation, apart from the target: part of a cache key.
[[nodiscard]] std::string compile_flags(Compiler compiler);

// The best of the toolchain's targets for a device: its own architecture, else the closest earlier
// minor of the same major. Refused when there is none, with what the toolchain knows.
[[nodiscard]] Expected<Target> target_for(const Toolchain& toolchain, int device);

}  // namespace attune
