// Backward attention on the CPU: every gradient in one walk over the scores.
//
// prepare  packs Q and dO of each panel once, in both forms that products need, and computes
//          delta = sum dO o O - dLSE of each row.
// task     owns one block of keys. For each step of query panels that reaches it, in order:
//            S^T = K Q^T, dP^T = V dO^T          [keys][queries], lanes are queries
//            P = 2^(S - LSE), dS = P (dP - delta)
//            dV += P^T dO, dK += dS^T Q          sums of this task alone
//            dQ^T += K^T dS^T                    shared: key blocks add in turn, lowest first
// finish   scales, transposes and rounds dQ of each panel.
//
// Waiting for the turn is what makes the sums independent of threads. Tasks are handed out with
// lower key blocks first, so the one that is waited for has always started.
#pragma once

#include "cpu/kernel/forward.h"

namespace attune::cpu::ATTUNE_ISA {

template <typename Arith>
struct Backward {
  using In = typename Arith::In;
  static constexpr int kPanel = Arith::kPanel;
  static constexpr int kStepPanels = 2;
  static constexpr std::int64_t kStep = kStepPanels * kPanel;  // queries a step

  struct Scratch {
    float *k, *v;             // rows form
    float* k_deep;            // K as the sum over keys wants it
    float *dk, *dv;           // [keys][d_cols], [keys][dv_cols]
    float *p, *ds;            // [keys][kStep] floats: scores then P; dP then dS
    float *p_rows, *ds_rows;  // A operands with queries along a row, when the Arith stores P apart
    float* ds_pairs;          // B operand [keys / 2][kStep]
    float *bias, *slope, *keep;
    float *row, *columns;  // one panel of rows, and transposed
    Panel<kPanel>* panels;
    double* alibi;  // [group]
    std::int64_t d_cols, dv_cols;
  };

  static std::int64_t key_multiple() { return Forward<Arith>::block_multiple(); }
  static std::int64_t d_rows(std::int64_t d) {
    return round_up(d, larger<std::int64_t>(Arith::kRowMultiple, kLanes));
  }

  static Scratch layout(const BackwardJob& job, char* base, std::int64_t* bytes) {
    Bump bump{base, 0};
    Scratch s{};
    const std::int64_t kb = job.key_block;
    s.d_cols = Arith::column_pitch(job.d);
    s.dv_cols = Arith::column_pitch(job.dv);
    s.k = bump.take<float>(kb * Arith::pitch(job.d));
    s.v = bump.take<float>(kb * Arith::pitch(job.dv));
    s.k_deep = bump.take<float>(Arith::deep_floats(kb, job.d));
    s.dk = bump.take<float>(kb * s.d_cols);
    s.dv = bump.take<float>(kb * s.dv_cols);
    s.p = bump.take<float>(kb * kStep);
    s.ds = bump.take<float>(kb * kStep);
    if (Arith::kStoresP) {
      s.p_rows = bump.take<float>(kb * kStep / Arith::kPair);
      s.ds_rows = bump.take<float>(kb * kStep / Arith::kPair);
      s.ds_pairs = bump.take<float>(kb / Arith::kPair * kStep);
    }
    s.bias = bump.take<float>(job.features ? kb * kPanel : 0);
    s.slope = bump.take<float>(job.softcap > 0 ? kb * kPanel : 0);
    s.keep = bump.take<float>(job.dropout ? kb * kPanel : 0);
    const std::int64_t wide = larger(larger(Arith::words(job.d), Arith::words(job.dv)),
                                     larger(d_rows(job.d), d_rows(job.dv)));
    s.row = bump.take<float>(kPanel * wide);
    s.columns = bump.take<float>(Arith::kStoresP ? 0 : kPanel * Arith::words(job.dv));
    s.panels = bump.take<Panel<kPanel>>(kStepPanels);
    s.alibi = bump.take<double>(job.group);
    if (bytes != nullptr) *bytes = bump.used;
    return s;
  }

  static void sizes(const BackwardJob& job, KernelSizes* out) {
    *out = {};
    out->panel = kPanel;
    out->step_panels = kStepPanels;
    layout(job, nullptr, &out->scratch);
    out->panel_q = Arith::words(job.d) * kPanel * 4;
    out->panel_o = Arith::words(job.dv) * kPanel * 4;
    out->panel_q_rows = kPanel / Arith::kPair * Arith::column_pitch(job.d) * 4;
    out->panel_o_rows = kPanel / Arith::kPair * Arith::column_pitch(job.dv) * 4;
    out->partial = d_rows(job.d) * kPanel;  // floats of dQ of one panel
  }

  // ---- prepare -------------------------------------------------------------------------------

  // Both packed forms of one panel of Q or dO.
  static bool pack_queries(const BackwardJob& job, const Strided& x, std::int64_t b, std::int64_t n,
                           const Panel<kPanel>& panel, float* rows, char* columns_out,
                           char* rows_out) {
    const std::int64_t words = Arith::words(n);
    bool bad = false;
    for (std::int64_t r = 0; r < kPanel; ++r) {
      const In* row =
          r < panel.count ? query_row<In>(job, x, b, panel.query[r], panel.head[r]) : nullptr;
      bad |= Arith::pack_row(row, x.d_stride, n, rows + r * words);
    }
    for (std::int64_t r = 0; r < kPanel; r += kLanes) {
      scatter_columns(rows + r * words, words, words, reinterpret_cast<float*>(columns_out) + r,
                      kPanel);
    }
    Arith::pack_pairs(rows, words, kPanel, n, reinterpret_cast<float*>(rows_out));
    return bad;
  }

  static void prepare(const BackwardJob& job, std::int64_t number, char* scratch) {
    const std::int64_t p = number % job.panels;
    const std::int64_t unit = number / job.panels;
    const std::int64_t b = unit / job.hkv, hkv = unit % job.hkv;
    const Scratch s = layout(job, scratch, nullptr);
    Panel<kPanel>& panel = s.panels[0];
    panel.set(job, b, hkv, p * kPanel);
    const std::int64_t at = unit * job.panels + p;
    KernelSizes z{};
    sizes(job, &z);
    bool bad = pack_queries(job, job.q, b, job.d, panel, s.row, job.q_columns + at * z.panel_q,
                            job.q_rows + at * z.panel_q_rows);
    bad |= pack_queries(job, job.grad_o, b, job.dv, panel, s.row, job.o_columns + at * z.panel_o,
                        job.o_rows + at * z.panel_o_rows);
    float* sum = job.grad_q_sum + at * z.partial;
    for (std::int64_t i = 0; i < z.partial; i += kLanes) store(sum + i, F{});
    alignas(64) float deltas[kPanel];
    panel_deltas(job, s, panel, b, reinterpret_cast<const float*>(job.o_columns + at * z.panel_o),
                 deltas);
    for (std::int64_t r = 0; r < kPanel; ++r) {
      float row_lse = kInfinity, delta = 0.0f;
      if (r < panel.count) {
        const std::int64_t i = panel.query[r], h = panel.head[r];
        const float lse =
            job.lse[lse_index(job, b, h, i, job.lse_b_stride, job.lse_h_stride, job.lse_stride)];
        // A row without keys has LSE -inf; +inf makes each of its probabilities exactly 0.
        row_lse = lse == -kInfinity ? kInfinity : lse * (kLog2E / score_unit(job));
        delta = lse == -kInfinity ? 0.0f : deltas[r] - incoming_lse(job, b, h, i);
        bad |= !(lse < kInfinity) || !(delta - delta == 0.0f);
      }
      job.row_lse[at * kPanel + r] = row_lse;
      job.delta[at * kPanel + r] = delta;
    }
    job.bad_rows[at] = bad ? 1 : 0;
  }

  // sum dO o O of each row. With float products the terms are added in the order in which dP adds
  // its own, so that where O is V - one key - dP - delta cancels to exactly 0, as it should.
  static void panel_deltas(const BackwardJob& job, const Scratch& s, const Panel<kPanel>& panel,
                           std::int64_t b, [[maybe_unused]] const float* grad_columns,
                           float* deltas) {
    if constexpr (!Arith::kStoresP) {
      const std::int64_t words = Arith::words(job.dv);
      for (std::int64_t r = 0; r < kPanel; ++r) {
        const In* row =
            r < panel.count ? query_row<In>(job, job.o, b, panel.query[r], panel.head[r]) : nullptr;
        Arith::pack_row(row, job.o.d_stride, job.dv, s.row + r * words);
      }
      for (std::int64_t r = 0; r < kPanel; r += kLanes) {
        scatter_columns(s.row + r * words, words, words, s.columns + r, kPanel);
        F sum{};
        for (std::int64_t c = 0; c < words; ++c) {
          sum = FloatProduct::add(sum, loadf(s.columns + c * kPanel + r),
                                  loadf(grad_columns + c * kPanel + r));
        }
        store(deltas + r, sum);
      }
    } else {
      for (std::int64_t r = 0; r < kPanel; ++r) {
        deltas[r] = r < panel.count ? row_delta(job, b, panel.head[r], panel.query[r]) : 0.0f;
      }
    }
  }

  static float row_delta(const BackwardJob& job, std::int64_t b, std::int64_t h, std::int64_t i) {
    const In* o = query_row<In>(job, job.o, b, i, h);
    const In* grad = query_row<In>(job, job.grad_o, b, i, h);
    F sums{};
    std::int64_t c = 0;
    if (job.o.d_stride == 1 && job.grad_o.d_stride == 1) {
      for (; c + kLanes <= job.dv; c += kLanes) sums += load_float(o + c) * load_float(grad + c);
    }
    float delta = 0.0f;
    for (; c < job.dv; ++c) {
      delta += to_float(o[c * job.o.d_stride]) * to_float(grad[c * job.grad_o.d_stride]);
    }
    for (int lane = 0; lane < kLanes; ++lane) delta += sums[lane];
    return delta;
  }

  static float incoming_lse(const BackwardJob& job, std::int64_t b, std::int64_t h,
                            std::int64_t i) {
    if (job.grad_lse == nullptr) return 0.0f;
    return job.grad_lse[lse_index(job, b, h, i, job.grad_lse_b_stride, job.grad_lse_h_stride,
                                  job.grad_lse_stride)];
  }

  // ---- task ----------------------------------------------------------------------------------

  // Keys that any row of a step reaches, as a range of key blocks: the turns of that step.
  static Range step_reach(const BackwardJob& job, const Sequence& seq, std::int64_t step) {
    const std::int64_t rows = job.group * seq.sq;
    const std::int64_t first = step * kStep / job.group;
    const std::int64_t last = smaller((step + 1) * kStep, rows) - 1;
    if (last < step * kStep) return {0, 0};
    // Intervals move right as i grows, so the ends bound everything between.
    const Range low = attended_keys(job, seq, first);
    const Range high = attended_keys(job, seq, last / job.group);
    if (low.begin >= high.end) return {0, 0};
    return {low.begin, high.end};
  }

  static void task(const BackwardJob& job, std::int64_t number, char* scratch) {
    [[maybe_unused]] const typename Arith::Session session{};
    const Scratch s = layout(job, scratch, nullptr);
    // Key blocks outermost, so that concurrent tasks mostly belong to different heads.
    const std::int64_t units_b = job.serial_b ? 1 : job.b;
    const std::int64_t units_h = job.serial_h ? 1 : job.hkv;
    const std::int64_t units = units_b * units_h;
    const std::int64_t unit = units == 0 ? 0 : number % units;
    const std::int64_t first_block = job.serial_k ? 0 : number / units;
    const std::int64_t last_block = job.serial_k ? job.key_blocks : first_block + 1;
    const std::int64_t b0 = job.serial_b ? 0 : unit / units_h, b1 = job.serial_b ? job.b : b0 + 1;
    const std::int64_t h0 = job.serial_h ? 0 : unit % units_h, h1 = job.serial_h ? job.hkv : h0 + 1;
    for (std::int64_t block = first_block; block < last_block; ++block) {
      for (std::int64_t b = b0; b < b1; ++b) {
        for (std::int64_t h = h0; h < h1; ++h) one_block(job, s, b, h, block);
      }
    }
  }

  static void one_block(const BackwardJob& job, const Scratch& s, std::int64_t b, std::int64_t hkv,
                        std::int64_t block) {
    const Sequence& seq = job.sequences[b];
    const Range keys{block * job.key_block, smaller((block + 1) * job.key_block, seq.sk)};
    if (keys.empty()) return;
    const std::int64_t count = keys.end - keys.begin;
    bool bad = Forward<Arith>::pack_rows(job, job.k, b, hkv, keys, job.d, s.k);
    bad |= Forward<Arith>::pack_rows(job, job.v, b, hkv, keys, job.dv, s.v);
    const std::int64_t padded = round_up(count, key_multiple());
    const AOperand k_deep = Arith::pack_deep(s.k, padded, job.d, s.k_deep);
    for (std::int64_t i = 0; i < padded * s.d_cols; i += kLanes) store(s.dk + i, F{});
    for (std::int64_t i = 0; i < padded * s.dv_cols; i += kLanes) store(s.dv + i, F{});
    for (std::int64_t g = 0; g < job.group; ++g) s.alibi[g] = 0;

    const std::int64_t unit = b * job.hkv + hkv;
    const std::int64_t steps = (job.group * seq.sq + kStep - 1) / kStep;
    for (std::int64_t step = 0; step < steps; ++step) {
      const Range reach = step_reach(job, seq, step);
      if (reach.empty() || reach.end <= keys.begin || reach.begin >= keys.end) continue;
      const auto turn = static_cast<std::int32_t>(block - reach.begin / job.key_block);
      one_step(job, s, b, hkv, keys, k_deep, bad, step, job.turns + unit * job.steps + step, turn);
    }
    write_keys(job, s, b, hkv, keys);
    if (job.alibi_parts != nullptr) {
      double* parts = job.alibi_parts + (block * job.b + b) * job.hq + hkv * job.group;
      for (std::int64_t g = 0; g < job.group; ++g) parts[g] = s.alibi[g];
    }
  }

  static void one_step(const BackwardJob& job, const Scratch& s, std::int64_t b, std::int64_t hkv,
                       Range block, AOperand k_deep, bool bad, std::int64_t step,
                       std::int32_t* turns, std::int32_t turn) {
    KernelSizes z{};
    sizes(job, &z);
    const Sequence& seq = job.sequences[b];
    const std::int64_t unit = b * job.hkv + hkv;
    const std::int64_t rows = job.group * seq.sq;
    const std::int64_t first = step * kStepPanels;
    const std::int64_t panels =
        smaller<std::int64_t>(kStepPanels, (rows - first * kPanel + kPanel - 1) / kPanel);

    // The keys of this block that the step reaches, widened to whole tiles.
    Range reach{block.end, block.begin};
    for (std::int64_t p = 0; p < panels; ++p) {
      Panel<kPanel>& panel = s.panels[p];
      panel.set(job, b, hkv, (first + p) * kPanel);
      reach.begin = smaller(reach.begin, larger(block.begin, panel.reach.begin));
      reach.end = larger(reach.end, smaller(block.end, panel.reach.end));
      bad |= job.bad_rows[unit * job.panels + first + p] != 0;
    }
    if (reach.empty()) {
      take_turn(turns, turn);
      pass_turn(turns, turn);
      return;
    }
    const std::int64_t skip = (reach.begin - block.begin) / key_multiple() * key_multiple();
    const Range keys{block.begin + skip, reach.end};
    if (bad) {
      const Part all{keys, 0, static_cast<int>(panels) * Panel<kPanel>::kVectors};
      scores_of_part(job, s, b, all, keys.begin, skip, unit * job.panels + first, true, z);
      take_turn(turns, turn);
      add_one_by_one(job, s, b, hkv, block, keys, first, panels, z);
      pass_turn(turns, turn);
      return;
    }
    const std::int64_t at = unit * job.panels + first;
    for (std::int64_t j = keys.begin; j < keys.end;) {
      const Part part = part_of_step(s, panels, j, keys.end);
      if (!part.empty()) {
        const std::int64_t row = part.keys.begin - block.begin;
        scores_of_part(job, s, b, part, keys.begin, row, at, false, z);
        add_to_keys(job, s, part, keys.begin, row, at, z);
      }
      j = part.keys.end;
    }
    take_turn(turns, turn);
    for (std::int64_t j = keys.begin; j < keys.end;) {
      const Part part = part_of_step(s, panels, j, keys.end);
      const std::int64_t row = j - keys.begin;
      const float* ds =
          Arith::kStoresP ? s.ds_pairs + row / Arith::kPair * kStep : s.ds + row * kStep;
      for (std::int64_t p = 0; p < panels; ++p) {
        const Part own = part_of_panel(part, p);
        const std::int64_t lane = own.first * kLanes;
        if (own.empty()) continue;
        Arith::gemm_deep(round_up(job.d, Arith::kRowMultiple), (own.last - own.first) * kLanes,
                         round_up(part.keys.end - j, Arith::kDepthMultiple),
                         Arith::deep_from(k_deep, j - block.begin), ds + p * kPanel + lane, kStep,
                         job.grad_q_sum + (at + p) * z.partial + lane, kPanel);
      }
      j = part.keys.end;
    }
    pass_turn(turns, turn);
  }

  // Vectors are the sums' terms in dK and dV, so they too come in multiples.
  static Part part_of_step(const Scratch& s, std::int64_t panels, std::int64_t j,
                           std::int64_t end) {
    constexpr int kMultiple = Arith::kDepthMultiple > kLanes ? Arith::kDepthMultiple / kLanes : 1;
    Part part = part_at(s.panels, panels, j, end, key_multiple());
    part.first = part.first / kMultiple * kMultiple;
    part.last = static_cast<int>(round_up(part.last, kMultiple));
    return part;
  }
  static Part part_of_panel(const Part& part, std::int64_t p) {
    constexpr int kVectors = Panel<kPanel>::kVectors;
    const int offset = static_cast<int>(p) * kVectors;
    return {part.keys, larger(part.first - offset, 0), smaller(part.last - offset, kVectors)};
  }

  // P and dS of a part, in tiles that start at key `first`; `row` is the part's place in the block.
  static void scores_of_part(const BackwardJob& job, const Scratch& s, std::int64_t b,
                             const Part& part, std::int64_t first, std::int64_t row,
                             std::int64_t at, bool mark, const KernelSizes& z) {
    const std::int64_t padded = round_up(part.keys.end - part.keys.begin, key_multiple());
    const std::int64_t k_pitch = Arith::pitch(job.d), v_pitch = Arith::pitch(job.dv);
    for (std::int64_t p = 0; p < kStepPanels; ++p) {
      const Part own = part_of_panel(part, p);
      if (own.empty()) continue;
      const std::int64_t lane = own.first * kLanes, columns = (own.last - own.first) * kLanes;
      const std::int64_t to = (part.keys.begin - first) * kStep + p * kPanel;
      const auto* q = reinterpret_cast<const float*>(job.q_columns + (at + p) * z.panel_q);
      const auto* o = reinterpret_cast<const float*>(job.o_columns + (at + p) * z.panel_o);
      const AOperand k{s.k + row * k_pitch, k_pitch, 1}, v{s.v + row * v_pitch, v_pitch, 1};
      float* scores = s.p + to;
      float* ds = s.ds + to;
      Forward<Arith>::products(padded, columns, Arith::words(job.d), k, q + lane, scores + lane,
                               kStep, mark);
      Forward<Arith>::products(padded, columns, Arith::words(job.dv), v, o + lane, ds + lane, kStep,
                               mark);
      gradients_of_scores(job, s, s.panels[p], own, at + p, scores, ds, mark, b);
    }
  }

  // dV += P^T dO and dK += dS^T Q of a part.
  static void add_to_keys(const BackwardJob& job, const Scratch& s, const Part& part,
                          std::int64_t first, std::int64_t row, std::int64_t at,
                          const KernelSizes& z) {
    const std::int64_t count = part.keys.end - part.keys.begin;
    const std::int64_t padded = round_up(count, key_multiple());
    const std::int64_t query = part.first * kLanes, queries = part.last * kLanes - query;
    const std::int64_t from = (part.keys.begin - first) * kStep + query;
    AOperand p_rows{s.p + from, kStep, 1}, ds_rows{s.ds + from, kStep, 1};
    if constexpr (Arith::kStoresP) {
      store_rows<Arith>(s.p + from, kStep, count, padded, queries, s.p_rows + from / Arith::kPair);
      store_rows<Arith>(s.ds + from, kStep, count, padded, queries,
                        s.ds_rows + from / Arith::kPair);
      const std::int64_t pairs = (part.keys.begin - first) / Arith::kPair * kStep + query;
      store_pairs<Arith>(s.ds + from, kStep, count, padded, queries, s.ds_pairs + pairs);
      p_rows = {s.p_rows + from / Arith::kPair, kStep / Arith::kPair, 1};
      ds_rows = {s.ds_rows + from / Arith::kPair, kStep / Arith::kPair, 1};
    } else {
      for (std::int64_t j = count; j < padded; ++j) {
        for (std::int64_t i = 0; i < queries; i += kLanes) {
          store(s.p + from + j * kStep + i, F{});
          store(s.ds + from + j * kStep + i, F{});
        }
      }
    }
    const std::int64_t word = query / Arith::kPair;
    const auto* o = reinterpret_cast<const float*>(job.o_rows + at * z.panel_o_rows);
    const auto* q = reinterpret_cast<const float*>(job.q_rows + at * z.panel_q_rows);
    Arith::gemm_rows(padded, Arith::columns_of(job.dv), queries / Arith::kPair, p_rows,
                     o + word * s.dv_cols, s.dv_cols, s.dv + row * s.dv_cols, s.dv_cols, true);
    Arith::gemm_rows(padded, Arith::columns_of(job.d), queries / Arith::kPair, ds_rows,
                     q + word * s.d_cols, s.d_cols, s.dk + row * s.d_cols, s.d_cols, true);
  }

  static void take_turn(std::int32_t* turns, std::int32_t turn) {
    for (int tries = 0; __atomic_load_n(turns, __ATOMIC_ACQUIRE) != turn; ++tries) pause(tries);
  }
  static void pass_turn(std::int32_t* turns, std::int32_t turn) {
    __atomic_store_n(turns, turn + 1, __ATOMIC_RELEASE);
  }

  // scores -> P (after dropout), dP -> dS. mark: masked elements of P become -0.
  static void gradients_of_scores(const BackwardJob& job, const Scratch& s,
                                  const Panel<kPanel>& panel, const Part& part, std::int64_t at,
                                  float* scores, float* ds, bool mark, std::int64_t b) {
    float factor = job.scale * kLog2E;
    float* slopes = job.softcap > 0 ? s.slope : nullptr;
    if (job.features) {
      // The score tile is wider than a panel; bias and slope tiles share its row pitch.
      feature_scores(job, panel, part, scores, kStep, s.bias, kPanel, slopes, kPanel);
      factor = 1.0f;
    } else {
      mask_scores(panel, part, scores, kStep);
    }
    if (job.dropout) dropout_tile(job, panel, part, s.keep, kPanel);
    if (job.features) {
      fill_gradients<true>(job, s, panel, part, at, scores, ds, factor, mark);
    } else {
      fill_gradients<false>(job, s, panel, part, at, scores, ds, factor, mark);
    }
    const std::int64_t count = part.keys.end - part.keys.begin;
    if (job.grad_bias != nullptr) add_bias_gradient(job, panel, part, ds, b);
    if (job.alibi_parts != nullptr) add_slope_gradient(job, s, panel, part, ds);
    if (slopes != nullptr) {
      for (std::int64_t j = 0; j < count; ++j) {
        for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
          float* x = ds + j * kStep + n * kLanes;
          const F raw_gradient = loadf(x);
          // Masked elements may carry the slope of a NaN; their gradient is 0 and stays it.
          const F scaled = raw_gradient * loadf(slopes + j * kPanel + n * kLanes);
          store(x, select(raw_gradient == F{}, F{}, scaled));
        }
      }
    }
  }

  template <bool kFeatures>
  static void fill_gradients(const BackwardJob& job, const Scratch& s, const Panel<kPanel>& panel,
                             const Part& part, std::int64_t at, float* scores, float* ds,
                             float factor, bool mark) {
    const std::int64_t count = part.keys.end - part.keys.begin;
    const F scale = splat(factor);
    for (int n = part.first; n < part.last; ++n) {
      const std::int64_t lane = n * kLanes;
      if (n >= panel.vectors) {
        for (std::int64_t j = 0; j < count; ++j) {
          store(scores + j * kStep + lane, F{});
          store(ds + j * kStep + lane, F{});
        }
        continue;
      }
      const F lse = loadf(job.row_lse + at * kPanel + lane);
      const F delta = loadf(job.delta + at * kPanel + lane);
      for (std::int64_t j = 0; j < count; ++j) {
        const F raw = loadf(scores + j * kStep + lane);
        const F p = exp2<Arith::kExpDegree>(exponent<kFeatures>(raw, scale, lse));
        F dp = loadf(ds + j * kStep + lane);
        F kept = p;
        if (job.dropout) {
          const F keep = loadf(s.keep + j * kPanel + lane);
          dp *= keep;
          kept *= keep;
        }
        F grad = p * (dp - delta);
        if (mark) {
          const I masked = raw == splat(-kInfinity);
          kept = select(masked, splat(-0.0f), kept);
          grad = select(masked, F{}, grad);
        }
        store(scores + j * kStep + lane, kept);
        store(ds + j * kStep + lane, grad);
      }
    }
  }

  static void add_bias_gradient(const BackwardJob& job, const Panel<kPanel>& panel,
                                const Part& part, const float* ds, std::int64_t b) {
    const Range keys = part.keys, rows = rows_of(panel, part);
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      float* out = job.grad_bias + b * job.grad_bias_b_stride +
                   panel.head[r] * job.grad_bias_h_stride +
                   panel.query[r] * job.grad_bias_q_stride + keys.begin * job.grad_bias_k_stride;
      for (std::int64_t j = 0; j < keys.end - keys.begin; ++j) {
        out[j * job.grad_bias_k_stride] += ds[j * kStep + r];
      }
    }
  }

  static void add_slope_gradient(const BackwardJob& job, const Scratch& s,
                                 const Panel<kPanel>& panel, const Part& part, const float* ds) {
    const Range keys = part.keys;
    for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
      F sum{};
      const F position = loadf(panel.position + n * kLanes);
      for (std::int64_t j = keys.begin; j < keys.end; ++j) {
        const F distance = abs(position - static_cast<float>(j));
        sum -= distance * loadf(ds + (j - keys.begin) * kStep + n * kLanes);
      }
      for (int lane = 0; lane < kLanes && n * kLanes + lane < panel.count; ++lane) {
        s.alibi[panel.head[n * kLanes + lane] % job.group] += static_cast<double>(sum[lane]);
      }
    }
  }

  // The five products element by element, skipping what is masked: only where a NaN or an infinity
  // could otherwise reach a sum through a zero.
  static void add_one_by_one(const BackwardJob& job, const Scratch& s, std::int64_t b,
                             std::int64_t hkv, Range block, Range keys, std::int64_t first,
                             std::int64_t panels, const KernelSizes& z) {
    const std::int64_t unit = b * job.hkv + hkv;
    for (std::int64_t p = 0; p < panels; ++p) {
      const Panel<kPanel>& panel = s.panels[p];
      float* dq = job.grad_q_sum + (unit * job.panels + first + p) * z.partial;
      for (std::int64_t j = keys.begin; j < keys.end; ++j) {
        const In* k = key_row<In>(job, job.k, b, j, hkv);
        float* dk = s.dk + (j - block.begin) * s.d_cols;
        float* dv = s.dv + (j - block.begin) * s.dv_cols;
        for (std::int64_t r = 0; r < panel.count; ++r) {
          const float weight = s.p[(j - keys.begin) * kStep + p * kPanel + r];
          const float ds = s.ds[(j - keys.begin) * kStep + p * kPanel + r];
          if (bits_of(weight) == 0x80000000u) continue;
          const In* q = query_row<In>(job, job.q, b, panel.query[r], panel.head[r]);
          const In* grad_o = query_row<In>(job, job.grad_o, b, panel.query[r], panel.head[r]);
          for (std::int64_t c = 0; c < job.dv; ++c) {
            dv[c] += weight * to_float(grad_o[c * job.grad_o.d_stride]);
          }
          for (std::int64_t c = 0; c < job.d; ++c) {
            dk[c] += ds * to_float(q[c * job.q.d_stride]);
            dq[c * kPanel + r] += ds * to_float(k[c * job.k.d_stride]);
          }
        }
      }
    }
  }

  // Rounds dK and dV of a block; paged keys add into shared sums instead, since sequences may
  // share a page.
  static void write_keys(const BackwardJob& job, const Scratch& s, std::int64_t b, std::int64_t hkv,
                         Range keys) {
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
      const float* dk = s.dk + (j - keys.begin) * s.d_cols;
      const float* dv = s.dv + (j - keys.begin) * s.dv_cols;
      if (job.page_sum != nullptr) {
        const std::int64_t page =
            job.page_table[b * job.page_table_stride + j / job.page_size * job.page_table_k_stride];
        const std::int64_t tokens = job.pages * job.page_size;
        const std::int64_t token = hkv * tokens + page * job.page_size + j % job.page_size;
        float* k_sum = job.page_sum + token * job.d;
        float* v_sum = job.page_sum + job.hkv * tokens * job.d + token * job.dv;
        for (std::int64_t c = 0; c < job.d; ++c) k_sum[c] += dk[c] * job.scale;
        for (std::int64_t c = 0; c < job.dv; ++c) v_sum[c] += dv[c];
        continue;
      }
      narrow_row(dk, job.scale, job.d, key_row<In>(job, job.grad_k, b, j, hkv),
                 job.grad_k.d_stride);
      narrow_row(dv, 1.0f, job.dv, key_row<In>(job, job.grad_v, b, j, hkv), job.grad_v.d_stride);
    }
  }

  // ---- finish --------------------------------------------------------------------------------

  static void finish(const BackwardJob& job, std::int64_t number, char* scratch) {
    const std::int64_t p = number % job.panels;
    const std::int64_t unit = number / job.panels;
    const std::int64_t b = unit / job.hkv, hkv = unit % job.hkv;
    const Scratch s = layout(job, scratch, nullptr);
    Panel<kPanel>& panel = s.panels[0];
    panel.set(job, b, hkv, p * kPanel);
    const float* sum = job.grad_q_sum + (unit * job.panels + p) * d_rows(job.d) * kPanel;
    const std::int64_t width = round_up(job.d, kLanes);
    for (int n = 0; n < panel.vectors; ++n) {
      for (std::int64_t c = 0; c < width; c += kLanes) {
        F x[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) x[i] = loadf(sum + (c + i) * kPanel + n * kLanes);
        transpose(x);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(s.row + i * width + c, x[i]);
      }
      for (int lane = 0; lane < kLanes && n * kLanes + lane < panel.count; ++lane) {
        const std::int64_t r = n * kLanes + lane;
        narrow_row(s.row + lane * width, job.scale, job.d,
                   query_row<In>(job, job.grad_q, b, panel.query[r], panel.head[r]),
                   job.grad_q.d_stride);
      }
    }
  }

  static constexpr BackwardKernel kernel() { return {sizes, prepare, task, finish}; }
};

}  // namespace attune::cpu::ATTUNE_ISA
