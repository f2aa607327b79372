// Matrix products of a warpgroup, four neighbouring warps, on tiles in shared memory (PTX ISA, "wgmma").
// sm_90a alone. Results: each warp has 16 of the 64 rows, in mma's C fragments, [8-column tile][4].
//
// Sums are complete, and operands may be overwritten, after wgmma_wait().
#pragma once

#include <attune/spec/portable.h>

#include <attune/arch/shared.cuh>

namespace attune::kernel {

// Before the first product after registers or shared memory were written.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending groups are.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// x is an operand or a result of products under way: the compiler must not move its uses over them.
template <int kCount>
__device__ __forceinline__ void wgmma_touch(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

// Fragments as the list of registers that the products below take.
template <int kTiles>
__device__ __forceinline__ float (&flat(float (&x)[1][kTiles][4]))[kTiles * 4] {
  return reinterpret_cast<float(&)[kTiles * 4]>(x);
}

// Where a tile of 128-byte rows lies whose 16-byte chunks are exchanged as the copy engine does
// (128-byte swizzle). Strides in bytes: `lead` from 64 columns to the next where columns are the
// product's rows or columns (else unused), `stride` from 8 rows to the next.
struct WgmmaTile {
  u32 low, high;
  __device__ __forceinline__ WgmmaTile(u32 address, int lead, int stride)
      : low((address >> 4 & 0x3fff) | static_cast<u32>(lead >> 4) << 16),
        high(static_cast<u32>(stride >> 4) | 1u << 30) {}
  // From so many bytes on, known at compile time.
  [[nodiscard]] __device__ __forceinline__ u64 at(int bytes) const {
    return static_cast<u64>(high) << 32 | (low + (bytes >> 4));
  }
};

// One step of 32 bytes in depth, for 64 rows and kColumns columns:
// multiply(c, a, b, add): c = a b^T, or c += where `add`: both tiles in shared memory, [rows][depth];
// add(c, a, b, adds): c = a b, or c += where `adds`: a in registers, as mma's A fragments; b in shared memory,
// [depth][columns], or of 8 bits, where the product knows no other way, [columns][depth].
// Operand lists are text: the preprocessor writes them, from parts of 8 registers.
template <int kColumns>
struct Wgmma;

#define ATTUNE_TIE_8(x, i)                                                                    \
  "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), \
      "+f"(x[i + 6]), "+f"(x[i + 7])

#define ATTUNE_TIE_4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])

#define ATTUNE_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ATTUNE_R8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define ATTUNE_R16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define ATTUNE_R24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define ATTUNE_R32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define ATTUNE_R40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define ATTUNE_R48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define ATTUNE_R56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define ATTUNE_R64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define ATTUNE_R72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define ATTUNE_R80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define ATTUNE_R88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define ATTUNE_R96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define ATTUNE_R104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define ATTUNE_R112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define ATTUNE_R120 "%120, %121, %122, %123, %124, %125, %126, %127"

#define ATTUNE_H32 "%32, %33, %34, %35"
#define ATTUNE_H64 "%64, %65, %66, %67"

#define ATTUNE_WGMMA(columns, list, shape, a, flags) \
  "wgmma.mma_async.sync.aligned.m64n" #columns shape " {" list "}, " a flags ";"
#define ATTUNE_BF16 "k16.f32.bf16.bf16"
#define ATTUNE_F16 "k16.f32.f16.f16"
#define ATTUNE_E4M3 "k32.f32.e4m3.e4m3"

#define ATTUNE_LIST_64 ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24
#define ATTUNE_TIES_64(x) \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24)
#define ATTUNE_LIST_72 ATTUNE_LIST_64 ", " ATTUNE_H32
#define ATTUNE_TIES_72(x) ATTUNE_TIES_64(x), ATTUNE_TIE_4(x, 32)
#define ATTUNE_LIST_80 ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32
#define ATTUNE_TIES_80(x)                                                           \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24), \
      ATTUNE_TIE_8(x, 32)
#define ATTUNE_LIST_96 \
  ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32 ", " ATTUNE_R40
#define ATTUNE_TIES_96(x)                                                           \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24), \
      ATTUNE_TIE_8(x, 32), ATTUNE_TIE_8(x, 40)
#define ATTUNE_LIST_112                                                                    \
  ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32 ", " ATTUNE_R40 \
            ", " ATTUNE_R48
#define ATTUNE_TIES_112(x)                                                          \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24), \
      ATTUNE_TIE_8(x, 32), ATTUNE_TIE_8(x, 40), ATTUNE_TIE_8(x, 48)
#define ATTUNE_LIST_128                                                                    \
  ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32 ", " ATTUNE_R40 \
            ", " ATTUNE_R48 ", " ATTUNE_R56
#define ATTUNE_TIES_128(x)                                                          \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24), \
      ATTUNE_TIE_8(x, 32), ATTUNE_TIE_8(x, 40), ATTUNE_TIE_8(x, 48), ATTUNE_TIE_8(x, 56)
#define ATTUNE_LIST_136 ATTUNE_LIST_128 ", " ATTUNE_H64
#define ATTUNE_TIES_136(x) ATTUNE_TIES_128(x), ATTUNE_TIE_4(x, 64)
#define ATTUNE_LIST_160 ATTUNE_LIST_128 ", " ATTUNE_R64 ", " ATTUNE_R72
#define ATTUNE_TIES_160(x) ATTUNE_TIES_128(x), ATTUNE_TIE_8(x, 64), ATTUNE_TIE_8(x, 72)
#define ATTUNE_LIST_192                                                                     \
  ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32 ", " ATTUNE_R40  \
            ", " ATTUNE_R48 ", " ATTUNE_R56 ", " ATTUNE_R64 ", " ATTUNE_R72 ", " ATTUNE_R80 \
            ", " ATTUNE_R88
#define ATTUNE_TIES_192(x)                                                                \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24),       \
      ATTUNE_TIE_8(x, 32), ATTUNE_TIE_8(x, 40), ATTUNE_TIE_8(x, 48), ATTUNE_TIE_8(x, 56), \
      ATTUNE_TIE_8(x, 64), ATTUNE_TIE_8(x, 72), ATTUNE_TIE_8(x, 80), ATTUNE_TIE_8(x, 88)
#define ATTUNE_LIST_256                                                                     \
  ATTUNE_R0 ", " ATTUNE_R8 ", " ATTUNE_R16 ", " ATTUNE_R24 ", " ATTUNE_R32 ", " ATTUNE_R40  \
            ", " ATTUNE_R48 ", " ATTUNE_R56 ", " ATTUNE_R64 ", " ATTUNE_R72 ", " ATTUNE_R80 \
            ", " ATTUNE_R88 ", " ATTUNE_R96 ", " ATTUNE_R104 ", " ATTUNE_R112 ", " ATTUNE_R120
#define ATTUNE_TIES_256(x)                                                                \
  ATTUNE_TIE_8(x, 0), ATTUNE_TIE_8(x, 8), ATTUNE_TIE_8(x, 16), ATTUNE_TIE_8(x, 24),       \
      ATTUNE_TIE_8(x, 32), ATTUNE_TIE_8(x, 40), ATTUNE_TIE_8(x, 48), ATTUNE_TIE_8(x, 56), \
      ATTUNE_TIE_8(x, 64), ATTUNE_TIE_8(x, 72), ATTUNE_TIE_8(x, 80), ATTUNE_TIE_8(x, 88), \
      ATTUNE_TIE_8(x, 96), ATTUNE_TIE_8(x, 104), ATTUNE_TIE_8(x, 112), ATTUNE_TIE_8(x, 120)

// The two products of kColumns = n: a row of results has n / 2 words in a thread, numbered from 0 on, and the
// operands have the numbers after them.
#define ATTUNE_WGMMA_KEYS(n, shape, a, b, p, ways)                                     \
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #p ", 0;\n" ATTUNE_WGMMA(        \
                   n, ATTUNE_LIST_##n, shape, "%" #a ", %" #b, ", p, 1, 1" ways) "\n}" \
               : ATTUNE_TIES_##n(c)                                                    \
               : "l"(a_tile), "l"(b_tile), "r"(static_cast<int>(add)))
#define ATTUNE_WGMMA_VALUES(n, shape, a0, a1, a2, a3, b, p, way)                                \
  asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #p ", 0;\n" ATTUNE_WGMMA(                 \
                   n, ATTUNE_LIST_##n, shape, "{%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b, \
                   ", p, 1, 1" way) "\n}"                                                       \
               : ATTUNE_TIES_##n(c)                                                             \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile),                       \
                 "r"(static_cast<int>(adds)))
#define ATTUNE_WGMMA_OF(n, i0, i1, i2, i3, i4, i5)                                               \
  template <>                                                                                    \
  struct Wgmma<n> {                                                                              \
    template <Element kElement>                                                                  \
    static __device__ __forceinline__ void multiply(float (&c)[n / 2], u64 a_tile, u64 b_tile,   \
                                                    bool add) {                                  \
      if constexpr (kElement == Element::bf16) {                                                 \
        ATTUNE_WGMMA_KEYS(n, ATTUNE_BF16, i0, i1, i2, ", 0, 0");                                 \
      } else if constexpr (kElement == Element::f16) {                                           \
        ATTUNE_WGMMA_KEYS(n, ATTUNE_F16, i0, i1, i2, ", 0, 0");                                  \
      } else {                                                                                   \
        ATTUNE_WGMMA_KEYS(n, ATTUNE_E4M3, i0, i1, i2, "");                                       \
      }                                                                                          \
    }                                                                                            \
    template <Element kElement>                                                                  \
    static __device__ __forceinline__ void add(float (&c)[n / 2], const u32 (&a)[4], u64 b_tile, \
                                               bool adds) {                                      \
      if constexpr (kElement == Element::bf16) {                                                 \
        ATTUNE_WGMMA_VALUES(n, ATTUNE_BF16, i0, i1, i2, i3, i4, i5, ", 1");                      \
      } else if constexpr (kElement == Element::f16) {                                           \
        ATTUNE_WGMMA_VALUES(n, ATTUNE_F16, i0, i1, i2, i3, i4, i5, ", 1");                       \
      } else {                                                                                   \
        ATTUNE_WGMMA_VALUES(n, ATTUNE_E4M3, i0, i1, i2, i3, i4, i5, "");                         \
      }                                                                                          \
    }                                                                                            \
  }

ATTUNE_WGMMA_OF(64, 32, 33, 34, 35, 36, 37);
ATTUNE_WGMMA_OF(72, 36, 37, 38, 39, 40, 41);
ATTUNE_WGMMA_OF(80, 40, 41, 42, 43, 44, 45);
ATTUNE_WGMMA_OF(96, 48, 49, 50, 51, 52, 53);
ATTUNE_WGMMA_OF(112, 56, 57, 58, 59, 60, 61);
ATTUNE_WGMMA_OF(128, 64, 65, 66, 67, 68, 69);
ATTUNE_WGMMA_OF(136, 68, 69, 70, 71, 72, 73);
ATTUNE_WGMMA_OF(160, 80, 81, 82, 83, 84, 85);
ATTUNE_WGMMA_OF(192, 96, 97, 98, 99, 100, 101);
ATTUNE_WGMMA_OF(256, 128, 129, 130, 131, 132, 133);

#undef ATTUNE_WGMMA_OF
#undef ATTUNE_WGMMA_VALUES
#undef ATTUNE_WGMMA_KEYS
#undef ATTUNE_H32
#undef ATTUNE_H64
#undef ATTUNE_LIST_72
#undef ATTUNE_TIES_72
#undef ATTUNE_LIST_136
#undef ATTUNE_TIES_136
#undef ATTUNE_TIE_4
#undef ATTUNE_R0
#undef ATTUNE_R8
#undef ATTUNE_R16
#undef ATTUNE_R24
#undef ATTUNE_R32
#undef ATTUNE_R40
#undef ATTUNE_R48
#undef ATTUNE_R56
#undef ATTUNE_R64
#undef ATTUNE_R72
#undef ATTUNE_R80
#undef ATTUNE_R88
#undef ATTUNE_R96
#undef ATTUNE_R104
#undef ATTUNE_R112
#undef ATTUNE_R120
#undef ATTUNE_LIST_64
#undef ATTUNE_TIES_64
#undef ATTUNE_LIST_80
#undef ATTUNE_TIES_80
#undef ATTUNE_LIST_96
#undef ATTUNE_TIES_96
#undef ATTUNE_LIST_112
#undef ATTUNE_TIES_112
#undef ATTUNE_LIST_128
#undef ATTUNE_TIES_128
#undef ATTUNE_LIST_160
#undef ATTUNE_TIES_160
#undef ATTUNE_LIST_192
#undef ATTUNE_TIES_192
#undef ATTUNE_LIST_256
#undef ATTUNE_TIES_256
#undef ATTUNE_WGMMA
#undef ATTUNE_BF16
#undef ATTUNE_F16
#undef ATTUNE_E4M3
#undef ATTUNE_TIE_8

}  // namespace attune::kernel
