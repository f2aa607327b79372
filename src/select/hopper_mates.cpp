#include "select/hopper_mates.h"

#include <fmt/format.h>

#include <cstdint>

namespace attune {

namespace {

std::int64_t tiles_of_head(const kernel::HopperSpec& spec, std::int64_t rows) {
  return rows / spec.queries + (rows % spec.queries > 0 ? 1 : 0);
}

bool is_full(const Mask& mask) { return !mask.causal && mask.left < 0 && mask.right < 0; }

}  // namespace

Mates mates_of(const kernel::HopperSpec& spec, const Problem& problem) {
  if (problem.hkv > 0 && problem.hq / problem.hkv % 2 == 0) return Mates::heads;
  const std::int64_t tiles = tiles_of_head(spec, problem.sq);
  return is_full(problem.mask) && tiles % 2 == 0 ? Mates::tiles : Mates::none;
}

std::string reason_against_mates(const kernel::HopperSpec& spec, const Problem& problem) {
  constexpr const char* kOthers = "a plain row computes each tile alone";
  if (problem.packed_q || problem.packed_k || problem.key_lengths || problem.page_size > 0) {
    return fmt::format("blocks of threads share keys of one length that are not in pages: {}",
                       kOthers);
  }
  if (mates_of(spec, problem) != Mates::none) return {};
  if (!is_full(problem.mask)) {
    return fmt::format(
        "under a mask hq / hkv = {} / {} has to be even, for two heads to share keys: {}",
        problem.hq, problem.hkv, kOthers);
  }
  return fmt::format("sq = {} makes {} tiles of {} queries, and two of them share keys: {}",
                     problem.sq, tiles_of_head(spec, problem.sq), spec.queries, kOthers);
}

}  // namespace attune
