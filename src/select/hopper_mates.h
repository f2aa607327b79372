// Which tiles of a problem two blocks of threads can compute from the same keys.
#pragma once

#include <attune/problem.hpp>
#include <string>

#include "spec/hopper_table.h"

namespace attune {

enum class Mates { none, tiles, heads };

// What the mates of a row have: neighbouring heads of a group, under any mask, or neighbouring tiles of a head,
// which attend to all keys. Precondition: spec.mates.
[[nodiscard]] Mates mates_of(const kernel::HopperSpec& spec, const Problem& problem);

// Empty, or why a problem has none, and what does without. Precondition: as above.
[[nodiscard]] std::string reason_against_mates(const kernel::HopperSpec& spec,
                                               const Problem& problem);

}  // namespace attune
