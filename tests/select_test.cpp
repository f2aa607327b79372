// Which row of the portable family a Problem gets on which GPU, and why not the others. No GPU is
// needed.
#include "select/select.h"

#include <attune/kernel/backward_portable_layout.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <attune/plan.hpp>
#include <attune/problem.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "select/hopper_cost.h"
#include "tests/support/random_problem.h"

namespace attune::testing {
namespace {

// Forward unless the words say so.
Problem problem(const std::string& words) {
  const bool backward = words.rfind("backward ", 0) == 0;
  const Expected<Problem> parsed = parse((backward ? "" : "forward ") + words + " device=cuda");
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  return parsed.ok() ? *parsed : Problem{};
}

DeviceFacts device(const std::string& arch) {
  const Expected<DeviceFacts> found = device_of(arch);
  EXPECT_TRUE(found.ok()) << found.status().message();
  return found.ok() ? *found : DeviceFacts{};
}

// The row that is taken, if any serves.
std::optional<Candidate> taken(const Problem& problem, const DeviceFacts& device) {
  for (const Candidate& candidate : candidates(problem, {}, &device)) {
    if (candidate.reasons.empty()) return candidate;
  }
  return {};
}

// Its id; empty when none serves.
std::string chosen(const Problem& problem, const DeviceFacts& device) {
  const std::optional<Candidate> row = taken(problem, device);
  return row ? id_of(row->spec) : "";
}

// All reasons against the first row whose id has `part`.
std::string reasons_against(const Problem& problem, const DeviceFacts& device,
                            const std::string& part) {
  for (const Candidate& candidate : candidates(problem, {}, &device)) {
    if (id_of(candidate.spec).find(part) == std::string::npos) continue;
    std::string all;
    for (const std::string& reason : candidate.reasons) all += reason + "\n";
    return all;
  }
  ADD_FAILURE() << "no row " << part;
  return {};
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

TEST(Select, TakesAlignedThenSmallestThenLeast) {
  const DeviceFacts ada = device("sm_89");
  const struct {
    const char* words;
    const char* row;
  } cases[] = {
      {"dtype=bf16 d=64", "sm80.bf16.d64.aligned.plain"},
      {"dtype=bf16 d=40 dv=96", "sm80.bf16.d96.aligned.plain"},
      {"dtype=f16 d=128 bias=f32", "sm80.f16.d128.aligned.bias"},
      {"dtype=f16 d=128 dropout=0.1", "sm80.f16.d128.aligned.dropout"},
      {"dtype=f16 d=128 dropout=0.1 bias=bool", "sm80.f16.d128.aligned.full"},
      {"dtype=bf16 d=64 softcap=30", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 alibi=head", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 scale=-1", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 scale=0", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 page_size=16", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=63", "sm80.bf16.d64.strided.full"},
      {"dtype=bf16 d=64 align=2", "sm80.bf16.d64.strided.full"},
      {"dtype=f32 d=64 sq=9 q_strides=1000,66,64,1", "sm80.f32.d64.strided.full"},
      {"dtype=bf16 d=1024", "sm80.bf16.dany.aligned.full"},
      {"dtype=bf16 d=1023", "sm80.bf16.dany.strided.full"},
  };
  for (const auto& c : cases) expect_part(chosen(problem(c.words), ada), c.row);
  // Where code needs other tiles, there are rows for them.
  expect_part(chosen(problem("dtype=bf16 d=64"), device("sm_100")), "sm100.bf16.d64.aligned.plain");
  expect_part(chosen(problem("dtype=bf16 d=96"), device("sm_100")), "sm80.bf16.d96.aligned.plain");
  expect_part(chosen(problem("dtype=f16 d=64"), device("sm_75")), "sm75.f16.d64.aligned.full");
}

// Where tiles are fewer than multiprocessors, their keys are shared.
TEST(Select, SharesKeysWhereTilesAreFew) {
  const DeviceFacts h200 = device("sm_90");
  const struct {
    const char* words;
    bool split;
  } cases[] = {
      {"dtype=bf16 d=128 hq=32 hkv=8 sq=1 sk=8192", true},
      {"dtype=f16 d=64 hq=64 hkv=8 sq=4 sk=4096 mask=causal-bottom-right", true},
      {"dtype=bf16 d=192 dv=128 hq=16 hkv=16 sq=64 sk=16384 mask=causal-bottom-right", true},
      {"dtype=bf16 d=256 hq=8 hkv=8 sq=300 sk=2000 page_size=64", true},
      {"dtype=bf16 d=128 hq=32 hkv=8 sq=1 sk=8192 key_lengths", true},
      // Nothing to share, or no multiprocessor to share it with.
      {"dtype=bf16 d=128 sq=1 sk=100", false},
      {"dtype=bf16 d=128 b=4 hq=32 hkv=8 sq=4096 sk=4096", false},
      {"dtype=f16 d=64 b=8 hq=16 hkv=16 sq=2048 sk=2048 mask=causal-bottom-right", false},
      // Rows without what the problem asks for.
      {"dtype=bf16 d=128 hq=32 hkv=8 sq=1 sk=8192 dropout=0.1", false},
      {"dtype=bf16 d=128 hq=32 hkv=8 sq=1 sk=8192 softcap=30", false},
      {"dtype=bf16 d=128 hq=32 hkv=8 sq=1 sk=8192 bias=bf16 bias_aligned", false},
  };
  for (const auto& c : cases) {
    const std::string row = chosen(problem(c.words), h200);
    EXPECT_EQ(row.find(".split.") != std::string::npos, c.split) << c.words << ": " << row;
  }
  expect_part(reasons_against(problem("dtype=bf16 d=128 hq=4 sk=4096 softcap=30"), h200, ".split."),
              "softcap is not compiled in");
}

TEST(Select, FetchesKeysForTwo) {
  const DeviceFacts h200 = device("sm_90");
  const struct {
    const char* words;
    const char* why;  // not; empty: it does
  } cases[] = {
      {"dtype=bf16 d=128 b=32 hq=16 hkv=16 sq=512 sk=512", ""},
      {"dtype=f16 d=256 b=32 hq=8 hkv=8 sq=1000 sk=512 lse", ""},
      {"dtype=bf16 d=128 b=32 hq=16 hkv=8 sq=300 sk=512", ""},
      {"dtype=bf16 d=128 b=4 hq=32 hkv=8 sq=4096 sk=4096 mask=causal-bottom-right", ""},
      {"dtype=bf16 d=128 b=32 hq=16 hkv=16 sq=300 sk=512", "sq = 300 makes 3 tiles of 128"},
      {"dtype=bf16 d=128 b=4 hq=16 hkv=16 sq=4096 sk=4096 mask=causal-bottom-right",
       "hq / hkv = 16 / 16 has to be even"},
      {"dtype=bf16 d=128 b=32 hq=16 hkv=16 sq=512 sk=512 page_size=64", "not in pages"},
      {"dtype=bf16 d=128 b=32 hq=16 hkv=8 sq=512 sk=512 key_lengths", "of one length"},
      {"dtype=bf16 d=128 b=32 hq=16 hkv=8 sq=512 sk=512 softcap=30", "softcap is not compiled in"},
  };
  for (const auto& c : cases) {
    const std::string row = chosen(problem(c.words), h200);
    const bool expected = std::string_view(c.why).empty();
    EXPECT_EQ(row.find(".mates.") != std::string::npos, expected) << c.words << ": " << row;
    if (!expected) {
      expect_part(reasons_against(problem(c.words), h200, "d128.plain.mates."), c.why);
    }
  }
}

TEST(Select, SharesAmongAsManyAsThereAre) {
  const auto shape = [](const std::string& words, int sms, int queries = 64) {
    kernel::HopperSpec row;
    row.queries = queries;
    row.split = true;
    return cluster_shape(row, problem("dtype=bf16 d=128 " + words), sms);
  };
  EXPECT_EQ(shape("hq=8 hkv=1 sq=1 sk=4096", 132), (ClusterShape{8, 8}));
  EXPECT_EQ(shape("hq=24 hkv=2 sq=1 sk=4096", 132), (ClusterShape{8, 4}));
  EXPECT_EQ(shape("hq=12 hkv=2 sq=1 sk=4096", 132), (ClusterShape{8, 2}));
  EXPECT_EQ(shape("hq=7 hkv=1 sq=1 sk=4096", 132), (ClusterShape{8, 1}));
  EXPECT_EQ(shape("hq=128 hkv=1 sq=1 sk=4096", 132), (ClusterShape{8, 64}));
  EXPECT_EQ(shape("hq=8 hkv=1 sq=1 sk=100", 132), (ClusterShape{1, 8}));
  EXPECT_EQ(shape("hq=8 hkv=1 sq=1 sk=500", 132), (ClusterShape{4, 8}));
  EXPECT_EQ(shape("hq=8 hkv=1 sq=1 sk=4096", 1), (ClusterShape{1, 8}));
  EXPECT_EQ(shape("hq=8 hkv=1 sq=1 sk=4096", 5), (ClusterShape{4, 8}));
  EXPECT_EQ(shape("b=64 hq=8 hkv=1 sq=1 sk=4096", 132), (ClusterShape{2, 8}));
  EXPECT_EQ(shape("b=64 hq=16 hkv=2 sq=1 sk=4096", 132), (ClusterShape{1, 8}));
  EXPECT_EQ(shape("b=0 hq=8 hkv=2 sq=1 sk=4096", 132).heads, 4);
  EXPECT_EQ(shape("hq=8 hkv=2 sq=0 sk=4096", 132), (ClusterShape{1, 4}));
}

TEST(Select, TakesHoppersOwnRowsOnHopper) {
  const DeviceFacts h200 = device("sm_90");
  const struct {
    const char* words;
    const char* row;
  } cases[] = {
      {"dtype=bf16 d=64 lse", "hopper.sm90a.bf16.d64.plain"},
      {"dtype=bf16 d=64", "hopper.sm90a.bf16.d64.nolse"},
      {"dtype=bf16 d=104 lse=padded32", "hopper.sm90a.bf16.d128.plain"},
      {"dtype=bf16 d=104", "hopper.sm90a.bf16.d128.nolse"},
      {"dtype=f16 d=64", "hopper.sm90a.f16.d64.plain"},
      {"dtype=bf16 d=40 dv=96", "hopper.sm90a.bf16.d96.plain"},
      {"dtype=bf16 d=192 dv=128", "hopper.sm90a.bf16.d192v128.plain"},
      {"dtype=bf16 d=128 dv=192", "hopper.sm90a.bf16.d192.plain"},
      {"dtype=f16 d=64 bias=f32", "portable.sm80.f16.d64.aligned.bias"},
      {"dtype=f16 d=128 bias=f32", "portable.sm80.f16.d128.aligned.bias"},
      {"dtype=f16 d=128 dropout=0.1", "hopper.sm90a.f16.d128.dropout"},
      {"dtype=f16 d=72 dropout=0.1", "hopper.sm90a.f16.d96.dropout"},
      {"dtype=f16 d=64 dropout=0.1", "hopper.sm90a.f16.d64.dropout"},
      {"dtype=f16 d=256 dropout=0.1", "portable.sm80.f16.d256.aligned.dropout"},
      {"dtype=bf16 d=256 dropout=0.1", "hopper.sm90a.bf16.d256.dropout"},
      {"dtype=f16 d=128 dropout=0.1 dropout_stream=fa2", "hopper.sm90a.f16.d128.fa2dropout"},
      {"dtype=bf16 d=256 dropout=0.1 dropout_stream=fa2", "hopper.sm90a.bf16.d256.fa2dropout"},
      {"dtype=bf16 d=64 bias=bool dropout=0.1 dropout_stream=fa2",
       "portable.sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=256 b=4 hq=33 hkv=33 sq=100 sk=512", "hopper.sm90a.bf16.d256.plain.q128k64"},
      {"dtype=bf16 d=256 b=4 hq=33 hkv=33 sq=100 sk=4096", "hopper.sm90a.bf16.d256.plain.q128k80"},
      // Large tiles for many, small ones where large ones would leave multiprocessors idle.
      {"dtype=bf16 d=64 hq=32 hkv=32 sq=16384 sk=16384 mask=causal-top-left lse",
       "hopper.sm90a.bf16.d64.plain.q192k112"},
      {"dtype=bf16 d=64 b=4 hq=32 hkv=32 sq=4096 sk=4096 mask=causal-top-left lse",
       "hopper.sm90a.bf16.d64.plain.q128k128"},
      {"dtype=bf16 d=64 b=1 hq=8 hkv=8 sq=4096 sk=4096 mask=causal-top-left lse",
       "hopper.sm90a.bf16.d64.plain.q128k128"},
      {"dtype=bf16 d=64 b=4 hq=32 hkv=32 sq=4096 sk=4096 mask=causal-top-left "
       "offset=4611686018427387904 lse",
       "hopper.sm90a.bf16.d64.plain.q192k112"},
      {"dtype=bf16 d=64 softcap=30", "hopper.sm90a.bf16.d64.general"},
      {"dtype=bf16 d=64 alibi=head", "hopper.sm90a.bf16.d64.general"},
      {"dtype=bf16 d=64 scale=-1", "hopper.sm90a.bf16.d64.general"},
      {"dtype=bf16 d=64 softcap=65", "portable.sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 softcap=30 dropout=0.1", "portable.sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=256 bias=bf16:11qk bias_aligned", "hopper.sm90a.bf16.d256.bias"},
      {"dtype=bf16 d=64 bias=bf16", "portable.sm80.bf16.d64.aligned.bias"},
      {"dtype=bf16 d=64 bias=f16 bias_aligned", "portable.sm80.bf16.d64.aligned.bias"},
      {"dtype=bf16 d=64 bias=bf16:bh1k bias_aligned", "portable.sm80.bf16.d64.aligned.bias"},
      {"dtype=bf16 b=0 d=64 bias=bf16 bias_aligned packed=qk total_q=1 total_k=4",
       "portable.sm80.bf16.d64.aligned.bias"},
      {"dtype=bf16 b=0 d=64 bias=bf16:1hqk bias_aligned packed=qk total_q=1 total_k=4",
       "hopper.sm90a.bf16.d64.bias"},
      {"dtype=f32 d=64", "portable.sm80.f32.d64.aligned.plain"},
      {"dtype=bf16 d=63", "portable.sm80.bf16.d64.strided.full"},
      {"dtype=bf16 d=320", "portable.sm80.bf16.dany.aligned.full"},
      {"dtype=bf16 d=64 page_size=16", "hopper.sm90a.bf16.d64.nolse"},
      {"dtype=bf16 d=64 page_size=1", "portable.sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 hkv=2 hq=2 k_strides=128,128,0,1", "portable.sm80.bf16.d64.aligned.plain"},
      {"dtype=bf16 d=64 sk=0", "portable.sm80.bf16.d64.aligned.plain"},
  };
  for (const auto& c : cases) expect_part(chosen(problem(c.words), h200), c.row);
  const std::string reasons =
      reasons_against(problem("dtype=bf16 d=64 hkv=2 hq=2 sk=9 k_strides=576,64,0,1 page_size=0"),
                      device("sm_100"), "hopper.sm90a.bf16.d64.plain");
  expect_part(reasons_against(problem("dtype=bf16 d=64 lse"), h200, "bf16.d64.nolse"),
              "its rows' sums are of rounded weights, too coarse for the LSE: a plain row has it");
  expect_part(reasons, "made of sm_90's own instructions, the device is sm_100");
  expect_part(reasons, "k_strides[2] = 0: the copy engine takes strides from 1");
}

TEST(Select, GivesEveryReasonAndAWayAround) {
  const std::string reasons =
      reasons_against(problem("dtype=f16 b=2 hq=2 sq=9 d=100 dv=60 align=4 bias=f16 dropout=0.5 "
                              "softcap=2 alibi=head scale=-1 page_size=4 pages=8 "
                              "q_strides=1900,201,100,1 o_strides=1,2,20,300"),
                      device("sm_75"), "sm80.f16.d64.aligned.plain");
  for (const char* part : {
           "it is for sm_80 and later, the device is sm_75",
           "d = 100 is above its bound of 64: a row with a larger bound, or dany, takes it",
           "start at multiples of 4 bytes (align=4), it loads 16 at a time: align them to 16",
           "d = 100 is not a multiple of 8, the f16 elements of 16 bytes: pad it to 104",
           "dv = 60 is not a multiple of 8, the f16 elements of 16 bytes: pad it to 64",
           "q_strides[0] = 1900, from sequence to sequence, is not a multiple of 8",
           "q_strides[1] = 201, from token to token, is not a multiple of 8 elements (16 bytes): "
           "pad it to 208",
           "o_strides[3] = 300: it needs neighbours in memory",
           "bias is not compiled in: a bias row has it",
           "dropout is not compiled in: a dropout row has it",
           "softcap is not compiled in: a full row has it",
           "ALiBi is not compiled in",
           "paged keys is not compiled in",
           "scale = -1 is not positive",
       }) {
    expect_part(reasons, part);
  }
  expect_part(reasons_against(problem("dtype=bf16 d=64"), device("sm_90"), "sm75.bf16.d64"),
              "it is for sm_75 up to sm_79, the device is sm_90: the sm_80 rows serve it");
  expect_part(
      reasons_against(problem("dtype=bf16 d=64 dropout=0.5 dropout_stream=fa2"), device("sm_90"),
                      "sm90a.bf16.d64.dropout"),
      "it draws dropout_stream = curand, and the problem's is fa2: a fa2dropout row draws that");
  DeviceFacts tiny = device("sm_80");
  tiny.shared_per_block = 1000;
  expect_part(reasons_against(problem("dtype=bf16 d=64"), tiny, "sm80.bf16.d64.aligned.plain"),
              "bytes of shared memory a block, sm_80 offers 1000");
}

// Empty where the row that is taken says none.
std::string note_of_chosen(const std::string& words, const std::string& arch) {
  const std::optional<Candidate> row = taken(problem(words), device(arch));
  EXPECT_TRUE(row) << "no row serves " << words;
  return row ? row->note : "";
}

TEST(Select, SaysWhatAPortableRowCostsWhereThereAreBetterOnes) {
  EXPECT_EQ(
      note_of_chosen("dtype=bf16 d=128 alibi=head dropout=0.1", "sm_90"),
      "on an H200 it takes at least 1.3 times as long as "
      "fwd.hopper.sm90a.bf16.d128.dropout.q128k128, the nearest of Hopper's rows: ALiBi is not "
      "compiled in: a general row has it");
  expect_part(note_of_chosen("dtype=f16 d=256 softcap=80 lse", "sm_90"),
              "at least 2.2 times as long as fwd.hopper.sm90a.f16.d256.general.q128k64");
  expect_part(note_of_chosen("dtype=bf16 d=64 align=4", "sm_90"),
              "at least 1.6 times as long as fwd.hopper.sm90a.bf16.d64.");
  for (const char* words : {"dtype=bf16 d=128", "dtype=f32 d=128", "backward dtype=bf16 d=128"}) {
    EXPECT_EQ(note_of_chosen(words, "sm_90"), "") << words;
  }
  EXPECT_EQ(note_of_chosen("dtype=bf16 d=128 alibi=head dropout=0.1", "sm_100"), "");
}

TEST(Select, AForcedRowRefusesTheOthers) {
  const DeviceFacts h200 = device("sm_90");
  const Problem p = problem("dtype=bf16 d=64");
  const std::string second = id_of(candidates(p, {}, &h200)[8].spec);
  for (const Candidate& candidate : candidates(p, second, &h200)) {
    const bool asked = std::any_of(
        candidate.reasons.begin(), candidate.reasons.end(),
        [&](const std::string& reason) { return reason == "the caller asked for " + second; });
    EXPECT_EQ(asked, id_of(candidate.spec) != second);
  }
}

TEST(Select, WithoutAGpuSaysSo) {
  for (const Candidate& candidate : candidates(problem("dtype=bf16 d=64"))) {
    ASSERT_EQ(candidate.reasons.size(), 1U);
    EXPECT_EQ(candidate.reasons.front(), "there is no GPU");
  }
}

TEST(Select, BackwardTakesTheLargestTileThatFits) {
  const struct {
    const char* words;
    const char* arch;
    const char* row;
  } cases[] = {
      {"dtype=bf16 d=64", "sm_90", "bwd.portable.sm80.bf16.d64.aligned.plain.q32k128"},
      {"dtype=bf16 d=128", "sm_90", "bwd.portable.sm80.bf16.d128.aligned.plain.q64k128"},
      {"dtype=bf16 d=128", "sm_86", "bwd.portable.sm80.bf16.d128.aligned.plain.q64k64"},
      {"dtype=f16 d=256", "sm_90", "bwd.portable.sm80.f16.d256.aligned.plain.q64k64"},
      {"dtype=f16 d=256", "sm_80", "bwd.portable.sm80.f16.d256.aligned.plain.q32k64"},
      {"dtype=f16 d=256", "sm_89", "bwd.portable.sm80.f16.d256.aligned.plain.q32k32"},
      {"dtype=f16 d=128 bias=f32 bias_grad", "sm_90", "sm80.f16.d128.aligned.bias"},
      {"dtype=f16 d=128 dropout=0.1", "sm_90", "sm80.f16.d128.aligned.dropout"},
      {"dtype=bf16 d=64 softcap=30", "sm_90", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 scale=-1", "sm_90", "sm80.bf16.d64.aligned.full"},
      {"dtype=bf16 d=64 align=2", "sm_90", "sm80.bf16.d64.strided.full"},
      {"dtype=f32 d=256", "sm_90", "sm80.f32.dany.aligned.full"},
      {"dtype=f16 d=64 deterministic", "sm_75", "sm75.f16.d64.aligned.full"},
  };
  for (const auto& c : cases) {
    expect_part(chosen(problem(std::string("backward lse ") + c.words), device(c.arch)), c.row);
  }
}

TEST(Select, NoBackwardRowTakesPages) {
  const Problem p = problem("backward lse dtype=bf16 d=64 page_size=16");
  for (const Candidate& candidate : candidates(p, {}, &known_devices().back())) {
    ASSERT_FALSE(candidate.reasons.empty());
    EXPECT_TRUE(std::any_of(candidate.reasons.begin(), candidate.reasons.end(),
                            [](const std::string& reason) {
                              return reason ==
                                     "paged keys have no gradient on a GPU: use device=cpu, or "
                                     "gather the pages into k and v first";
                            }));
  }
}

TEST(Select, TakesEighthsOnHopperAlone) {
  const DeviceFacts h200 = device("sm_90");
  const struct {
    const char* words;
    const char* row;
  } served[] = {
      {"dtype=f8e4m3 d=64", "hopper.sm90a.f8e4m3.d64.plain.q128k128"},
      {"dtype=f8e4m3 d=16 dv=48 lse=padded32", "hopper.sm90a.f8e4m3.d64.plain.q128k128"},
      {"dtype=f8e4m3 d=80 descale", "hopper.sm90a.f8e4m3.d128.plain.q128k128"},
      {"dtype=f8e4m3 d=64 dv=128 sink mask=causal-top-left", "hopper.sm90a.f8e4m3.d128.plain"},
      {"dtype=f8e4m3 d=144 page_size=16", "hopper.sm90a.f8e4m3.d256.plain.q64k64"},
  };
  for (const auto& c : served) expect_part(chosen(problem(c.words), h200), c.row);
  const struct {
    const char* words;
    const char* why;
  } refused[] = {
      {"dtype=f8e4m3 d=272", "d = 272 is above its bound of 256: no other GPU row takes f8e4m3"},
      {"dtype=f8e4m3 d=72", "d = 72 is not a multiple of 16, the f8e4m3 elements of 16 bytes"},
      {"dtype=f8e4m3 d=64 hkv=1 sk=9 k_strides=1224,136,64,1",
       "k_strides[1] = 136, from token to token, is not a multiple of 16 elements"},
      {"dtype=f8e4m3 d=64 hq=1 sq=9 o_strides=1188,132,64,1",
       "o_strides[1] = 132, from token to token, is not a multiple of 8 elements"},
      {"dtype=f8e4m3 d=64 bias=bf16", "bias is not compiled in: no other GPU row takes f8e4m3"},
      {"dtype=f8e4m3 d=64 dropout=0.1", "dropout is not compiled in: no other GPU row"},
      {"dtype=f8e4m3 d=64 softcap=30", "softcap is not compiled in: no other GPU row"},
      {"dtype=f8e4m3 d=64 alibi=head", "ALiBi is not compiled in: no other GPU row"},
      {"dtype=f8e4m3 d=64 scale=-1", "scale = -1 is not positive"},
      {"dtype=f8e4m3 d=64 page_size=4", "page_size = 4: a tile of 128 keys"},
      {"dtype=f8e4m3 d=64 sk=0", "k has no element"},
  };
  for (const auto& c : refused) {
    EXPECT_EQ(chosen(problem(c.words), h200), "") << c.words;
    const std::string bound = problem(c.words).d > 256 ? "f8e4m3.d256" : "f8e4m3.d128";
    expect_part(reasons_against(problem(c.words), h200, bound), c.why);
  }
  const Problem p = problem("dtype=f8e4m3 d=128");
  for (const DeviceFacts& facts : known_devices()) {
    EXPECT_EQ(chosen(p, facts).empty(), facts.arch != 90) << facts.arch;
    if (facts.arch == 90) continue;
    expect_part(reasons_against(p, facts, "f8e4m3.d128"),
                fmt::format("the device is sm_{}: no other GPU row takes f8e4m3, use device=cpu, "
                            "or f16 or bf16",
                            facts.arch));
  }
  const Expected<std::string> how = explain(p, {.arch = "sm_90"});
  ASSERT_TRUE(how.ok()) << how.status().message();
  expect_part(*how, "weights    rounded to f8e4m3");
  const Expected<std::string> text = explain(p, {.arch = "sm_80"});
  ASSERT_TRUE(text.ok()) << text.status().message();
  expect_part(*text, "no kernel serves this problem");
  expect_part(*text, "no other GPU row takes f8e4m3, use device=cpu");
}

// The contract has no Problem that only some GPUs compute but those of eighths, and only gradients of pages that none
// does.
TEST(Select, EveryGpuServesEveryProblem) {
  for (std::uint64_t seed = 0; seed < 800; ++seed) {
    Problem p = random_problem(seed);
    if (p.dtype == DType::f8e4m3) continue;
    p.device = Device::cuda;
    const bool served = p.kind == Kind::forward || p.page_size == 0;
    for (const DeviceFacts& facts : known_devices()) {
      ASSERT_EQ(!chosen(p, facts).empty(), served) << print(p) << " on sm_" << facts.arch;
    }
  }
}

// What the table is made for: the large tiles fit the large devices, and for each dtype and head dim some
// row fits the small ones, if only one without a bound.
TEST(Select, BackwardTilesFitTheSharedMemoryOfTheirDevices) {
  constexpr int kSmall = 99 * 1024, kLarge = 227 * 1024, kTuring = 64 * 1024;
  std::map<std::string, bool> fits_small;
  for (const KernelSpec& spec : kernel_table()) {
    if (spec.family != Family::portable || spec.kind != Kind::backward) continue;
    const kernel::PortableSpec& row = spec.portable;
    const int bytes = kernel::backward_portable_shared_bytes(row);
    EXPECT_LE(bytes, row.arch < 80 ? kTuring : kLarge) << id_of(spec);
    const std::string id = id_of(spec);
    fits_small[id.substr(0, id.rfind(".q"))] |= bytes <= kSmall;
  }
  EXPECT_GT(fits_small.size(), 50U);
  for (const auto& [row, fits] : fits_small) {
    const std::size_t bound = row.find(".d"), after = row.find('.', bound + 1);
    const std::size_t features = row.rfind('.');
    const std::string unbounded =
        row.substr(0, bound) + ".dany" + row.substr(after, features - after) + ".full";
    EXPECT_TRUE(fits || fits_small.at(unbounded)) << row;
  }
}

// ---- What the generators that this family replaces emit, configuration by configuration ------

struct Configuration {
  std::string name;
  int arch;  // the first that it is for
  Problem problem;
};

// A head dim that the configuration's bound is for; one that no 16-byte load fits when unaligned.
void set_head_dim(Problem& p, int bound, bool aligned) {
  p.d = p.dv = bound > 1024 ? 1024 : bound;
  if (aligned) return;
  --p.d;
  p.dv = p.d;
  p.alignment = static_cast<std::int64_t>(size_of(p.dtype));
}

Problem attention(Kind kind, DType dtype) {
  Problem p;
  p.kind = kind;
  p.device = Device::cuda;
  p.dtype = dtype;
  p.b = 2;
  p.hq = p.hkv = 4;
  p.sq = p.sk = 256;
  if (kind == Kind::backward) p.lse = LseLayout::plain;
  return p;
}

constexpr int kArchs[] = {50, 70, 75, 80};
constexpr int kAnyHeadDim = 65536;

bool exists(DType dtype, int arch, bool aligned) {
  return !(dtype == DType::bf16 && arch < 80) && !(!aligned && arch >= 80);
}

// Memory-efficient attention, forward: 45. Every one can add a bias and drop.
std::vector<Configuration> memory_efficient_forward() {
  std::vector<Configuration> all;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const int arch : kArchs) {
      for (const bool aligned : {true, false}) {
        if (!exists(dtype, arch, aligned)) continue;
        for (const int bound : {64, 128, kAnyHeadDim}) {
          Problem p = attention(Kind::forward, dtype);
          set_head_dim(p, bound, aligned);
          p.bias.kind = BiasKind::additive;
          p.bias.dtype = dtype;
          p.dropout = 0.1;
          all.push_back({fmt::format("forward {} {} k{} sm{}", to_string(dtype),
                                     aligned ? "aligned" : "notaligned", bound, arch),
                         arch, p});
        }
      }
    }
  }
  return all;
}

// Memory-efficient attention, backward: 162.
std::vector<Configuration> memory_efficient_backward() {
  std::vector<Configuration> all;
  const auto add = [&](DType dtype, int arch, bool aligned, int bound, bool dropout, int rows,
                       const char* variant) {
    Problem p = attention(Kind::backward, dtype);
    set_head_dim(p, bound, aligned);
    if (dropout) p.dropout = 0.1;
    all.push_back({fmt::format("backward {} {} k{}{} {} rows{} sm{}", to_string(dtype),
                               aligned ? "aligned" : "notaligned", bound, dropout ? " dropout" : "",
                               rows, variant, arch),
                   arch, p});
  };
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const bool half = dtype != DType::f32;
    for (const int arch : kArchs) {
      for (const bool aligned : {true, false}) {
        if (!exists(dtype, arch, aligned)) continue;
        for (const int bound : {32, 64, 128, kAnyHeadDim}) {
          for (const bool dropout : {true, false}) {
            for (const int rows : {64, 128}) {
              const bool wide = bound > 64 && (arch >= 80 || (arch >= 70 && half));
              if (rows == 128 && !wide) continue;
              add(dtype, arch, aligned, bound, dropout, rows, "");
              const bool twin = !dropout && bound <= 128 && half && aligned;
              if (twin && (arch == 70 || arch == 80)) {
                add(dtype, arch, aligned, bound, dropout, rows, " seqaligned");
              }
            }
          }
        }
      }
    }
  }
  for (const DType dtype : {DType::f16, DType::bf16}) {
    add(dtype, 80, true, 96, false, 128, " of sm86 and sm89");
  }
  return all;
}

// Flash attention: 48. Split keys are for few queries and many keys.
std::vector<Configuration> flash() {
  std::vector<Configuration> all;
  for (const char* direction : {"fwd", "bwd", "fwd_split"}) {
    for (const int head_dim : {32, 64, 96, 128, 160, 192, 224, 256}) {
      for (const DType dtype : {DType::f16, DType::bf16}) {
        const bool backward = std::string(direction) == "bwd";
        Problem p = attention(backward ? Kind::backward : Kind::forward, dtype);
        p.d = p.dv = head_dim;
        p.mask.causal = true;
        if (std::string(direction) == "fwd_split") {
          p.sq = 1;
          p.sk = 16384;
        }
        all.push_back(
            {fmt::format("flash {} hdim{} {}", direction, head_dim, to_string(dtype)), 80, p});
      }
    }
  }
  return all;
}

TEST(Select, ServesWhatTheReplacedGeneratorsEmit) {
  const auto forward = memory_efficient_forward();
  const auto backward = memory_efficient_backward();
  const auto split = flash();
  EXPECT_EQ(forward.size(), 45U);
  EXPECT_EQ(backward.size(), 162U);
  EXPECT_EQ(split.size(), 48U);
  int open = 0, served = 0;
  for (const auto* list : {&forward, &backward, &split}) {
    for (const Configuration& c : *list) {
      ASSERT_TRUE(validate(c.problem).ok()) << c.name;
      // Of architectures before sm_75 there are no devices in the table.
      const Expected<DeviceFacts> facts = device_of("sm_" + std::to_string(c.arch));
      const std::string row = facts.ok() ? chosen(c.problem, *facts) : std::string();
      fmt::print("{:<55} {}\n", c.name, !row.empty() ? row : fmt::format("open: sm_{}", c.arch));
      ++(row.empty() ? open : served);
      EXPECT_EQ(!row.empty(), c.arch >= 75) << c.name;
    }
  }
  fmt::print("{} of {} configurations are served, {} are open\n", served, served + open, open);
  EXPECT_EQ(open, 24 + 76) << "forward and backward of sm_50 and sm_70";
}

}  // namespace
}  // namespace attune::testing
