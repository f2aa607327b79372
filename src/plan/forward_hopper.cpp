#include "plan/forward_hopper.h"

#include <attune/kernel/forward_hopper_layout.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "plan/forward_sizes.h"
#include "plan/forward_tiles.h"
#include "plan/portable_params.h"
#include "source/translation_unit.h"
#include "spec/hopper_table.h"

namespace attune {

namespace {

// A stride counts only where there is a next element; the engine asks for some multiple of 16 even then.
std::uint64_t stride_of(std::uint64_t size, kernel::i64 elements, kernel::Element element) {
  constexpr std::uint64_t kAny = 16;
  return size > 1 ? static_cast<std::uint64_t>(elements * bytes_of(element)) : kAny;
}

kernel::HeadScales scales_of(const TensorView& view) {
  return {static_cast<const float*>(view.data), view.strides[0], view.strides[1]};
}

struct Sizes {
  std::int64_t columns, heads, rows, sequences;
};

BoxedTensor boxed(const char* name, kernel::TensorMap& map, kernel::Element element,
                  const kernel::Operand& x, const Sizes& sizes, int box_rows, int box_heads = 1) {
  BoxedTensor tensor;
  tensor.element = element;
  tensor.name = name;
  tensor.map = &map;
  tensor.data = x.data;
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  tensor.sizes = {size(sizes.columns), size(sizes.heads), size(sizes.rows), size(sizes.sequences)};
  tensor.strides = {stride_of(tensor.sizes[1], x.h_stride, element),
                    stride_of(tensor.sizes[2], x.s_stride, element),
                    stride_of(tensor.sizes[3], x.b_stride, element)};
  tensor.box = {static_cast<std::uint32_t>(kernel::panel_columns(element)),
                static_cast<std::uint32_t>(box_heads), static_cast<std::uint32_t>(box_rows), 1};
  return tensor;
}

// Where later queries attend to more keys, tiles either go in pairs, an early and a late one of a head, which
// keeps the keys of few heads in the L2; or, where pairs are too few to keep all `blocks` of threads busy,
// one by one, longest first over all heads.
void order_tiles(std::int64_t blocks, HopperPlan& plan) {
  kernel::ForwardParams& p = plan.params;
  if (p.mask_high >= p.sk || p.mask_low > -p.sq) return;
  const std::int64_t heads = std::int64_t{p.b} * p.hq;
  const std::int64_t pairs = (p.query_blocks + 1) / 2 * heads;
  const std::int64_t rounds = (pairs + blocks - 1) / blocks;
  if (rounds >= 4 || pairs * 10 >= rounds * blocks * 9) {
    plan.pairs = static_cast<std::uint32_t>(pairs);
  } else {
    p.heads_a_slice = static_cast<int>(heads);
  }
}

// Counts the tiles of mates by twos, as their blocks of threads are.
void join_tiles(const Problem& problem, HopperPlan& plan) {
  kernel::ForwardParams& p = plan.params;
  plan.mates = mates_of(plan.spec, problem);
  if (plan.mates == Mates::heads) {
    p.hq /= 2;
    p.heads_a_slice = std::max(1, p.heads_a_slice / 2);
  } else {
    p.query_blocks /= 2;
  }
  p.tiles /= 2;
}

// A cluster a tile, whose rows are of several heads.
Expected<Grid> lay_clusters(const Problem& problem, const DeviceFacts& device, HopperPlan& plan) {
  kernel::ForwardParams& p = plan.params;
  plan.shape = cluster_shape(plan.spec, problem, device.sms);
  const int heads = plan.shape.heads;
  p.pack_shift = std::countr_zero(static_cast<unsigned>(heads));
  const std::int64_t rows = std::max(p.sq, p.lse.padded);
  p.query_blocks = static_cast<int>(forward_query_blocks(rows, plan.spec.queries / heads));
  p.heads_a_slice = p.hq;
  const auto tiles = count_tiles({p.query_blocks, p.hq / heads, p.b});
  if (!tiles.ok()) return tiles.status();
  p.tiles = *tiles;
  constexpr std::int64_t kMostBlocks = 2147483647;
  if (p.tiles > kMostBlocks / plan.shape.splits) plan.shape.splits = 1;
  return fold(p.tiles * plan.shape.splits);
}

}  // namespace

Expected<HopperPlan> plan_forward_hopper(const Problem& problem, const KernelSpec& spec,
                                         const DeviceFacts& device) {
  HopperPlan plan;
  plan.spec = spec.hopper;
  plan.params = params_of(problem);
  if (writes_nothing(problem)) return plan;
  const BlockShape shape = block_shape(spec);
  if (plan.spec.split) {
    const Expected<Grid> grid = lay_clusters(problem, device, plan);
    if (!grid.ok()) return grid.status();
    plan.launches = {{0, *grid, shape.threads, shape.shared_bytes, plan.shape.splits}};
    return plan;
  }
  Expected<Grid> grid = lay_tiles(problem, spec.hopper.queries, device, plan.params);
  if (!grid.ok()) return grid.status();
  // A block a multiprocessor takes tile after tile; where their lengths are known to the device alone, each
  // block takes one, and whoever is free takes the next.
  const bool alike = !problem.packed_q && !problem.packed_k && !problem.key_lengths;
  if (plan.spec.mates) join_tiles(problem, plan);
  const int blocks = plan.spec.mates ? 2 : 1;  // of threads that go together
  if (alike) {
    const std::int64_t at_once = std::min<std::int64_t>(grid->x, std::max(1, device.sms)) / blocks;
    grid->x = std::max<std::int64_t>(1, at_once);
    order_tiles(grid->x, plan);
    grid->x *= blocks;
  }
  plan.launches = {{0, *grid, shape.threads, shape.shared_bytes, plan.spec.mates ? blocks : 0}};
  return plan;
}

kernel::HopperParams complete(const HopperPlan& plan, const Problem& problem,
                              const Arguments& arguments, void*) {
  kernel::HopperParams params{};
  params.f = plan.params;
  params.pairs = plan.pairs;
  params.box_keys = box_keys(plan.spec, problem.page_size);
  params.mates_are_heads = plan.mates == Mates::heads ? 1 : 0;
  take_tensors(problem, arguments, params.f);
  if (problem.descale) {
    params.q_scale = scales_of(arguments.q_scale);
    params.k_scale = scales_of(arguments.k_scale);
    params.v_scale = scales_of(arguments.v_scale);
  }
  return params;
}

BoxedTensors boxes(const HopperPlan& plan, const Problem& problem, kernel::HopperParams& params) {
  const kernel::ForwardParams& f = params.f;
  const int q_sequences = problem.packed_q ? 1 : f.b;
  const int k_sequences = problem.page_size > 0 ? f.pages : problem.packed_k ? 1 : f.b;
  const std::int64_t queries = problem.packed_q ? f.total_q : f.sq;
  const std::int64_t keys = problem.page_size > 0 ? f.page_size
                            : problem.packed_k    ? f.total_k
                                                  : f.sk;
  const int box_keys = params.box_keys;
  BoxedTensors all;
  const int packed = plan.shape.heads;
  const kernel::Element element = plan.spec.element;
  all.add(boxed("q", params.q, element, f.q, {f.d, problem.hq, queries, q_sequences},
                kernel::kGroupRows / packed, packed));
  all.add(boxed("k", params.k, element, f.k, {f.d, f.hkv, keys, k_sequences}, box_keys));
  all.add(boxed("v", params.v, element, f.v, {f.dv, f.hkv, keys, k_sequences}, box_keys));
  if (plan.spec.bias) {
    const kernel::BiasOperand& bias = f.bias;
    const kernel::Operand x{const_cast<void*>(bias.data), bias.b_stride, bias.q_stride,
                            bias.h_stride, 1};
    const std::int64_t heads = problem.bias.broadcast_h ? 1 : problem.hq,
                       sequences = problem.bias.broadcast_b ? 1 : f.b;
    all.add(
        boxed("bias", params.bias, element, x, {f.sk, heads, f.sq, sequences}, plan.spec.queries));
  }
  return all;
}

std::string describe(const HopperPlan& plan) {
  kernel::ForwardParams params = plan.params;
  if (plan.mates == Mates::heads) {
    params.hq *= 2;
    params.heads_a_slice *= 2;
  } else if (plan.mates == Mates::tiles) {
    params.query_blocks *= 2;
  }
  if (plan.mates != Mates::none) params.tiles *= 2;
  std::string text = describe_tiles(plan.launches, plan.spec.queries, plan.spec.keys, params, {});
  if (plan.mates != Mates::none) {
    text += fmt::format("  mates      two blocks of threads fetch keys together, for two {}\n",
                        plan.mates == Mates::heads ? "heads of a group" : "tiles of a head");
  }
  if (kernel::is_eighths(plan.spec)) {
    text +=
        "  weights    rounded to f8e4m3, a row's largest between 2^8 and 2^8.75; their sums are "
        "not\n";
  }
  if (!plan.spec.split || plan.launches.empty()) return text;
  const auto [splits, heads] = plan.shape;
  return text +
         fmt::format("  split      a tile's keys among {} block{}, its rows among {} head{}\n",
                     splits, splits == 1 ? "" : "s", heads, heads == 1 ? "" : "s");
}

}  // namespace attune
