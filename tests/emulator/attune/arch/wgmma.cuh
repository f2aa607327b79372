// As kernels/attune/arch/wgmma.cuh, on the host. A warp's part of a product reads its operands at any time
// until the warp has waited for it; its results are NaN until then. The four warps of a group have to do the same in
// the same order, each in its own time.
#pragma once

#include <attune/spec/portable.h>

#include <attune/arch/mma.cuh>
#include <attune/arch/shared.cuh>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "tests/emulator/device.h"

namespace attune::kernel {

namespace detail {

// One step of 32 bytes in depth, of 16 rows and all columns.
struct WarpProduct {
  float* c[32];  // of each lane
  int columns = 0;
  Element element = Element::bf16;
  bool add = false, from_registers = false;
  u64 a_tile = 0, b_tile = 0;
  const u32* a[32];
  int warp = 0;       // of its warpgroup
  bool done = false;  // computed, and not yet waited for
};

struct WarpProducts {
  std::deque<WarpProduct> pending;
  std::deque<std::size_t> groups;             // products in each group that was committed
  std::size_t open = 0;                       // in the one that was not
  std::map<float*, std::vector<float>> sums;  // of the lanes' results that are under way
  std::size_t steps = 0;                      // so far
  std::vector<u64> steps_of_group;            // in a group's first warp: of whoever is ahead

  static WarpProducts& of(std::shared_ptr<void>& state) {
    if (state == nullptr) state = std::make_shared<WarpProducts>();
    return *static_cast<WarpProducts*>(state.get());
  }
  static WarpProducts& mine() { return of(emulator::state_of_warp()); }

  // What the warp does next, as a number.
  void follow_group(u64 step) {
    std::vector<u64>& group = of(emulator::state_of_warp(threadIdx.x / 128 * 4)).steps_of_group;
    if (steps == group.size()) group.push_back(step);
    if (group[steps++] != step) emulator::fail("does not do with products what its group does");
  }
};

// Steps that are no products, whose tiles have other numbers.
constexpr u64 kCommits = ~u64{0}, kWaits = ~u64{1};

inline float float_of(u32 bits, Element element) {
  if (element == Element::f8e4m3) return e4m3_to_float(static_cast<unsigned char>(bits));
  return element == Element::bf16 ? __uint_as_float(bits << 16)
                                  : f16_to_float(static_cast<unsigned short>(bits));
}

// Where a byte of a tile lies whose chunks are exchanged within 1,024 bytes.
inline float tile_element(u32 address, Element element) {
  const bool one = element == Element::f8e4m3;
  const unsigned char* const at = emulator::at(address ^ (address >> 7 & 7u) << 4, one ? 1 : 2);
  return float_of(one ? at[0] : at[0] | static_cast<u32>(at[1]) << 8, element);
}

inline void execute(WarpProducts& all, const WarpProduct& x) {
  const auto start = [](u64 tile) { return static_cast<u32>(tile & 0x3fff) << 4; };
  const auto lead = [](u64 tile) { return static_cast<u32>(tile >> 16 & 0x3fff) << 4; };
  const auto stride = [](u64 tile) { return static_cast<u32>(tile >> 32 & 0x3fff) << 4; };
  const int bytes = bytes_of(x.element), depth = 32 / bytes;
  // Elements of 8 bits lie with their depth along rows on both sides.
  const bool along_rows = !x.from_registers || bytes == 1;
  float a[16][32];
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < depth; ++k) {
      const int byte = k * bytes;
      if (x.from_registers) {
        const u32 word = x.a[row % 8 * 4 + byte % 16 / 4][row / 8 + byte / 16 * 2];
        const u32 bits = word >> byte % 4 * 8;
        a[row][k] = float_of(bytes == 1 ? bits & 0xffu : bits & 0xffffu, x.element);
      } else {
        const u32 r = static_cast<u32>(16 * x.warp + row);
        a[row][k] = tile_element(
            start(x.a_tile) + r / 8 * stride(x.a_tile) + r % 8 * 128 + static_cast<u32>(byte),
            x.element);
      }
    }
  }
  std::vector<float> b(static_cast<std::size_t>(depth * x.columns));
  for (u32 k = 0; k < static_cast<u32>(depth); ++k) {
    for (u32 n = 0; n < static_cast<u32>(x.columns); ++n) {
      const u32 from =
          along_rows
              ? n / 8 * stride(x.b_tile) + n % 8 * 128 + k * static_cast<u32>(bytes)
              : n / 64 * lead(x.b_tile) + k / 8 * stride(x.b_tile) + k % 8 * 128 + n % 64 * 2;
      b[k * x.columns + n] = tile_element(start(x.b_tile) + from, x.element);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    std::vector<float>& sums = all.sums.at(x.c[lane]);
    for (int i = 0; i < x.columns / 2; ++i) {
      const int row = lane / 4 + i / 2 % 2 * 8, n = i / 4 * 8 + lane % 4 * 2 + i % 2;
      double sum = x.add ? sums[i] : 0.0;
      for (int k = 0; k < depth; ++k) sum += static_cast<double>(a[row][k]) * b[k * x.columns + n];
      sums[i] = static_cast<float>(sum);
    }
  }
}

// The oldest `count` products, in order.
inline void execute_first(WarpProducts& all, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (!all.pending[i].done) execute(all, all.pending[i]);
    all.pending[i].done = true;
  }
}

// Of sums that no product is left to add to.
inline void show_results(WarpProducts& all) {
  for (auto at = all.sums.begin(); at != all.sums.end();) {
    bool busy = false;
    for (const WarpProduct& x : all.pending) {
      for (const float* c : x.c) busy |= c == at->first;
    }
    if (busy) {
      ++at;
    } else {
      std::memcpy(at->first, at->second.data(), at->second.size() * 4);
      at = all.sums.erase(at);
    }
  }
}

struct ProductSlotOfLane {
  float* c;
  const u32* a;
  u64 a_tile, b_tile;
  int columns;
  Element element;
  bool add;
};

inline void issue(float* c, const u32* a, u64 a_tile, u64 b_tile, int columns, Element element,
                  bool add) {
  ProductSlotOfLane slot{c, a, a_tile, b_tile, columns, element, add};
  emulator::meet_warp(&slot, [](void* const* lanes) {
    WarpProducts& all = WarpProducts::mine();
    WarpProduct x;
    const auto& first = *static_cast<const ProductSlotOfLane*>(lanes[0]);
    x.columns = first.columns, x.element = first.element, x.add = first.add;
    x.from_registers = first.a != nullptr, x.a_tile = first.a_tile, x.b_tile = first.b_tile;
    x.warp = static_cast<int>(threadIdx.x) / 32 % 4;
    all.follow_group(x.b_tile);
    for (int lane = 0; lane < 32; ++lane) {
      const auto& mine = *static_cast<const ProductSlotOfLane*>(lanes[lane]);
      if (mine.a_tile != x.a_tile || mine.b_tile != x.b_tile || mine.add != x.add) {
        emulator::fail("describes another product than its warp");
      }
      x.c[lane] = mine.c, x.a[lane] = mine.a;
      const std::size_t count = static_cast<std::size_t>(x.columns) / 2;
      all.sums.try_emplace(mine.c, mine.c, mine.c + count);
      for (std::size_t i = 0; i < count; ++i) mine.c[i] = NAN;
    }
    all.pending.push_back(x);
    ++all.open;
    if (emulator::chance(4)) detail::execute_first(all, all.pending.size());
  });
}

}  // namespace detail

inline void wgmma_fence() {}
inline void wgmma_commit() {
  emulator::meet_warp(nullptr, [](void* const*) {
    auto& all = detail::WarpProducts::mine();
    all.follow_group(detail::kCommits);
    all.groups.push_back(all.open);
    all.open = 0;
  });
}
template <int kPending>
void wgmma_wait() {
  emulator::meet_warp(nullptr, [](void* const*) {
    auto& all = detail::WarpProducts::mine();
    all.follow_group(detail::kWaits - kPending);
    while (all.groups.size() > kPending) {
      const std::size_t count = all.groups.front();
      detail::execute_first(all, count);
      all.pending.erase(all.pending.begin(),
                        all.pending.begin() + static_cast<std::ptrdiff_t>(count));
      all.groups.pop_front();
    }
    detail::show_results(all);
  });
}
template <int kCount>
void wgmma_touch(float (&)[kCount]) {}
template <int kTiles>
float (&flat(float (&x)[1][kTiles][4]))[kTiles * 4] {
  return reinterpret_cast<float(&)[kTiles * 4]>(x);
}

struct WgmmaTile {
  u32 low, high;
  WgmmaTile(u32 address, int lead, int stride)
      : low((address >> 4 & 0x3fff) | static_cast<u32>(lead >> 4) << 16),
        high(static_cast<u32>(stride >> 4) | 1u << 30) {}
  [[nodiscard]] u64 at(int bytes) const {
    return static_cast<u64>(high) << 32 | (low + (bytes >> 4));
  }
};

template <int kColumns>
struct Wgmma {
  template <Element kElement>
  static void multiply(float (&c)[kColumns / 2], u64 a, u64 b, bool add) {
    detail::issue(c, nullptr, a, b, kColumns, kElement, add);
  }
  template <Element kElement>
  static void add(float (&c)[kColumns / 2], const u32 (&a)[4], u64 b, bool adds) {
    detail::issue(c, a, 0, b, kColumns, kElement, adds);
  }
};

}  // namespace attune::kernel
