// Forward attention on the CPU.
//
// Schedule. A task is a few panels of query rows of one KV head against its keys, block by block:
//   S^T = K Q^T      [keys][queries]: K rows are broadcast, Q^T (packed once) fills the lanes
//   online softmax   down the columns, so maxima and sums need no horizontal step
//   O^T += V^T P^T   [dv][queries]: V rows are broadcast, P^T fills the lanes
// so neither K nor V is transposed, only copied (and widened) into contiguous blocks. Blocks that no
// row of a panel attends to are skipped; only partly attended ones pay for the mask.
//
// Scratch of a task: Q^T and O^T of each panel, one K and one V block, one score tile; about half
// an L2 cache. When several tasks share a head's keys, the first of them `pack` every block once.
// With `splits` > 1 a task sees one range of keys and leaves (m, l, O^T) behind for
// forward_merge.
#pragma once

#include "cpu/kernel/arith.h"
#include "cpu/kernel/score.h"

namespace attune::cpu::ATTUNE_ISA {

struct Bump {  // hands out 64-byte aligned pieces of scratch memory; counts when base is null
  char* base;
  std::int64_t used;
  template <typename T>
  T* take(std::int64_t count) {
    T* p = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used = round_up(used + count * static_cast<std::int64_t>(sizeof(T)), 64);
    return p;
  }
};

template <typename Arith>
struct Forward {
  using In = typename Arith::In;
  using Out = typename Arith::Out;
  static constexpr int kPanel = Arith::kPanel;
  static constexpr std::int64_t kScoreKeys = Arith::kScoreKeys;  // keys a step, a multiple of 32

  struct Scratch {
    Panel<kPanel>* panels;
    float *q, *o;           // [panels][words][panel], [panels][dv rows][panel]
    float *m, *l;           // [panels][panel]
    float *k, *v, *v_deep;  // one key block
    float *tile, *p;        // scores; P when the Arith stores it apart
    float* marked;          // P of a block whose values hold NaN or Inf
    float *bias, *keep;     // feature tiles
    float* row_scales;      // [panels][panel], of the rows' products
    float* row;             // one widened row block
    std::int64_t q_size, o_size, o_rows;
  };

  static Scratch layout(const ForwardJob& job, char* base, std::int64_t* bytes) {
    Bump bump{base, 0};
    Scratch s{};
    const std::int64_t kb = job.key_block;
    s.o_rows = round_up(job.dv, Arith::kRowMultiple < kLanes ? kLanes : Arith::kRowMultiple);
    s.q_size = Arith::words(job.d) * kPanel;
    s.o_size = s.o_rows * kPanel;
    s.panels = bump.take<Panel<kPanel>>(job.panels_per_task);
    s.q = bump.take<float>(job.panels_per_task * s.q_size);
    s.o = bump.take<float>(job.panels_per_task * s.o_size);
    s.m = bump.take<float>(job.panels_per_task * kPanel);
    s.l = bump.take<float>(job.panels_per_task * kPanel);
    s.k = bump.take<float>(kb * Arith::pitch(job.d));
    s.v = bump.take<float>(kb * Arith::pitch(job.dv));
    s.v_deep = bump.take<float>(Arith::deep_floats(kb, job.dv));
    s.tile = bump.take<float>((Arith::kStoresP ? smaller(kb, kScoreKeys) : kb) * kPanel);
    s.marked = bump.take<float>(kb * kPanel);
    s.p = bump.take<float>(Arith::kStoresP ? kb / Arith::kPair * kPanel : 0);
    s.bias = bump.take<float>(job.bias.layout != BiasLayout::none ? kb * kPanel : 0);
    s.keep = bump.take<float>(job.dropout ? kb * kPanel : 0);
    s.row_scales = bump.take<float>(kScales ? job.panels_per_task * kPanel : 0);
    s.row = bump.take<float>(kLanes * larger(Arith::words(job.d), round_up(job.dv, kLanes)));
    if (bytes != nullptr) *bytes = bump.used;
    return s;
  }

  static void sizes(const ForwardJob& job, KernelSizes* out) {
    *out = {};
    out->panel = kPanel;
    layout(job, nullptr, &out->scratch);
    out->partial = partial_floats(job);
    out->packed = packed_k(job) + packed_v(job);
  }

  static std::int64_t partial_floats(const ForwardJob& job) {
    return 2 * kPanel +
           round_up(job.dv, larger<std::int64_t>(Arith::kRowMultiple, kLanes)) * kPanel;
  }

  // Whether stored numbers may have scales: those of eight bits alone. The scales of q and k are
  // multiplied into the products, few of which are rounded before, and that of v into what divides O.
  static constexpr bool kScales = sizeof(In) == 1;
  static float scale_of(const HeadScales& scales, std::int64_t b, std::int64_t h) {
    return scales.data == nullptr ? 1.0f : scales.data[b * scales.b_stride + h * scales.h_stride];
  }

  // Of each row's products.
  static void set_row_scales(const ForwardJob& job, const Panel<kPanel>& panel, std::int64_t b,
                             float* out) {
    for (std::int64_t r = 0; r < kPanel; ++r) {
      const std::int64_t h = panel.head[r];
      out[r] = scale_of(job.q_scale, b, h) * scale_of(job.k_scale, b, h / job.group);
    }
  }

  static void scale_products(const Part& part, const float* row_scales, float* tile) {
    for (std::int64_t j = 0; j < part.keys.end - part.keys.begin; ++j) {
      for (int n = part.first; n < part.last; ++n) {
        float* at = tile + j * kPanel + n * kLanes;
        store(at, loadf(at) * loadf(row_scales + n * kLanes));
      }
    }
  }

  // Q^T of a panel.
  static void pack_q(const ForwardJob& job, Panel<kPanel>& panel, std::int64_t b, const Scratch& s,
                     float* out) {
    const std::int64_t words = Arith::words(job.d);
    panel.bad = false;
    for (std::int64_t r0 = 0; r0 < kPanel; r0 += kLanes) {
      for (std::int64_t r = 0; r < kLanes; ++r) {
        const In* row = r0 + r < panel.count
                            ? query_row<In>(job, job.q, b, panel.query[r0 + r], panel.head[r0 + r])
                            : nullptr;
        panel.bad |= Arith::pack_row(row, job.q.d_stride, job.d, s.row + r * words);
      }
      scatter_columns(s.row, words, words, out + r0, kPanel);
    }
  }

  // Rows [keys.begin, keys.end) of K or V; zero rows up to a multiple of what products need.
  static bool pack_rows(const AttentionJob& job, const Strided& x, std::int64_t b, std::int64_t hkv,
                        Range keys, std::int64_t n, float* out) {
    const std::int64_t pitch = Arith::pitch(n);
    const std::int64_t count = keys.end - keys.begin;
    const std::int64_t padded = round_up(count, block_multiple());
    bool bad = false;
    for (std::int64_t j = 0; j < padded; ++j) {
      const In* row = j < count ? key_row<In>(job, x, b, keys.begin + j, hkv) : nullptr;
      bad |= Arith::pack_row(row, x.d_stride, n, out + j * pitch);
    }
    return bad;
  }

  // A key block, packed.
  struct Block {
    Range keys;
    const float* k;
    AOperand v;
    bool bad_keys, bad_values;  // K or V holds NaN or Inf
  };

  static std::int64_t packed_k(const ForwardJob& job) {
    return job.key_block * Arith::pitch(job.d);
  }
  static std::int64_t packed_v(const ForwardJob& job) {
    const std::int64_t deep = Arith::deep_floats(job.key_block, job.dv);
    return deep > 0 ? deep : job.key_block * Arith::pitch(job.dv);
  }

  static void pack(const ForwardJob& job, std::int64_t number, char* scratch) {
    const std::int64_t unit = number / job.key_blocks;
    const std::int64_t b = unit / job.hkv, hkv = unit % job.hkv;
    const std::int64_t first = number % job.key_blocks * job.key_block;
    const Range keys{first, smaller(first + job.key_block, job.sequences[b].sk)};
    if (keys.empty()) return;
    float* k = job.packed + number * (packed_k(job) + packed_v(job));
    float* v = k + packed_k(job);
    const bool bad_keys = pack_rows(job, job.k, b, hkv, keys, job.d, k);
    const bool deep = Arith::deep_floats(job.key_block, job.dv) > 0;
    float* rows = deep ? layout(job, scratch, nullptr).v : v;
    const bool bad_values = pack_rows(job, job.v, b, hkv, keys, job.dv, rows);
    job.packed_bad[number] = static_cast<std::uint8_t>((bad_keys ? 2 : 0) | (bad_values ? 1 : 0));
    if (deep) Arith::pack_deep(rows, round_up(keys.end - keys.begin, block_multiple()), job.dv, v);
  }

  // The block of the grid that starts at key j, or as much of it as [reach] touches.
  static Block load_block(const ForwardJob& job, const Scratch& s, std::int64_t b, std::int64_t hkv,
                          std::int64_t j, Range reach) {
    if (job.packed != nullptr) {
      const std::int64_t number = (b * job.hkv + hkv) * job.key_blocks + j / job.key_block;
      const float* k = job.packed + number * (packed_k(job) + packed_v(job));
      const Range keys{j, smaller(j + job.key_block, job.sequences[b].sk)};
      const std::int64_t padded = round_up(keys.end - keys.begin, block_multiple());
      return {keys, k, Arith::deep_operand(k + packed_k(job), padded, job.dv),
              (job.packed_bad[number] & 2) != 0, (job.packed_bad[number] & 1) != 0};
    }
    const std::int64_t lead =
        larger<std::int64_t>(0, reach.begin - j) / block_multiple() * block_multiple();
    const Range keys{j + lead, smaller(j + job.key_block, reach.end)};
    const bool bad_keys = pack_rows(job, job.k, b, hkv, keys, job.d, s.k);
    const bool bad_values = pack_rows(job, job.v, b, hkv, keys, job.dv, s.v);
    const AOperand v =
        Arith::pack_deep(s.v, round_up(keys.end - keys.begin, block_multiple()), job.dv, s.v_deep);
    return {keys, s.k, v, bad_keys, bad_values};
  }

  static constexpr std::int64_t block_multiple() {
    return Arith::kRowMultiple > Arith::kDepthMultiple ? Arith::kRowMultiple
                                                       : Arith::kDepthMultiple;
  }

  // One panel against those keys of a block that it reaches. Scores and exponentials go by short
  // steps that stay in the L1 cache; O^T += V^T P^T waits until the whole block's P is there, or
  // until the mask leaves other vectors of the panel.
  static void visit(const ForwardJob& job, const Scratch& s, std::int64_t index, const Block& block,
                    Range keys, std::int64_t b, std::int64_t hkv) {
    const Panel<kPanel>& panel = s.panels[index];
    // Rows of the product come in multiples; widen to the left edge and zero P to the right.
    keys.begin -= (keys.begin - block.keys.begin) % block_multiple();
    for (std::int64_t j = keys.begin; j < keys.end;) {
      const Part part = part_at(&panel, 1, j, keys.end, block_multiple());
      if (!part.empty()) visit_part(job, s, index, block, part, keys.begin, b, hkv);
      j = part.keys.end;
    }
  }

  static void visit_part(const ForwardJob& job, const Scratch& s, std::int64_t index,
                         const Block& block, const Part& part, std::int64_t first, std::int64_t b,
                         std::int64_t hkv) {
    Part ready = part;  // keys whose P is not in O^T yet
    ready.keys.end = part.keys.begin;
    for (std::int64_t j = part.keys.begin; j < part.keys.end; j += kScoreKeys) {
      const Part step{{j, smaller(j + kScoreKeys, part.keys.end)}, part.first, part.last};
      float* tile = s.tile + (Arith::kStoresP ? 0 : (j - first) * kPanel);
      const float factor = scores(job, s, index, block, step, tile);
      F alphas[kPanel / kLanes];
      if (move_references(job, s, index, step, tile, factor, alphas)) {
        add_values(job, s, index, block, first, ready, b, hkv);
        ready.keys.begin = j;
        rescale(s, index, step, alphas);
      }
      exponentials(job, s, index, step, first, tile, factor, block.bad_values);
      ready.keys.end = step.keys.end;
    }
    add_values(job, s, index, block, first, ready, b, hkv);
  }

  // One tile of K Q^T or V dO^T; bad: where an operand holds NaN or Inf.
  static void products(std::int64_t rows, std::int64_t columns, std::int64_t words, AOperand a,
                       const float* b, float* c, std::int64_t ldc, [[maybe_unused]] bool bad) {
    if constexpr (Arith::kPlainNonfinite) {
      if (bad) return Arith::gemm_plain(rows, columns, words, a, b, kPanel, c, ldc);
    }
    Arith::gemm_rows(rows, columns, words, a, b, kPanel, c, ldc, false);
  }

  // The scores of a step, masked; returns what turns them into units of the row's reference.
  static float scores(const ForwardJob& job, const Scratch& s, std::int64_t index,
                      const Block& block, const Part& part, float* tile) {
    const Panel<kPanel>& panel = s.panels[index];
    const Range keys = part.keys;
    const std::int64_t pitch = Arith::pitch(job.d), lane = part.first * kLanes;
    products(round_up(keys.end - keys.begin, block_multiple()), (part.last - part.first) * kLanes,
             Arith::words(job.d), {block.k + (keys.begin - block.keys.begin) * pitch, pitch, 1},
             s.q + index * s.q_size + lane, tile + lane, kPanel, block.bad_keys || panel.bad);
    if constexpr (kScales) {
      if (job.q_scale.data != nullptr) scale_products(part, s.row_scales + index * kPanel, tile);
    }
    if (job.dropout) dropout_tile(job, panel, part, s.keep, kPanel);
    if (job.features) {
      feature_scores(job, panel, part, tile, kPanel, s.bias, kPanel, nullptr, 0);
      return 1.0f;
    }
    mask_scores(panel, part, tile, kPanel);
    return job.scale * kLog2E;
  }

  // The reference m of a row only moves when it must: until a score exceeds it by 2^kSlack the sums
  // stay far from overflow, and O need not be rescaled. O and l share m, so what is lost is only that
  // exponents near the top are rounded as numbers up to kSlack.
  // Returns whether any row's moved; then alphas say by what O is to be multiplied.
  static bool move_references(const ForwardJob& job, const Scratch& s, std::int64_t index,
                              const Part& part, const float* tile, float factor, F* alphas) {
    const std::int64_t count = part.keys.end - part.keys.begin;
    const float unit = score_unit(job);
    bool moved = false;
    for (int n = part.first; n < part.last; ++n) {
      const std::int64_t lane = n * kLanes;
      F top[4] = {splat(-kInfinity), splat(-kInfinity), splat(-kInfinity), splat(-kInfinity)};
      std::int64_t j = 0;
      for (; j + 4 <= count; j += 4) {
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) top[u] = max(top[u], loadf(tile + (j + u) * kPanel + lane));
      }
      for (; j < count; ++j) top[0] = max(top[0], loadf(tile + j * kPanel + lane));
      const F block_max = max(max(top[0], top[1]), max(top[2], top[3])) * factor;
      const F old_max = loadf(s.m + index * kPanel + lane);
      const I up = block_max > old_max + Arith::kSlack;
      alphas[n] = splat(1.0f);
      if (!any(up)) continue;
      const F new_max = select(up, block_max, old_max);
      // A row that has met no key yet keeps m = -inf; its sums are 0 whatever they are scaled by.
      alphas[n] = exp2((old_max - select(new_max == splat(-kInfinity), F{}, new_max)) * unit);
      store(s.m + index * kPanel + lane, new_max);
      float* l = s.l + index * kPanel + lane;
      store(l, loadf(l) * alphas[n]);
      moved = true;
    }
    return moved;
  }

  static void rescale(const Scratch& s, std::int64_t index, const Part& part, const F* alphas) {
    float* o = s.o + index * s.o_size;
    for (std::int64_t r = 0; r < s.o_rows; ++r) {
      for (int n = part.first; n < part.last; ++n) {
        float* at = o + r * kPanel + n * kLanes;
        store(at, loadf(at) * alphas[n]);
      }
    }
  }

  // O^T += V^T P^T for keys whose P is ready; P starts at key `first`.
  static void add_values(const ForwardJob& job, const Scratch& s, std::int64_t index,
                         const Block& block, std::int64_t first, const Part& part, std::int64_t b,
                         std::int64_t hkv) {
    const Range keys = part.keys;
    if (keys.empty()) return;
    float* o = s.o + index * s.o_size;
    const std::int64_t at = keys.begin - first;
    if (block.bad_values) {
      add_values_one_by_one(job, s.marked + at * kPanel, o, b, hkv, part);
      return;
    }
    const float* p = Arith::kStoresP ? s.p + at / Arith::kPair * kPanel : s.tile + at * kPanel;
    const std::int64_t lane = part.first * kLanes;
    Arith::gemm_deep(round_up(job.dv, Arith::kRowMultiple), (part.last - part.first) * kLanes,
                     round_up(keys.end - keys.begin, Arith::kDepthMultiple),
                     Arith::deep_from(block.v, keys.begin - block.keys.begin), p + lane, kPanel,
                     o + lane, kPanel);
  }

  // Scores -> P (times the dropout tile) as the Arith wants it, and the row sums before dropout.
  static void exponentials(const ForwardJob& job, const Scratch& s, std::int64_t index,
                           const Part& part, std::int64_t first, float* tile, float factor,
                           bool mark) {
    const std::int64_t count = part.keys.end - part.keys.begin, at = part.keys.begin - first;
    for (int n = part.first; n < part.last; ++n) {
      const std::int64_t lane = n * kLanes;
      const F m = loadf(s.m + index * kPanel + lane);
      const F base = select(m == splat(-kInfinity), F{}, m);
      float* l = s.l + index * kPanel + lane;
      const float* keep = job.dropout ? s.keep + lane : nullptr;
      float* marked = mark ? s.marked + at * kPanel + lane : nullptr;
      float* p = s.p + at / Arith::kPair * kPanel + lane;
      const std::int64_t padded = round_up(count, block_multiple());
      const F sum =
          job.features
              ? exponentials_of<true>(tile + lane, p, count, padded, factor, base, keep, marked)
              : exponentials_of<false>(tile + lane, p, count, padded, factor, base, keep, marked);
      store(l, loadf(l) + sum);
    }
  }

  // One column of vectors. `marked`, when not null, receives P as floats with masked elements -0,
  // so that add_values_one_by_one can tell them from underflow.
  template <bool kFeatures>
  static ATTUNE_INLINE F exponentials_of(float* tile, [[maybe_unused]] float* p, std::int64_t count,
                                         [[maybe_unused]] std::int64_t padded, float factor, F base,
                                         const float* keep, float* marked) {
    F sum[2] = {F{}, F{}};
    const F scale = splat(factor);
    auto one = [&](std::int64_t j, F* total) ATTUNE_LAMBDA_INLINE {
      const F s = loadf(tile + j * kPanel);
      F x = exp2<Arith::kExpDegree>(exponent<kFeatures>(s, scale, base));
      *total += x;
      if (keep != nullptr) x *= loadf(keep + j * kPanel);
      if (marked != nullptr) {
        store(marked + j * kPanel, select(s == splat(-kInfinity), splat(-0.0f), x));
      }
      return x;
    };
    if constexpr (!Arith::kStoresP) {
      std::int64_t j = 0;
      for (; j + 2 <= count; j += 2) {
        const F low = one(j, &sum[0]);
        const F high = one(j + 1, &sum[1]);
        store(tile + j * kPanel, low);
        store(tile + (j + 1) * kPanel, high);
      }
      if (j < count) store(tile + j * kPanel, one(j, &sum[0]));
    } else {
      std::int64_t j = 0;
      for (; j + 2 <= count; j += 2) {
        const F low = one(j, &sum[0]);
        const F high = one(j + 1, &sum[1]);
        Arith::store_pair(p, kPanel, j, low, high);
      }
      if (j < count) {
        Arith::store_pair(p, kPanel, j, one(j, &sum[0]), F{});
        j += 2;
      }
      for (; j < padded; j += 2) Arith::store_pair(p, kPanel, j, F{}, F{});
    }
    return sum[0] + sum[1];
  }

  // O^T += V^T P^T without letting a masked lane meet a NaN or an infinity.
  static void add_values_one_by_one(const ForwardJob& job, const float* marked, float* o,
                                    std::int64_t b, std::int64_t hkv, const Part& part) {
    const Range keys = part.keys;
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
      const In* row = key_row<In>(job, job.v, b, j, hkv);
      const float* p = marked + (j - keys.begin) * kPanel;
      for (std::int64_t c = 0; c < job.dv; ++c) {
        const F value = splat(to_float(row[c * job.v.d_stride]));
        for (int n = part.first; n < part.last; ++n) {
          const F weight = loadf(p + n * kLanes);
          const I masked = reinterpret_cast<I>(as_u(weight)) == splat(INT32_MIN);
          float* at = o + c * kPanel + n * kLanes;
          store(at, loadf(at) + select(masked, F{}, weight * value));
        }
      }
    }
  }

  // Divides, writes O and the LSE of one panel.
  static void finish(const ForwardJob& job, const Panel<kPanel>& panel, std::int64_t b,
                     const float* m, const float* l, const float* o, float* rows) {
    const std::int64_t width = round_up(job.dv, kLanes);
    const float unit = score_unit(job);
    for (int n = 0; n < panel.vectors; ++n) {
      const std::int64_t lane0 = n * kLanes;
      F scale{};
      for (int lane = 0; lane < kLanes && lane0 + lane < panel.count; ++lane) {
        const std::int64_t r = lane0 + lane;
        float top = m[r], sum = l[r];
        float shrink = 1.0f;
        if (job.sink != nullptr) {
          const float sink = job.sink[panel.head[r] * job.sink_stride] * (kLog2E / unit);
          const float with = top > sink ? top : sink;
          const float base = with == -kInfinity ? 0.0f : with;
          shrink = exp2(splat((top - base) * unit))[0];
          sum = sum * shrink + exp2(splat((sink - base) * unit))[0];
          top = with;
        }
        scale[lane] = sum == 0.0f ? 0.0f : shrink / sum;
        if constexpr (kScales) scale[lane] *= scale_of(job.v_scale, b, panel.head[r] / job.group);
        if (job.lse != nullptr) {
          // In double: where the reference lags behind the maximum the terms cancel.
          const double lse = sum == 0.0f ? -__builtin_inf()
                                         : (double{top} * unit + double{log2(sum)}) * kLn2Double;
          job.lse[lse_index(job, b, panel.head[r], panel.query[r], job.lse_b_stride,
                            job.lse_h_stride, job.lse_stride)] = static_cast<float>(lse);
        }
      }
      for (std::int64_t c = 0; c < width; c += kLanes) {
        F x[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) x[i] = loadf(o + (c + i) * kPanel + lane0) * scale;
        transpose(x);
        for (int lane = 0; lane < kLanes && lane0 + lane < panel.count; ++lane) {
          store(rows + lane * width + c, x[lane]);
        }
      }
      for (int lane = 0; lane < kLanes && lane0 + lane < panel.count; ++lane) {
        const std::int64_t r = lane0 + lane;
        Out* out = query_row<Out>(job, job.o, b, panel.query[r], panel.head[r]);
        narrow_row(rows + lane * width, 1.0f, job.dv, out, job.o.d_stride);
      }
    }
  }

  struct Position {
    std::int64_t row_block, b, hkv, split;
  };
  // Row blocks innermost, so that neighbouring tasks find a head's keys in their caches; under a
  // causal mask the longest first, so that the last tasks of all are short ones.
  static Position decode(const ForwardJob& job, std::int64_t task) {
    Position at{};
    at.split = task % job.splits;
    task /= job.splits;
    const std::int64_t block = task % job.row_blocks;
    at.row_block = job.causal ? job.row_blocks - 1 - block : block;
    task /= job.row_blocks;
    at.hkv = task % job.hkv;
    at.b = task / job.hkv;
    return at;
  }

  static float* partial(const ForwardJob& job, Position at, std::int64_t split,
                        std::int64_t panel) {
    const std::int64_t task =
        ((at.b * job.hkv + at.hkv) * job.row_blocks + at.row_block) * job.splits + split;
    return job.partials + (task * job.panels_per_task + panel) * partial_floats(job);
  }

  static void task(const ForwardJob& job, std::int64_t number, char* scratch) {
    [[maybe_unused]] const typename Arith::Session session{};
    const Position at = decode(job, number);
    const Sequence& seq = job.sequences[at.b];
    const std::int64_t first_row = at.row_block * job.panels_per_task * kPanel;
    const std::int64_t rows = job.group * seq.sq - first_row;
    if (rows <= 0) return;
    const std::int64_t panels = smaller(job.panels_per_task, (rows + kPanel - 1) / kPanel);
    const Scratch s = layout(job, scratch, nullptr);

    Range reach{seq.sk, 0};
    for (std::int64_t p = 0; p < panels; ++p) {
      s.panels[p].set(job, at.b, at.hkv, first_row + p * kPanel);
      reach.begin = smaller(reach.begin, s.panels[p].reach.begin);
      reach.end = larger(reach.end, s.panels[p].reach.end);
      pack_q(job, s.panels[p], at.b, s, s.q + p * s.q_size);
      if constexpr (kScales) set_row_scales(job, s.panels[p], at.b, s.row_scales + p * kPanel);
    }
    for (std::int64_t i = 0; i < panels * s.o_size; i += kLanes) store(s.o + i, F{});
    for (std::int64_t i = 0; i < panels * kPanel; i += kLanes) {
      store(s.m + i, splat(-kInfinity));
      store(s.l + i, F{});
    }
    if (job.splits > 1) {
      reach.begin = larger(reach.begin, at.split * job.split_keys);
      reach.end = smaller(reach.end, (at.split + 1) * job.split_keys);
    }
    // Blocks lie on a fixed grid, so that a row's sums do not depend on which rows share its task.
    for (std::int64_t j = reach.begin / job.key_block * job.key_block; j < reach.end;
         j += job.key_block) {
      const Block block = load_block(job, s, at.b, at.hkv, j, reach);
      for (std::int64_t p = 0; p < panels; ++p) {
        const Range keys{larger(larger(block.keys.begin, reach.begin), s.panels[p].reach.begin),
                         smaller(smaller(block.keys.end, reach.end), s.panels[p].reach.end)};
        if (!keys.empty()) visit(job, s, p, block, keys, at.b, at.hkv);
      }
    }
    for (std::int64_t p = 0; p < panels; ++p) {
      if (job.splits == 1) {
        finish(job, s.panels[p], at.b, s.m + p * kPanel, s.l + p * kPanel, s.o + p * s.o_size,
               s.row);
        continue;
      }
      float* out = partial(job, at, at.split, p);
      std::memcpy(out, s.m + p * kPanel, kPanel * sizeof(float));
      std::memcpy(out + kPanel, s.l + p * kPanel, kPanel * sizeof(float));
      std::memcpy(out + 2 * kPanel, s.o + p * s.o_size,
                  static_cast<std::size_t>(s.o_size) * sizeof(float));
    }
  }

  // Joins the splits of one task's rows, in the order of their keys: O = sum 2^(m_s - m) O_s.
  static void merge(const ForwardJob& job, std::int64_t number, char* scratch) {
    const Position at = decode(job, number * job.splits);
    const Sequence& seq = job.sequences[at.b];
    const Scratch s = layout(job, scratch, nullptr);
    for (std::int64_t p = 0; p < job.panels_per_task; ++p) {
      const std::int64_t row = (at.row_block * job.panels_per_task + p) * kPanel;
      if (row >= job.group * seq.sq) return;
      s.panels[0].set(job, at.b, at.hkv, row);
      for (int n = 0; n < s.panels[0].vectors; ++n) {
        const std::int64_t lane = n * kLanes;
        F top = splat(-kInfinity);
        for (std::int64_t i = 0; i < job.splits; ++i)
          top = max(top, loadf(partial(job, at, i, p) + lane));
        const F base = select(top == splat(-kInfinity), F{}, top);
        F sum{};
        for (std::int64_t i = 0; i < job.splits; ++i) {
          const float* part = partial(job, at, i, p);
          const F weight = exp2((loadf(part + lane) - base) * score_unit(job));
          sum += loadf(part + kPanel + lane) * weight;
          for (std::int64_t r = 0; r < s.o_rows; ++r) {
            float* o = s.o + r * kPanel + lane;
            const F add = loadf(part + 2 * kPanel + r * kPanel + lane) * weight;
            store(o, i == 0 ? add : loadf(o) + add);
          }
        }
        store(s.m + lane, top);
        store(s.l + lane, sum);
      }
      finish(job, s.panels[0], at.b, s.m, s.l, s.o, s.row);
    }
  }

  static constexpr ForwardKernel kernel() { return {sizes, pack, task, merge}; }
};

}  // namespace attune::cpu::ATTUNE_ISA
