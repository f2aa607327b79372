// A panel: kPanel query rows of one KV head, one lane each. Row r of a sequence is query r / group
// of head r % group within the group, so that the heads that share keys share panels too.
#pragma once

#include "cpu/job.h"
#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

struct Range {
  std::int64_t begin, end;
  [[nodiscard]] bool empty() const { return begin >= end; }
};

// Keys that query i of a sequence attends to, before bias: always one interval.
ATTUNE_INLINE Range attended_keys(const AttentionJob& job, const Sequence& seq, std::int64_t i) {
  const std::int64_t c = i + (job.bottom_right ? seq.sk - seq.sq : 0) + job.offset;
  std::int64_t begin = 0, end = seq.sk;
  if (job.left >= 0) begin = larger(begin, c - job.left);
  if (job.right >= 0) end = smaller(end, c + job.right + 1);
  if (job.causal) end = smaller(end, c + 1);
  if (begin > seq.sk) begin = seq.sk;
  return {begin, larger(begin, end)};
}

ATTUNE_INLINE Range meet(Range a, Range b) {
  return {larger(a.begin, b.begin), smaller(a.end, b.end)};
}

template <int kPanel>
struct Panel {
  static constexpr int kVectors = kPanel / kLanes;
  std::int64_t count;             // rows in use, 0 .. kPanel
  int vectors;                    // vectors in use
  bool bad;                       // Q holds NaN or Inf
  Range reach;                    // keys that any row attends to
  Range vector_reach[kVectors];   // keys that any row of the vector attends to
  Range vector_common[kVectors];  // keys that every row of the vector attends to
  std::int32_t begin[kPanel], end[kPanel];
  float slope[kPanel];            // ALiBi
  float position[kPanel];         // i + sk - sq, ALiBi's diagonal (exact below 2^24)
  std::int64_t bias_row[kPanel];  // element offset of bias[b, h, i, 0]
  // Stream index of (b, h, i, 0); of FA2's stream: number of the first of the four blocks that have query i.
  std::uint64_t dropout_row[kPanel];
  std::int64_t query[kPanel], head[kPanel];

  void set(const AttentionJob& job, std::int64_t b, std::int64_t hkv, std::int64_t first_row) {
    const Sequence& seq = job.sequences[b];
    const std::int64_t rows = job.group * seq.sq;
    count = smaller<std::int64_t>(kPanel, rows - first_row);
    if (count < 0) count = 0;
    vectors = static_cast<int>((count + kLanes - 1) / kLanes);
    reach = {seq.sk, 0};
    for (Range& r : vector_reach) r = {seq.sk, 0};
    for (Range& r : vector_common) r = {0, seq.sk};
    std::int64_t i = first_row / job.group, member = first_row % job.group;
    Range keys = attended_keys(job, seq, i);
    for (std::int64_t r = 0; r < kPanel; ++r) {
      if (r >= count) {
        begin[r] = end[r] = 0;
        slope[r] = position[r] = 0.0f;
        bias_row[r] = 0;
        dropout_row[r] = dropout_row[0];
        query[r] = head[r] = 0;
        continue;
      }
      const std::int64_t h = hkv * job.group + member;
      query[r] = i;
      head[r] = h;
      begin[r] = static_cast<std::int32_t>(keys.begin);
      end[r] = static_cast<std::int32_t>(keys.end);
      if (!keys.empty()) {
        Range& any = vector_reach[r / kLanes];
        any = {smaller(any.begin, keys.begin), larger(any.end, keys.end)};
      }
      vector_common[r / kLanes] = meet(vector_common[r / kLanes], keys);
      slope[r] = job.alibi ? job.alibi[b * job.alibi_b_stride + h * job.alibi_h_stride] : 0.0f;
      position[r] = static_cast<float>(i + seq.sk - seq.sq);
      bias_row[r] = b * job.bias.b_stride + h * job.bias.h_stride + i * job.bias.q_stride;
      const std::uint64_t head_number = static_cast<std::uint64_t>(b) * job.hq + h;
      dropout_row[r] = job.dropout_offset + (job.bytes ? head_number * 32 + i % 8 * 4
                                                       : (head_number * job.sq + i) * job.sk);
      if (++member == job.group) {
        member = 0;
        keys = attended_keys(job, seq, ++i);
      }
    }
    for (const Range& r : vector_reach) {
      reach = {smaller(reach.begin, r.begin), larger(reach.end, r.end)};
    }
  }
};

// Keys and the vectors [first, last) of a panel, or of neighbouring panels, that attend to some.
struct Part {
  Range keys;
  int first, last;
  [[nodiscard]] bool empty() const { return first >= last; }
};

// The rows in use of a panel that a part of it covers.
template <int kPanel>
ATTUNE_INLINE Range rows_of(const Panel<kPanel>& panel, const Part& part) {
  return meet({part.first * kLanes, part.last * kLanes}, {0, panel.count});
}

// Where a mask's edge crosses panels, what it leaves out need not be computed: the part that starts
// at key j and ends where a vector joins or leaves, at `end` at the latest. Cuts are multiples of
// `multiple`, as j is.
template <int kPanel>
ATTUNE_INLINE Part part_at(const Panel<kPanel>* panels, std::int64_t count, std::int64_t j,
                           std::int64_t end, std::int64_t multiple) {
  Part part{{j, end}, 0, 0};
  for (int n = 0; n < static_cast<int>(count) * Panel<kPanel>::kVectors; ++n) {
    const Range reach =
        panels[n / Panel<kPanel>::kVectors].vector_reach[n % Panel<kPanel>::kVectors];
    if (reach.empty()) continue;
    const std::int64_t from = reach.begin / multiple * multiple;
    const std::int64_t to = round_up(reach.end, multiple);
    if (from > j) {
      part.keys.end = smaller(part.keys.end, from);
    } else if (to > j) {
      part.keys.end = smaller(part.keys.end, to);
      if (part.empty()) part.first = n;
      part.last = n + 1;
    }
  }
  return part;
}

template <typename In>
ATTUNE_INLINE In* query_row(const AttentionJob& job, const Strided& x, std::int64_t b,
                            std::int64_t i, std::int64_t h) {
  return reinterpret_cast<In*>(x.data) + b * x.b_stride +
         (job.sequences[b].q_start + i) * x.s_stride + h * x.h_stride;
}

template <typename In>
ATTUNE_INLINE In* key_row(const AttentionJob& job, const Strided& x, std::int64_t b, std::int64_t j,
                          std::int64_t h) {
  if (job.page_table != nullptr) {
    const std::int64_t page =
        job.page_table[b * job.page_table_stride + j / job.page_size * job.page_table_k_stride];
    return reinterpret_cast<In*>(x.data) + page * x.b_stride + j % job.page_size * x.s_stride +
           h * x.h_stride;
  }
  return reinterpret_cast<In*>(x.data) + b * x.b_stride +
         (job.sequences[b].k_start + j) * x.s_stride + h * x.h_stride;
}

// Where the LSE of query i of head h lies.
ATTUNE_INLINE std::int64_t lse_index(const AttentionJob& job, std::int64_t b, std::int64_t h,
                                     std::int64_t i, std::int64_t b_stride, std::int64_t h_stride,
                                     std::int64_t stride) {
  const std::int64_t row = job.lse_packed ? job.sequences[b].q_start + i : i;
  return (job.lse_packed ? 0 : b * b_stride) + h * h_stride + row * stride;
}

}  // namespace attune::cpu::ATTUNE_ISA
