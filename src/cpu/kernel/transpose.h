// A square of kLanes x kLanes words, transposed in registers.
#pragma once

#include "cpu/kernel/simd.h"

namespace attune::cpu::ATTUNE_ISA {

template <int... kIndex>
struct Lanes {};
template <int kCount, int... kIndex>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kIndex...> {};
template <int... kIndex>
struct MakeLanes<0, kIndex...> {
  using type = Lanes<kIndex...>;
};

// One butterfly step: the kStep-wide off-diagonal squares of the pair (a, b) change places.
template <int kStep, int... kIndex>
ATTUNE_INLINE void exchange(F& a, F& b, Lanes<kIndex...> /*lanes*/) {
  const F low =
      __builtin_shufflevector(a, b, ((kIndex & kStep) ? kLanes + kIndex - kStep : kIndex)...);
  const F high =
      __builtin_shufflevector(a, b, ((kIndex & kStep) ? kLanes + kIndex : kIndex + kStep)...);
  a = low;
  b = high;
}

template <int kStep>
ATTUNE_INLINE void transpose_step(F (&x)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kStep) == 0) exchange<kStep>(x[i], x[i + kStep], typename MakeLanes<kLanes>::type{});
  }
}

ATTUNE_INLINE void transpose(F (&x)[kLanes]) {
  transpose_step<1>(x);
  transpose_step<2>(x);
  if constexpr (kLanes >= 8) transpose_step<4>(x);
  if constexpr (kLanes >= 16) transpose_step<8>(x);
}

}  // namespace attune::cpu::ATTUNE_ISA
