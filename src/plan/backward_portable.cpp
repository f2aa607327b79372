#include "plan/backward_portable.h"

#include <attune/kernel/backward_portable_layout.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <utility>

#include "plan/portable_params.h"
#include "problem/strides.h"
#include "source/translation_unit.h"

namespace attune {

namespace {

using kernel::BackwardParams;
using kernel::BiasGradient;
using kernel::ForwardParams;
using i64 = std::int64_t;

// (sequence, key head) pairs whose queries, dO and sums of dQ fill half of the L2 cache. Blocks of keys of
// one head that take turns in dQ wait for each other: few of them at a time, then, and more heads.
int heads_a_slice(const Problem& problem, const kernel::PortableSpec& row,
                  const DeviceFacts& device) {
  const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
  constexpr std::int64_t kSum = sizeof(float);
  std::int64_t bytes = problem.sq * (problem.d * (size + kSum) + problem.dv * size), heads = 1;
  if (!__builtin_mul_overflow(bytes, problem.hq / problem.hkv, &bytes)) {
    heads = fill_half_the_cache(bytes, device);
  }
  constexpr std::int64_t kTurnTakers = 4;
  if (problem.deterministic) {
    heads = std::max(heads, ceil_div(std::int64_t{device.sms} * row.blocks, kTurnTakers));
  }
  const std::int64_t all = std::max<std::int64_t>(1, problem.b) * problem.hkv;
  return static_cast<int>(std::min<std::int64_t>({heads, all, std::numeric_limits<int>::max()}));
}

// Elements of the bias's gradient; check_arguments() holds that they fit 63 bits.
i64 elements_of(const Problem& problem) {
  const Bias& bias = problem.bias;
  return (bias.broadcast_b ? 1 : problem.b) * (bias.broadcast_h ? 1 : problem.hq) *
         (bias.broadcast_q ? 1 : problem.sq) * (bias.broadcast_k ? 1 : problem.sk);
}

class Planner {
 public:
  Planner(const Problem& problem, const KernelSpec& spec, const DeviceFacts& device)
      : problem_(problem), spec_(spec), row_(spec.portable), device_(device) {}

  Expected<BackwardPlan> make() {
    plan_.spec = row_;
    plan_.params.f = params_of(problem_);
    if (writes_nothing(problem_)) return std::move(plan_);
    for (const auto step : {&Planner::tiles, &Planner::bias, &Planner::per_head,
                            &Planner::workspace, &Planner::launches}) {
      if (Status status = (this->*step)(); !status.ok()) return status;
    }
    return std::move(plan_);
  }

 private:
  Status tiles() {
    BackwardParams& p = plan_.params;
    ForwardParams& f = p.f;
    // Even without rows or keys: tokens of no sequence are written too.
    f.query_blocks = static_cast<int>(std::max<i64>(1, ceil_div(f.sq, row_.queries)));
    p.key_blocks = static_cast<int>(std::max<i64>(1, ceil_div(f.sk, row_.keys)));
    f.heads_a_slice = heads_a_slice(problem_, row_, device_);
    p.row_blocks = problem_.packed_q ? f.total_q / row_.queries + static_cast<i64>(f.b)
                                     : static_cast<i64>(f.b) * f.query_blocks;
    const auto tiles = count_tiles({f.query_blocks, f.hq, f.b});
    if (!tiles.ok()) return tiles.status();
    f.tiles = *tiles;
    const auto key_tiles = count_tiles({p.key_blocks, f.hkv, f.b});
    if (!key_tiles.ok()) return key_tiles.status();
    p.key_tiles = *key_tiles;
    const auto sums = count_tiles({p.row_blocks, f.hq});
    if (!sums.ok()) return sums.status();
    query_sums_ = *sums;
    return {};
  }

  // A tile of the gradient sums over what the bias is broadcast along, if anything. Where the tiles are
  // too few for
  // the multiprocessors, several blocks of threads share a tile's sum.
  Status bias() {
    BiasGradient& g = plan_.params.grad_bias;
    g.parts = 1;
    bias_elements_ = problem_.bias.grad ? elements_of(problem_) : 0;
    if (bias_elements_ == 0) return {};
    const Bias& bias = problem_.bias;
    const BackwardParams& p = plan_.params;
    g.one_b = bias.broadcast_b ? 1 : 0;
    g.one_h = bias.broadcast_h ? 1 : 0;
    g.one_q = bias.broadcast_q ? 1 : 0;
    g.one_k = bias.broadcast_k ? 1 : 0;
    g.sq = static_cast<int>(problem_.sq);
    g.sk = static_cast<int>(problem_.sk);
    if ((g.one_b | g.one_h | g.one_q | g.one_k) == 0) return {};  // written by the keys kernel
    const auto tiles =
        count_tiles({bias.broadcast_b ? 1 : problem_.b, bias.broadcast_h ? 1 : problem_.hq,
                     bias.broadcast_q ? 1 : ceil_div(g.sq, row_.queries),
                     bias.broadcast_k ? 1 : ceil_div(g.sk, row_.keys)});
    if (!tiles.ok()) return tiles.status();
    const auto steps =
        count_tiles({bias.broadcast_b ? p.f.b : 1, bias.broadcast_h ? p.f.hq : 1,
                     bias.broadcast_q ? p.f.query_blocks : 1, bias.broadcast_k ? p.key_blocks : 1});
    if (!steps.ok()) return steps.status();
    const i64 wanted = ceil_div(i64{2} * device_.sms, *tiles);
    g.parts = static_cast<int>(std::clamp<i64>(wanted, 1, *steps));
    const auto all = count_tiles({*tiles, g.parts});
    if (!all.ok()) return all.status();
    g.tiles = *all;
    if (g.parts > 1) {
      plan_.params.bias_tiles = ceil_div(bias_elements_, kernel::kBiasSumElements);
    }
    return {};
  }

  // What the finish kernel adds up beside dQ: a block of threads a sink and a slope.
  Status per_head() {
    BackwardParams& p = plan_.params;
    if (problem_.sink_grad) p.sink_tiles = p.f.hq;
    if (!problem_.alibi_grad) return {};
    const i64 slopes =
        problem_.alibi == PerHead::batch_head ? problem_.b * problem_.hq : problem_.hq;
    constexpr i64 kMost = std::numeric_limits<int>::max();
    if (slopes > kMost) {
      return {
          Code::unsupported,
          fmt::format("alibi_slopes has b * hq = {} * {} slopes; the gradients of at most {} are "
                      "computed on a GPU: use device=cpu",
                      problem_.b, problem_.hq, kMost)};
    }
    p.alibi_tiles = static_cast<int>(slopes);
    return {};
  }

  Status workspace() {
    const BackwardParams& p = plan_.params;
    const ForwardParams& f = p.f;
    BackwardWorkspace& w = plan_.workspace;
    const i64 columns = kernel::backward_columns(row_, f.d);
    const i64 all_columns = columns + kernel::backward_columns(row_, f.dv);
    const bool wide = row_.head_dim == 0;
    const bool sums = p.grad_bias.parts > 1;
    constexpr i64 kFloat = sizeof(float);
    WorkspaceLayout layout;
    const auto add = [&](WorkspacePiece& piece, const char* name, bool needed, i64 unit,
                         std::initializer_list<i64> counts) -> Status {
      return needed ? layout.add(piece, name, unit, counts) : Status{};
    };
    for (const Status& status : {
             add(w.rows, "LSE and delta of the rows", true, sizeof(kernel::RowFacts),
                 {query_sums_, row_.queries}),
             add(w.grad_q_sum, "dQ in float32", true, kFloat, {query_sums_, row_.queries, columns}),
             add(w.key_sum, "dK and dV in float32, as the head dim has no bound", wide, kFloat,
                 {p.key_tiles, row_.keys, all_columns}),
             add(w.alibi_parts, "parts of the slopes' gradients", problem_.alibi_grad, kFloat,
                 {f.b, f.hq, p.key_blocks}),
             add(w.sink_parts, "parts of the sinks' gradients", problem_.sink_grad, kFloat,
                 {f.b, f.hq, f.query_blocks, row_.warps}),
             add(w.bias_sums, "parts of the bias's gradient", sums, kFloat,
                 {p.grad_bias.parts, bias_elements_}),
             add(w.turns, "turns in dQ", problem_.deterministic, sizeof(kernel::u32),
                 {query_sums_ + 1}),
         }) {
      if (!status.ok()) return status;
    }
    plan_.workspace_bytes = layout.bytes();
    return {};
  }

  Status launches() {
    const BackwardParams& p = plan_.params;
    i64 finish = p.f.tiles;
    for (const i64 more : {i64{p.sink_tiles}, i64{p.alibi_tiles}, i64{p.bias_tiles}}) {
      if (!__builtin_add_overflow(finish, more, &finish)) continue;
      return {Code::unsupported,
              fmt::format("the problem has {} + {} tiles, more than 2^63", p.f.tiles, more)};
    }
    const auto entries = entries_of(spec_);
    const BlockShape shape = block_shape(spec_);
    for (const auto& [entry, tiles] :
         {std::pair{kRowsEntry, i64{p.f.tiles}}, std::pair{kKeysEntry, i64{p.key_tiles}},
          std::pair{kBiasEntry, i64{p.grad_bias.tiles}}, std::pair{kFinishEntry, finish}}) {
      if (tiles == 0) continue;
      const Expected<Grid> grid = fold(tiles);
      if (!grid.ok()) return grid.status();
      const int shared =
          entry == kBiasEntry ? kernel::backward_bias_shared_bytes(row_) : shape.shared_bytes;
      plan_.launches.push_back({entry, *grid, shape.threads, entries[entry].shared ? shared : 0});
    }
    return {};
  }

  const Problem& problem_;
  const KernelSpec& spec_;
  const kernel::PortableSpec& row_;
  const DeviceFacts& device_;
  BackwardPlan plan_;
  i64 query_sums_ = 0;  // tiles of dQ in float32
  i64 bias_elements_ = 0;
};

struct NamedView {
  const char* name;
  const TensorView* view;
};

}  // namespace

Expected<BackwardPlan> plan_backward_portable(const Problem& problem, const KernelSpec& spec,
                                              const DeviceFacts& device) {
  return Planner(problem, spec, device).make();
}

Status check_gradients(const BackwardPlan& plan, const Problem& problem,
                       const Arguments& arguments) {
  if (!plan.spec.aligned) return {};
  for (const auto& [name, view] :
       {NamedView{"grad_o", &arguments.grad_o}, NamedView{"grad_q", &arguments.grad_q},
        NamedView{"grad_k", &arguments.grad_k}, NamedView{"grad_v", &arguments.grad_v}}) {
    if (row_alignment(*view) >= kMostRowAlignment) continue;
    const std::size_t size = size_of(problem.dtype);
    return {Code::invalid_argument,
            fmt::format("{} is {}: the plan's kernel loads and stores {} bytes at a time, so "
                        "elements of a row must be neighbours, and all other strides multiples of "
                        "{}. Lay it out so, or plan with align={}, for a kernel that takes any "
                        "strides",
                        name, to_string(*view), kMostRowAlignment,
                        static_cast<std::size_t>(kMostRowAlignment) / size, size)};
  }
  return {};
}

kernel::BackwardParams complete(const BackwardPlan& plan, const Problem& problem,
                                const Arguments& arguments, void* workspace) {
  BackwardParams p = plan.params;
  take_tensors(problem, arguments, p.f);
  p.grad_o = operand(arguments.grad_o, problem.packed_q);
  p.grad_q = operand(arguments.grad_q, problem.packed_q);
  p.grad_k = operand(arguments.grad_k, problem.packed_k);
  p.grad_v = operand(arguments.grad_v, problem.packed_k);
  if (problem.lse_grad) {
    const kernel::LseOutput lse = lse_of(arguments.grad_lse, p.f.lse);
    p.grad_lse = lse.data;
    p.grad_lse_b_stride = lse.b_stride;
    p.grad_lse_h_stride = lse.h_stride;
    p.grad_lse_s_stride = lse.s_stride;
  }
  if (problem.sink_grad) {
    p.grad_sink = static_cast<float*>(arguments.grad_sink.data);
    p.grad_sink_stride = arguments.grad_sink.strides[0];
  }
  if (problem.alibi_grad) {
    const TensorView& slopes = arguments.grad_alibi_slopes;
    const bool per_batch = problem.alibi == PerHead::batch_head;
    p.grad_alibi = static_cast<float*>(slopes.data);
    p.grad_alibi_b_stride = per_batch ? slopes.strides[0] : 0;
    p.grad_alibi_h_stride = slopes.strides[per_batch ? 1 : 0];
  }
  if (problem.bias.grad) {
    const TensorView& bias = arguments.grad_bias;
    BiasGradient& g = p.grad_bias;
    g.data = bias.data;
    g.b_stride = problem.bias.broadcast_b ? 0 : bias.strides[0];
    g.h_stride = problem.bias.broadcast_h ? 0 : bias.strides[1];
    g.q_stride = problem.bias.broadcast_q ? 0 : bias.strides[2];
    g.k_stride = problem.bias.broadcast_k ? 0 : bias.strides[3];
    g.element = element_of(bias.dtype);
    g.sums = plan.workspace.bias_sums.in<float>(workspace);
  }
  const BackwardWorkspace& w = plan.workspace;
  p.rows = w.rows.in<kernel::RowFacts>(workspace);
  p.grad_q_sum = w.grad_q_sum.in<float>(workspace);
  p.key_sum = w.key_sum.in<float>(workspace);
  p.alibi_parts = w.alibi_parts.in<float>(workspace);
  p.sink_parts = w.sink_parts.in<float>(workspace);
  p.turns = w.turns.in<kernel::u32>(workspace);
  return p;
}

std::string describe(const BackwardPlan& plan) {
  if (plan.launches.empty()) return "  grid       none: no result has an element\n";
  const BackwardParams& p = plan.params;
  const ForwardParams& f = p.f;
  constexpr std::array<const char*, 4> kNames = {"keys", "rows", "finish", "bias"};
  int shared = 0;
  for (const KernelLaunch& launch : plan.launches) shared = std::max(shared, launch.shared_bytes);
  std::string text =
      fmt::format("  tile       {} queries x {} keys, {} threads, {} bytes of shared memory\n",
                  plan.spec.queries, plan.spec.keys, plan.launches.front().threads, shared);
  for (const KernelLaunch& launch : plan.launches) {
    text += fmt::format("  {:<9}  blocks as {} x {}", kNames[launch.entry], launch.grid.x,
                        launch.grid.y);
    switch (launch.entry) {
      case kRowsEntry:
        text += fmt::format(": {} of queries, {} heads, {} sequences", f.query_blocks, f.hq, f.b);
        break;
      case kKeysEntry:
        text += fmt::format(": {} of keys, {} key heads, {} sequences; {} heads share the L2",
                            p.key_blocks, f.hkv, f.b, f.heads_a_slice);
        break;
      case kBiasEntry:
        text += fmt::format(": each sum in {} part{}", p.grad_bias.parts,
                            p.grad_bias.parts == 1 ? "" : "s");
        break;
      default:
        text += fmt::format(": {} of queries, {} sinks, {} slopes, {} of bias sums", f.tiles,
                            p.sink_tiles, p.alibi_tiles, p.bias_tiles);
    }
    text += '\n';
  }
  text += fmt::format("  workspace  {} bytes", plan.workspace_bytes);
  const BackwardWorkspace& w = plan.workspace;
  const char* separator = ": ";
  for (const WorkspacePiece* piece : {&w.rows, &w.grad_q_sum, &w.key_sum, &w.alibi_parts,
                                      &w.sink_parts, &w.bias_sums, &w.turns}) {
    if (piece->bytes == 0) continue;
    text += fmt::format("{}{} {}", std::exchange(separator, ", "), piece->bytes, piece->name);
  }
  return text + '\n';
}

}  // namespace attune
