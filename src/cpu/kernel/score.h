// From raw products to masked scores: softcap, bias, ALiBi, mask, and the dropout tile.
//
// A score tile is [keys][ld] floats, lanes are queries. Raw scores are q.k; the plain path folds
// scale * log2(e) into the exponential and counts in powers of two, every other feature first turns
// the tile into the contract's scores and counts in powers of e: a score near the end of float's
// range (a mask of finfo.min) would not survive the factor.
#pragma once

#include "cpu/kernel/element.h"
#include "cpu/kernel/math.h"
#include "cpu/kernel/philox.h"
#include "cpu/kernel/rows.h"

namespace attune::cpu::ATTUNE_ISA {

template <typename T, int kPanel>
void gather_bias(const BiasView& bias, const Panel<kPanel>& panel, const Part& part, float* tile,
                 std::int64_t ld) {
  const Range keys = part.keys, rows = rows_of(panel, part);
  const T* data = reinterpret_cast<const T*>(bias.data);
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    const T* row = data + panel.bias_row[r] + keys.begin * bias.k_stride;
    for (std::int64_t j = 0; j < keys.end - keys.begin; ++j) {
      tile[j * ld + r] = to_float(row[j * bias.k_stride]);
    }
  }
}

// The bias of keys x panel as floats; a boolean bias becomes 0 or -inf.
template <int kPanel>
void load_bias(const BiasView& bias, const Panel<kPanel>& panel, const Part& part, float* tile,
               std::int64_t ld) {
  const Range keys = part.keys, rows = rows_of(panel, part);
  if (bias.layout == BiasLayout::boolean) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const char* row = bias.data + panel.bias_row[r] + keys.begin * bias.k_stride;
      for (std::int64_t j = 0; j < keys.end - keys.begin; ++j) {
        tile[j * ld + r] = row[j * bias.k_stride] ? 0.0f : -kInfinity;
      }
    }
  } else if (bias.element == Element::f32) {
    gather_bias<float>(bias, panel, part, tile, ld);
  } else if (bias.element == Element::f16) {
    gather_bias<f16>(bias, panel, part, tile, ld);
  } else {
    gather_bias<bf16>(bias, panel, part, tile, ld);
  }
}

template <int kPanel>
ATTUNE_INLINE I inside(const Panel<kPanel>& panel, int vector, std::int64_t key) {
  const I j = splat(static_cast<std::int32_t>(key));
  return (j >= load<I>(panel.begin + vector * kLanes)) & (j < load<I>(panel.end + vector * kLanes));
}

// Masks what lies outside each row's interval. `part` counts vectors of this panel.
template <int kPanel>
void mask_scores(const Panel<kPanel>& panel, const Part& part, float* tile, std::int64_t ld) {
  const Range keys = part.keys;
  for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
    const Range common = meet(panel.vector_common[n], keys);
    const auto mask = [&](std::int64_t begin, std::int64_t end) ATTUNE_LAMBDA_INLINE {
      for (std::int64_t j = begin; j < end; ++j) {
        float* at = tile + (j - keys.begin) * ld + n * kLanes;
        store(at, select(inside(panel, n, j), loadf(at), splat(-kInfinity)));
      }
    };
    if (common.empty()) {
      mask(keys.begin, keys.end);
    } else {
      mask(keys.begin, common.begin);
      mask(common.end, keys.end);
    }
  }
}

// Raw products -> the contract's masked scores. bias_tile: [keys][bias_ld] of scratch when the
// job has a bias. slope_tile [keys][slope_ld], when not null, receives d(capped)/d(raw), which
// backward needs to pass through the softcap.
template <int kPanel>
void feature_scores(const AttentionJob& job, const Panel<kPanel>& panel, const Part& part,
                    float* tile, std::int64_t ld, float* bias_tile, std::int64_t bias_ld,
                    float* slope_tile, std::int64_t slope_ld) {
  const Range keys = part.keys;
  const bool biased = job.bias.layout != BiasLayout::none;
  if (biased) load_bias(job.bias, panel, part, bias_tile, bias_ld);
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    const std::int64_t row = j - keys.begin;
    for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
      const std::int64_t lane = n * kLanes;
      F s = loadf(tile + row * ld + lane) * job.scale;
      if (job.softcap > 0) {
        const F t = tanh(s / job.softcap);
        s = t * job.softcap;
        if (slope_tile != nullptr) store(slope_tile + row * slope_ld + lane, 1.0f - t * t);
      }
      I keep = inside(panel, n, j);
      if (biased) {
        const F bias = loadf(bias_tile + row * bias_ld + lane);
        keep &= ~(bias == splat(-kInfinity));
        s += bias;
      }
      if (job.alibi != nullptr) {
        const F distance = abs(loadf(panel.position + lane) - static_cast<float>(j));
        s -= loadf(panel.slope + lane) * distance;
      }
      store(tile + row * ld + lane, select(keep, s, splat(-kInfinity)));
    }
  }
}

// What turns a difference of scores or references into a power of two.
ATTUNE_INLINE float score_unit(const AttentionJob& job) { return job.features ? kLog2E : 1.0f; }

// The power of two of a score against a reference of its row.
template <bool kFeatures>
ATTUNE_INLINE F exponent(F score, F scale, F reference) {
  return kFeatures ? (score - reference) * kLog2E : score * scale - reference;
}

// As dropout_tile(), of FA2's stream: a row has bytes of four blocks for every 32 keys, of each two neighbours of
// eight keys.
template <int kPanel>
void dropout_bytes(const AttentionJob& job, const Panel<kPanel>& panel, const Part& part,
                   float* tile, std::int64_t ld) {
  constexpr std::int64_t kKeys = 32;
  const Range keys = part.keys;
  for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
    const U64 number = load<U64>(panel.dropout_row + n * kLanes);
    U patch{}, shift{};
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto i = static_cast<std::uint32_t>(panel.query[n * kLanes + lane]);
      patch[lane] = i / 16;
      shift[lane] = i % 16 / 8 * 16;
    }
    for (std::int64_t first = keys.begin / kKeys * kKeys; first < keys.end; first += kKeys) {
      const U column = static_cast<std::uint32_t>(first / kKeys) - U{};
      for (std::uint64_t pair = 0; pair < 4; ++pair) {
        const U64 own = number + pair;
        const PhiloxBlock block =
            philox<7>(__builtin_convertvector(own, U), __builtin_convertvector(own >> 32, U), patch,
                      column, job.seed);
        for (int k = 0; k < 8; ++k) {
          const std::int64_t j = first + k / 2 * 8 + static_cast<std::int64_t>(pair) * 2 + k % 2;
          if (j < keys.begin || j >= keys.end) continue;
          const U byte =
              (block.word[k / 2] >> (shift + 8 * static_cast<std::uint32_t>(k % 2))) & 255u;
          const I keep = reinterpret_cast<I>(byte <= (job.keep_to - U{}));
          store(tile + (j - keys.begin) * ld + n * kLanes,
                select(keep, splat(job.keep_scale), F{}));
        }
      }
    }
  }
}

// keep_scale where the element is kept, 0 where it is dropped. Neighbouring keys share a Philox
// block of four; lanes whose blocks are cut differently draw one block a key.
template <int kPanel>
void dropout_tile(const AttentionJob& job, const Panel<kPanel>& panel, const Part& part,
                  float* tile, std::int64_t ld) {
  if (job.bytes) {
    dropout_bytes(job, panel, part, tile, ld);
    return;
  }
  const Range keys = part.keys;
  for (int n = part.first; n < smaller(part.last, panel.vectors); ++n) {
    const std::uint64_t* base = panel.dropout_row + n * kLanes;
    U phase{};
    bool together = true;
    for (int lane = 0; lane < kLanes; ++lane) {
      phase[lane] = static_cast<std::uint32_t>(base[lane]) & 3u;
      together &= phase[lane] == phase[0];
    }
    PhiloxBlock block{};
    for (std::int64_t j = keys.begin; j < keys.end; ++j) {
      const std::uint32_t turn = (phase[0] + static_cast<std::uint32_t>(j)) & 3u;
      if (!together || turn == 0 || j == keys.begin) {
        const U64 index = load<U64>(base) + static_cast<std::uint64_t>(j);
        block = philox<10>(__builtin_convertvector(index >> 2, U),
                           __builtin_convertvector(index >> 34, U), U{}, U{}, job.seed);
      }
      U word = block.word[turn];
      if (!together) {
        const U own = (phase + static_cast<std::uint32_t>(j)) & 3u;
        word = block.word[0];
        for (std::uint32_t w = 1; w < 4; ++w) word = (own == w) ? block.word[w] : word;
      }
      const I keep = reinterpret_cast<I>(word >= (job.keep_from - U{}));
      const F scale = job.keep_none ? F{} : select(keep, splat(job.keep_scale), F{});
      store(tile + (j - keys.begin) * ld + n * kLanes, scale);
    }
  }
}

}  // namespace attune::cpu::ATTUNE_ISA
