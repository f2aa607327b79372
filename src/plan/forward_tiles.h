// What the forward kernels of all families share: a tile is a block of queries of one head.
#pragma once

#include <attune/params.h>

#include <attune/problem.hpp>
#include <attune/status.hpp>
#include <string>
#include <vector>

#include "host/device_facts.h"
#include "plan/grid.h"
#include "plan/workspace.h"

namespace attune {

// Counts the tiles of so many queries, sets them and their order in `p`, and gives each a block of threads.
[[nodiscard]] Expected<Grid> lay_tiles(const Problem& problem, int queries,
                                       const DeviceFacts& device, kernel::ForwardParams& p);

// One fact a line, for explain().
[[nodiscard]] std::string describe_tiles(const std::vector<KernelLaunch>& launches, int queries,
                                         int keys, const kernel::ForwardParams& p,
                                         const WorkspacePiece& workspace);

}  // namespace attune
