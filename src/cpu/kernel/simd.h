// Vectors of the instruction set that this file is compiled for. GCC's and Clang's vector types do
// most of the work; intrinsics only where the compiler would not find the instruction.
#pragma once

#include <sched.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define ATTUNE_INLINE inline __attribute__((always_inline))
#define ATTUNE_LAMBDA_INLINE __attribute__((always_inline))

namespace attune::cpu::ATTUNE_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using F = float __attribute__((vector_size(kLanes * 4)));
using I = std::int32_t __attribute__((vector_size(kLanes * 4)));
using U = std::uint32_t __attribute__((vector_size(kLanes * 4)));
using U64 = std::uint64_t __attribute__((vector_size(kLanes * 8)));
using H = std::uint16_t __attribute__((vector_size(kLanes * 2)));
using B = std::uint8_t __attribute__((vector_size(kLanes)));

template <typename V, typename T>
ATTUNE_INLINE V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename V, typename T>
ATTUNE_INLINE void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}
ATTUNE_INLINE F loadf(const float* p) { return load<F>(p); }
ATTUNE_INLINE F splat(float x) { return x - F{}; }
ATTUNE_INLINE I splat(std::int32_t x) { return x - I{}; }
ATTUNE_INLINE U as_u(F x) { return reinterpret_cast<U>(x); }
ATTUNE_INLINE F as_f(U x) { return reinterpret_cast<F>(x); }
ATTUNE_INLINE F as_f(I x) { return reinterpret_cast<F>(x); }
ATTUNE_INLINE F to_f(I x) { return __builtin_convertvector(x, F); }
ATTUNE_INLINE F select(I mask, F yes, F no) { return mask ? yes : no; }

// The second operand when either is NaN, as x86 does.
ATTUNE_INLINE F max(F a, F b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
ATTUNE_INLINE F abs(F x) { return as_f(as_u(x) & 0x7fffffffu); }

ATTUNE_INLINE bool any(I mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) != 0;
#else
  return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
}

// True where x is NaN or infinite.
ATTUNE_INLINE I nonfinite(F x) {
  return reinterpret_cast<I>(as_u(x) & 0x7f800000u) == splat(0x7f800000);
}

// One turn of a wait. Short waits are the rule; a long one means more threads than cores, so give the
// core away.
ATTUNE_INLINE void pause(int tries) {
  if (tries > 1000) sched_yield();
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

template <typename T>
ATTUNE_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
ATTUNE_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}
ATTUNE_INLINE std::int64_t round_up(std::int64_t x, std::int64_t to) {
  return (x + to - 1) / to * to;
}

}  // namespace attune::cpu::ATTUNE_ISA
