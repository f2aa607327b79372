// The kernels of one instruction set, as a table of functions.
#include "cpu/job.h"
#if defined(ATTUNE_ISA_amx)
#include "cpu/kernel/amx_half.h"
#endif
#include "cpu/kernel/backward.h"
#include "cpu/kernel/forward.h"

namespace attune::cpu::ATTUNE_ISA {

namespace {

#if defined(ATTUNE_ISA_avx512bf16)
constexpr KernelSet kSet = {
    {{}, {}, Forward<Bf16Arith>::kernel()},
    {{}, {}, Backward<Bf16Arith>::kernel()},
};
#elif defined(ATTUNE_ISA_amx)
constexpr KernelSet kSet = {
    {{}, Forward<AmxHalfArith>::kernel(), Forward<AmxArith>::kernel()},
    {{}, Backward<AmxHalfArith>::kernel(), Backward<AmxArith>::kernel()},
};
#else
constexpr KernelSet kSet = {
    {Forward<FloatArith<float> >::kernel(), Forward<FloatArith<f16> >::kernel(),
     Forward<FloatArith<bf16> >::kernel(), Forward<FloatArith<f8e4m3, bf16> >::kernel()},
    {Backward<FloatArith<float> >::kernel(), Backward<FloatArith<f16> >::kernel(),
     Backward<FloatArith<bf16> >::kernel()},
};
#endif

}  // namespace

const KernelSet* kernels() { return &kSet; }

}  // namespace attune::cpu::ATTUNE_ISA
