// The kernels' dropout mask, read out of their results element by element, against the oracle's
// keep decision for the element numbers of the contract, of both streams.
#include <gtest/gtest.h>

#include <attune/oracle.hpp>
#include <cstdint>
#include <string>
#include <utility>

#include "tests/support/device_under_test.h"
#include "tests/support/judge.h"
#include "tests/support/tensors.h"

namespace attune::testing {
namespace {

constexpr std::uint64_t kSeed = 0x0123456789ABCDEFu;

// Offsets inside and across a block of four words, 2^32 (where a carry is due), 2^34 (where the number of the block
// has one: before it, across it and behind it) and 2^63.
constexpr std::uint64_t kOffsets[] = {0,
                                      1,
                                      6,
                                      (std::uint64_t{1} << 32) - 5,
                                      (std::uint64_t{1} << 34) - 30,
                                      (std::uint64_t{1} << 34) - 32,
                                      (std::uint64_t{5} << 34) + 8,
                                      (std::uint64_t{1} << 63) - 7};

Problem with_dropout(Kind kind, DType dtype, double dropout, DropoutStream stream) {
  Problem p;
  p.kind = kind;
  p.device = Device::cpu;
  p.dtype = dtype;
  p.b = 2;
  p.hq = 3;
  p.sq = 19;
  p.sk = 37;
  p.d = 8;
  p.dv = 8;
  p.dropout = dropout;
  p.dropout_stream = stream;
  if (kind == Kind::backward) p.lse = LseLayout::plain;
  return p;
}

bool keep(const Problem& p, const Arguments& a, std::int64_t b, std::int64_t h, std::int64_t i,
          std::int64_t j) {
  return oracle::dropout_keep(p, a.dropout_seed, a.dropout_offset, b, h, i, j);
}

double identity(std::int64_t row, std::int64_t column) { return row == column ? 1 : 0; }

void run(const Problem& p, const KernelSpec& kernel, Tensors& tensors, const Arguments& a) {
  tensors.poison_outputs();
  const Status status = run_kernel(p, kernel, a, 2);
  ASSERT_TRUE(status.ok()) << id_of(kernel) << ": " << status.message();
}

class Dropout : public ::testing::TestWithParam<DropoutStream> {};

std::string name_of_stream(const ::testing::TestParamInfo<DropoutStream>& info) {
  return info.param == DropoutStream::fa2 ? "Fa2" : "Curand";
}
INSTANTIATE_TEST_SUITE_P(Streams, Dropout,
                         ::testing::Values(DropoutStream::curand, DropoutStream::fa2),
                         name_of_stream);

// With v = identity, o[i, j] is P_ij Z_ij, and P is nowhere 0.
TEST_P(Dropout, ForwardMaskIsTheOracles) {
  if (on_gpu() && !no_gpu().empty()) GTEST_SKIP() << no_gpu();
  for (const KernelSpec& kernel : available_kernels()) {
    if (kernel.kind != Kind::forward) continue;
    // 64 keys and values of 64 numbers, too: rows that 16-byte loads may read.
    for (const auto& [dropout, keys] : {std::pair{0.1, 37}, {0.5, 37}, {0.5, 64}, {0.9, 64}}) {
      Problem p = with_dropout(Kind::forward, kernel.dtype, dropout, GetParam());
      p.hkv = 1;
      p.sk = p.dv = keys;
      if (!serves(kernel, p)) continue;
      Tensors tensors(p, Distribution::normal, 5);
      tensors.edit("v", [](const Index& i) { return identity(i[1], i[3]); });
      for (const std::uint64_t offset : kOffsets) {
        Arguments a = tensors.arguments();
        a.dropout_seed = kSeed;
        a.dropout_offset = offset;
        ASSERT_NO_FATAL_FAILURE(run(p, kernel, tensors, a));
        const TensorMemory& o = *tensors.outputs().front().memory;
        for_each_index(o.view(), [&](const Index& i) {
          ASSERT_EQ(o.get(i) != 0, keep(p, a, i[0], i[2], i[1], i[3]))
              << id_of(kernel) << " b " << i[0] << " h " << i[2] << " i " << i[1] << " j " << i[3]
              << " offset " << offset << ": " << print(p);
        });
      }
    }
  }
}

// With dO = identity, dV[j, i] is P_ij Z_ij: the backward pass draws the same mask.
TEST_P(Dropout, BackwardMaskIsTheOracles) {
  for (const KernelSpec& kernel : available_kernels()) {
    if (kernel.kind != Kind::backward) continue;
    Problem p = with_dropout(Kind::backward, kernel.dtype, 0.5, GetParam());
    p.hkv = 3;
    p.dv = p.sq;
    Tensors tensors(p, Distribution::normal, 6);
    if (!serves(kernel, p, tensors.arguments())) continue;
    tensors.edit("grad_o", [](const Index& i) { return identity(i[1], i[3]); });
    for (const std::uint64_t offset : kOffsets) {
      Arguments a = tensors.arguments();
      a.dropout_seed = kSeed;
      a.dropout_offset = offset;
      const Expected<oracle::Result> forward = oracle::run(p, a);
      ASSERT_TRUE(forward.ok()) << forward.status().message();
      tensors.set_forward(*forward);
      ASSERT_NO_FATAL_FAILURE(run(p, kernel, tensors, a));
      const TensorMemory* grad_v = nullptr;
      for (const Tensors::Output& output : tensors.outputs()) {
        if (output.name == "grad_v") grad_v = output.memory;
      }
      ASSERT_NE(grad_v, nullptr);
      for_each_index(grad_v->view(), [&](const Index& i) {
        ASSERT_EQ(grad_v->get(i) != 0, keep(p, a, i[0], i[2], i[3], i[1]))
            << id_of(kernel) << " b " << i[0] << " h " << i[2] << " i " << i[3] << " j " << i[1]
            << " offset " << offset << ": " << print(p);
      });
    }
  }
}

// Packed: b is the sequence, i and j count inside it, and the row lengths are the Problem's.
TEST_P(Dropout, PackedElementsAreNumberedByTheLongestLengths) {
  for (const KernelSpec& kernel : available_kernels()) {
    if (kernel.kind != Kind::forward) continue;
    Problem p = with_dropout(Kind::forward, kernel.dtype, 0.5, GetParam());
    p.b = 3;
    p.hkv = 3;
    p.packed_q = p.packed_k = true;
    p.total_q = 40;
    p.total_k = 60;
    p.dv = p.sk;
    if (!serves(kernel, p)) continue;
    Tensors tensors(p, Distribution::normal, 8);
    const std::int64_t q_starts[] = {0, 17, 17, 36};
    const std::int64_t k_starts[] = {0, 8, 20, 57};
    tensors.edit("cu_seqlens_q",
                 [&](const Index& i) { return static_cast<double>(q_starts[i[0]]); });
    tensors.edit("cu_seqlens_k",
                 [&](const Index& i) { return static_cast<double>(k_starts[i[0]]); });
    tensors.edit("v", [&](const Index& i) {
      const std::int64_t start = i[1] < 8 ? 0 : i[1] < 20 ? 8 : 20;
      return identity(i[1] - start, i[3]);
    });
    Arguments a = tensors.arguments();
    a.dropout_seed = kSeed;
    a.dropout_offset = 3;
    ASSERT_NO_FATAL_FAILURE(run(p, kernel, tensors, a));
    const TensorMemory& o = *tensors.outputs().front().memory;
    for (std::int64_t b = 0; b < p.b; ++b) {
      for (std::int64_t h = 0; h < p.hq; ++h) {
        for (std::int64_t i = 0; i < q_starts[b + 1] - q_starts[b]; ++i) {
          for (std::int64_t j = 0; j < k_starts[b + 1] - k_starts[b]; ++j) {
            ASSERT_EQ(o.get({0, q_starts[b] + i, h, j}) != 0, keep(p, a, b, h, i, j))
                << id_of(kernel) << " b " << b << " h " << h << " i " << i << " j " << j;
          }
        }
      }
    }
  }
}

// Element numbers past 2^32 by the sizes alone: 2^20 keys (of which three exist) times 5,000 heads.
TEST_P(Dropout, NumbersElementsPastTwoToTheThirtyTwo) {
  for (const KernelSpec& kernel : available_kernels()) {
    if (kernel.kind != Kind::forward) continue;
    Problem p = with_dropout(Kind::forward, kernel.dtype, 0.5, GetParam());
    p.b = 1;
    p.hq = 5000;
    p.sq = 1;
    p.sk = (std::int64_t{1} << 20) - 3;
    p.d = 1;
    p.dv = 3;
    p.key_lengths = true;
    if (!serves(kernel, p)) continue;
    Tensors tensors(p, Distribution::normal, 9);
    tensors.edit("key_lengths", [](const Index&) { return 3; });
    tensors.edit("v", [](const Index& i) { return identity(i[1], i[3]); });
    Arguments a = tensors.arguments();
    a.dropout_seed = kSeed;
    a.dropout_offset = 0;
    ASSERT_NO_FATAL_FAILURE(run(p, kernel, tensors, a));
    const TensorMemory& o = *tensors.outputs().front().memory;
    for_each_index(o.view(), [&](const Index& i) {
      ASSERT_EQ(o.get(i) != 0, keep(p, a, 0, i[2], 0, i[3]))
          << id_of(kernel) << " h " << i[2] << " j " << i[3];
    });
  }
}

}  // namespace
}  // namespace attune::testing
