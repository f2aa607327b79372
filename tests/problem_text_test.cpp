// The text form of a Problem: both directions, and what it says about texts it can't read.
#include <gtest/gtest.h>

#include <attune/problem.hpp>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "problem/text.h"

namespace attune {
namespace {

// Draws Problems from all over the valid ones; some draws are invalid and are skipped.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}

  Problem operator()() {
    Problem p;
    p.kind = coin() ? Kind::forward : Kind::backward;
    p.device = pick({Device::automatic, Device::cpu, Device::cuda});
    p.dtype = any_float();
    p.b = size(1000);
    p.hkv = 1 + size(15);
    p.hq = p.hkv * (1 + size(7));
    p.sq = size(kLong);
    p.sk = size(kLong);
    p.d = size(65536);
    p.dv = coin() ? p.d : size(65536);
    if (coin() || p.d == 0) p.scale = number();
    if (coin()) p.softcap = std::abs(number());
    mask(p.mask);
    bias(p);
    p.alibi = pick({PerHead::none, PerHead::head, PerHead::batch_head});
    p.sink = coin();
    if (coin()) p.dropout = fraction();
    if (p.dropout > 0 && coin()) p.dropout_stream = DropoutStream::fa2;
    p.key_lengths = coin();
    layout(p);
    p.lse = pick({LseLayout::none, LseLayout::plain, LseLayout::padded32});
    if (p.kind == Kind::backward) {
      if (p.lse == LseLayout::none) p.lse = LseLayout::plain;
      p.lse_grad = coin();
      p.sink_grad = p.sink && coin();
      p.alibi_grad = p.alibi != PerHead::none && coin();
      p.bias.grad = p.bias.kind == BiasKind::additive && coin();
    }
    p.deterministic = coin();
    if (p.kind == Kind::forward && size(3) == 0) {
      p.dtype = DType::f8e4m3;
      p.descale = coin();
    }
    for (Problem::Strides* strides : {&p.q_strides, &p.k_strides, &p.v_strides, &p.o_strides}) {
      if (size(3) == 0) *strides = {size(1 << 30), size(1 << 20), size(1 << 10), 1 - size(2)};
    }
    if (coin()) p.alignment = std::int64_t{1} << size(8);
    return p;
  }

 private:
  static constexpr std::int64_t kLong = 2147483647 - 4096;

  bool coin() { return random_() % 2 == 0; }

  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[random_() % choices.size()];
  }

  // 0 to most, small values as likely as large ones.
  std::int64_t size(std::int64_t most) {
    const auto limit = static_cast<std::uint64_t>(most) >> (random_() % 31);
    return static_cast<std::int64_t>(random_() % (limit + 1));
  }

  DType any_float() { return pick({DType::f32, DType::f16, DType::bf16}); }

  // Doubles with all their digits, and a few round ones.
  double number() {
    const double choices[] = {0.125, 1, -1, 1e-30, 3e38, 50, 0.1};
    if (coin()) return choices[random_() % 7];
    return std::uniform_real_distribution<double>(-100, 100)(random_);
  }
  double fraction() {
    if (coin()) return 0.1;
    return std::uniform_real_distribution<double>(0, 0.999)(random_);
  }

  void mask(Mask& m) {
    m.causal = coin();
    m.diagonal = coin() ? Diagonal::top_left : Diagonal::bottom_right;
    if (coin()) m.offset = size(kLong) - size(kLong);
    if (coin()) m.left = coin() ? -1 : size(kLong);
    if (coin()) m.right = coin() ? std::numeric_limits<std::int64_t>::max() : size(kLong);
  }

  void bias(Problem& p) {
    p.bias.kind = pick({BiasKind::none, BiasKind::boolean, BiasKind::additive});
    if (p.bias.kind == BiasKind::none) return;
    p.bias.dtype = p.bias.kind == BiasKind::boolean ? DType::boolean : any_float();
    p.bias.broadcast_b = coin();
    p.bias.broadcast_h = coin();
    p.bias.broadcast_q = coin();
    p.bias.broadcast_k = coin();
    p.bias.aligned = coin();
  }

  void layout(Problem& p) {
    p.packed_q = coin();
    if (p.packed_q) p.total_q = size(2147483647);
    const int keys = static_cast<int>(random_() % 3);
    p.packed_k = keys == 1;
    if (p.packed_k) p.total_k = size(2147483647);
    if (keys == 2) {
      p.page_size = 1 + size(1024);
      p.pages = size(100000);
    }
  }

  std::mt19937_64 random_;
};

TEST(ProblemText, PrintsWhatParseReadsBack) {
  Draw draw(20240607);
  std::unordered_set<std::size_t> hashes;
  int valid = 0;
  int tries = 0;
  for (; valid < 20000 && tries < 200000; ++tries) {
    const Problem p = draw();
    if (!validate(p).ok()) continue;
    ++valid;
    const std::string text = print(p);
    const Expected<Problem> back = parse(text);
    ASSERT_TRUE(back.ok()) << text << "\n" << back.status().message();
    ASSERT_TRUE(*back == p) << text << "\n" << print(*back);
    ASSERT_EQ(hash(*back), hash(p)) << text;
    ASSERT_EQ(text.find('\n'), std::string::npos);
    hashes.insert(hash(p));
  }
  EXPECT_EQ(valid, 20000) << "only " << valid << " of " << tries << " draws were valid";
  EXPECT_GT(hashes.size(), 19900U);  // few of them are equal
}

TEST(ProblemText, KeepsTheDocumentedExample) {
  const std::string text =
      "forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128 mask=causal-bottom-right "
      "window=256,0 dropout=0.1 lse device=cpu";
  const Expected<Problem> p = parse(text);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->kind, Kind::forward);
  EXPECT_EQ(p->dtype, DType::bf16);
  EXPECT_EQ(p->b, 2);
  EXPECT_EQ(p->hq, 16);
  EXPECT_EQ(p->hkv, 4);
  EXPECT_EQ(p->sq, 1024);
  EXPECT_EQ(p->sk, 1024);
  EXPECT_EQ(p->d, 128);
  EXPECT_EQ(p->dv, 128);
  EXPECT_TRUE(p->mask.causal);
  EXPECT_EQ(p->mask.diagonal, Diagonal::bottom_right);
  EXPECT_EQ(p->mask.left, 256);
  EXPECT_EQ(p->mask.right, 0);
  EXPECT_EQ(p->dropout, 0.1);
  EXPECT_EQ(p->lse, LseLayout::plain);
  EXPECT_EQ(p->device, Device::cpu);
  EXPECT_EQ(print(*p), text);
}

TEST(ProblemText, KeepsTheStreamOfDropout) {
  const std::string text =
      "forward dtype=f32 b=1 hq=1 hkv=1 sq=1 sk=1 d=64 dropout=0.125 dropout_stream=fa2";
  const Expected<Problem> p = parse(text);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->dropout_stream, DropoutStream::fa2);
  EXPECT_EQ(print(*p), text);
  // The default goes without saying.
  const Expected<Problem> usual = parse("forward dropout=0.125 dropout_stream=curand");
  ASSERT_TRUE(usual.ok()) << usual.status().message();
  EXPECT_EQ(usual->dropout_stream, DropoutStream::curand);
  EXPECT_EQ(print(*usual).find("dropout_stream"), std::string::npos);
}

TEST(ProblemText, KeepsScalesOfEighths) {
  const std::string text =
      "forward dtype=f8e4m3 b=2 hq=4 hkv=2 sq=7 sk=9 d=64 scale=0.5 descale lse";
  const Expected<Problem> p = parse(text);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(p->dtype, DType::f8e4m3);
  EXPECT_TRUE(p->descale);
  EXPECT_EQ(p->o_dtype(), DType::bf16);
  EXPECT_EQ(print(*p), text);
  EXPECT_EQ(Problem{}.o_dtype(), DType::f32);
}

TEST(ProblemText, FillsInWhatIsLeftOut) {
  const Expected<Problem> p = parse("backward hq=8 sq=100 d=32 packed=qk b=3");
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_EQ(print(*p),
            "backward dtype=f32 b=3 hq=8 hkv=8 sq=100 sk=100 d=32 packed=qk total_q=300 "
            "total_k=300 lse");
  const Expected<Problem> paged = parse("forward b=2 sq=1 sk=33 page_size=16");
  ASSERT_TRUE(paged.ok()) << paged.status().message();
  EXPECT_EQ(paged->pages, 6);
}

TEST(ProblemText, ReadsWordsInAnyOrderAndAnyBlanks) {
  const Expected<Problem> a = parse(" forward\tlse  d=8 mask=causal-top-left\n sq=4 ");
  const Expected<Problem> b = parse("forward sq=4 d=8 lse=plain mask=causal-top-left device=auto");
  ASSERT_TRUE(a.ok()) << a.status().message();
  ASSERT_TRUE(b.ok()) << b.status().message();
  EXPECT_TRUE(*a == *b);
}

TEST(ProblemText, NamesTheWordItCannotRead) {
  struct Case {
    std::string text;
    std::string says;
  };
  const std::vector<Case> cases = {
      {"", "the problem text is empty"},
      {" \t\n", "the problem text is empty"},
      {"foward b=1", "word 1 (character 1), \"foward\""},
      {"foward b=1", "did you mean forward?"},
      {"dtype=bf16", "the first word is the kind"},
      {"forward b", "b needs a value: b=..."},
      {"forward  b=", "word 2 (character 10), \"b=\": b needs a value"},
      {"forward b=x", "b takes an integer, not \"x\""},
      {"forward b=1.5", "b takes an integer"},
      {"forward b=0x10", "b takes an integer"},
      {"forward b=99999999999999999999", "an integer below 2^63"},
      {"forward b=1 b=1", "b was given before"},
      {"forward dropuot=0.1", "did you mean dropout?"},
      {"forward =3", "there is no key \"\""},
      {"forward zzzzzzzz=3", "there is no key \"zzzzzzzz\""},
      {"forward sink=1", "sink takes no value"},
      {"forward scale=fast", "scale takes a number"},
      {"forward scale=1e999", "a number within the range of float64"},
      {"forward window=3", "window takes 2 integers"},
      {"forward window=3,4,5", "window takes 2 integers"},
      {"forward window=,", "window takes 2 integers"},
      {"forward q_strides=1,2,3", "q_strides takes 4 integers"},
      {"forward mask=causal", "mask takes none, causal-top-left or causal-bottom-right"},
      {"forward mask=causal-top-left diagonal=top-left", "diagonal is for windows without causal"},
      {"forward dropout=0.5 dropout_stream=philox", "dropout_stream takes curand or fa2"},
      {"forward bias=i32", "bias takes bool, f32, f16 or bf16"},
      {"forward bias=f32:bh", "bias takes bool"},
      {"forward bias=f32:hbqk", "bias takes bool"},
      {"forward bias=f32:", "bias takes bool"},
      {"forward packed=v", "packed takes q, k or qk"},
      {"forward lse=", "lse needs a value"},
      {"forward lse=padded64", "lse takes plain or padded32"},
      {"forward device=tpu", "device takes cpu, cuda or auto"},
      {"forward dtype=fp32", "dtype takes f32, f16, bf16 or f8e4m3, not \"fp32\""},
      {"forward alibi=all", "alibi takes head or batch-head"},
      {std::string("forward b=1\0", 12), "\"b=1\\x00\""},
      {std::string("forward \0", 9), "there is no key \"\\x00\""},
      {"forward " + std::string(1000, 'q') + "=1", "qqq...\""},
      {std::string(5000, ' '), "has 5000 bytes; at most 4096"},
      // Read, but refused by validate().
      {"forward dtype=f64", "dtype = f64 is not supported"},
      {"forward descale=1", "descale takes no value"},
      {"forward descale", "descale is set, but dtype = f32: only q, k and v of f8e4m3 have scales"},
      {"backward dtype=f8e4m3", "dtype = f8e4m3 has no backward pass"},
      {"forward bias=f8e4m3", "bias takes bool, f32, f16 or bf16"},
      {"forward hq=6 hkv=4", "hq = 6 is not a multiple of hkv = 4"},
      {"forward scale=nan", "scale = nan is not a finite"},
      {"forward sq=-1", "sq = -1 is too small"},
      {"forward b=2147483647 sq=2000000000 packed=q", "total_q = 4294967294000000000 is too large"},
      {"forward b=9000000000000000000 sq=2 packed=q", "b = 9000000000000000000 is too large"},
      {"forward page_size=-3", "page_size = -3 is too small"},
  };
  for (const Case& c : cases) {
    const Expected<Problem> p = parse(c.text);
    ASSERT_FALSE(p.ok()) << c.text;
    EXPECT_EQ(p.status().code(), Code::invalid_argument) << c.text;
    EXPECT_NE(p.status().message().find(c.says), std::string::npos)
        << "text:  " << quoted(c.text) << "\nsays:  " << p.status().message()
        << "\nwants: " << c.says;
    EXPECT_LT(p.status().message().size(), 400U);
  }
}

TEST(ProblemText, FindsTheNearestName) {
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("dropuot", "dropout"), 1U);  // neighbours swapped
  EXPECT_EQ(edit_distance(std::string(100, 'a'), "b"), 100U);
  const std::vector<std::string_view> names = {"softcap", "scale", "sink"};
  EXPECT_EQ(nearest("sacle", names), "scale");
  EXPECT_EQ(nearest("completely", names), "");
}

TEST(ProblemText, HashTellsEveryFieldApart) {
  const std::vector<std::string_view> words = {"dtype=f16",
                                               "dtype=bf16",
                                               "dtype=f8e4m3",
                                               "dtype=f8e4m3 descale",
                                               "b=2",
                                               "hq=2",
                                               "hq=2 hkv=1",
                                               "sq=2",
                                               "sq=2 sk=1",
                                               "sk=2",
                                               "d=65",
                                               "dv=65",
                                               "scale=0",
                                               "scale=2",
                                               "softcap=2",
                                               "offset=1",
                                               "window=1,-1",
                                               "window=-1,1",
                                               "diagonal=top-left",
                                               "mask=causal-top-left",
                                               "mask=causal-bottom-right",
                                               "bias=f32",
                                               "bias=f16",
                                               "bias=bool",
                                               "bias=f32:1hqk",
                                               "bias=f32:b1qk",
                                               "bias=f32:bh1k",
                                               "bias=f32:bhq1",
                                               "alibi=head",
                                               "alibi=batch-head",
                                               "sink",
                                               "dropout=0.5",
                                               "dropout=0.5 dropout_stream=fa2",
                                               "key_lengths",
                                               "packed=q",
                                               "packed=k",
                                               "packed=qk",
                                               "packed=q total_q=7",
                                               "packed=k total_k=7",
                                               "page_size=1",
                                               "page_size=1 pages=7",
                                               "page_size=2",
                                               "lse",
                                               "lse=padded32",
                                               "deterministic",
                                               "q_strides=1,0,0,0",
                                               "k_strides=1,0,0,0",
                                               "v_strides=1,0,0,0",
                                               "o_strides=1,0,0,1",
                                               "align=8",
                                               "align=32",
                                               "device=cpu",
                                               "device=cuda",
                                               ""};
  std::unordered_set<std::size_t> hashes;
  for (const std::string_view word : words) {
    const Expected<Problem> p = parse("forward " + std::string(word));
    ASSERT_TRUE(p.ok()) << word << ": " << p.status().message();
    EXPECT_TRUE(hashes.insert(hash(*p)).second) << word;
  }
  Problem zero;
  Problem minus_zero;
  zero.scale = 0.0;
  minus_zero.scale = -0.0;
  EXPECT_TRUE(zero == minus_zero);
  EXPECT_EQ(hash(zero), hash(minus_zero));
}

}  // namespace
}  // namespace attune
