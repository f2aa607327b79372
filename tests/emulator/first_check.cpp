#include <attune/kernel/backward_portable.cuh>
#include <attune/kernel/forward_portable.cuh>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "device.h"
using namespace attune::kernel;
using E = Elements<Element::bf16>;
using V = std::vector<unsigned short>;
constexpr int B = 1, H = 4, HK = 2;
static int SQ = 200, SK = 170, D = 64, DV = 64;
static bool causal = true;
static Operand op(void* p, int S, int h, int d) { return {p, (i64)S * h * d, (i64)h * d, d, 1}; }
static V rnd(int n, unsigned seed) {
  std::mt19937 g(seed);
  std::normal_distribution<float> x;
  V v(n);
  for (auto& e : v) e = E::from_float(x(g));
  return v;
}
constexpr PortableSpec kF{.element = Element::bf16,
                          .arch = 80,
                          .head_dim = EMU_D,
                          .aligned = true,
                          .queries = 128,
                          .keys = EMU_D == 64 ? 80 : 48,
                          .warps = 4,
                          .stages = 2,
                          .blocks = 2};
constexpr PortableSpec kB{.element = Element::bf16,
                          .arch = 80,
                          .head_dim = EMU_D,
                          .aligned = true,
                          .queries = EMU_BQ,
                          .keys = EMU_BK,
                          .warps = 8,
                          .stages = 2,
                          .blocks = 1};
int main() {
  D = EMU_D - 8;
  DV = EMU_D - 16;
  V q = rnd(B * SQ * H * D, 1), k = rnd(B * SK * HK * D, 2), v = rnd(B * SK * HK * DV, 3),
    go = rnd(B * SQ * H * DV, 4), o(B * SQ * H * DV, 0x7fff);
  std::vector<float> lse(B * H * SQ, NAN);
  ForwardParams p{};
  p.q = op(q.data(), SQ, H, D);
  p.k = op(k.data(), SK, HK, D);
  p.v = op(v.data(), SK, HK, DV);
  p.o = op(o.data(), SQ, H, DV);
  p.b = B;
  p.hq = H;
  p.hkv = HK;
  p.group = H / HK;
  p.sq = SQ;
  p.sk = SK;
  p.d = D;
  p.dv = DV;
  p.scale = 1 / std::sqrt((float)D);
  p.scale_log2 = p.scale * 1.44269504f;
  p.mask_low = -(1ll << 41);
  p.mask_high = causal ? 1 : 1ll << 41;
  p.bottom_right = 1;
  p.dropout.keep_scale = 1;
  p.lse = {lse.data(), (i64)H * SQ, SQ, 1, 0, 0};
  p.query_blocks = (SQ + kF.queries - 1) / kF.queries;
  p.tiles = p.query_blocks * B * H;
  p.heads_a_slice = B * H;
  auto t0 = std::chrono::steady_clock::now();
  attune::emulator::launch(p.tiles, threads_of(kF), forward_portable_shared_bytes(kF), 1,
                           [&] { forward_portable<kF>(p); });
  std::printf("forward %.2f s\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count());
  // float64 reference
  std::vector<double> ro(B * SQ * H * DV), gq(B * SQ * H * D), gk(B * SK * HK * D),
      gv(B * SK * HK * DV);
  double eo = 0, no = 0, el = 0;
  std::vector<RowFacts> rows(B * H * SQ);
  auto f = [](unsigned short x) { return (double)E::to_float(x); };
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < SQ; ++i) {
      int hk = h / (H / HK);
      std::vector<double> s(SK, -INFINITY);
      double m = -INFINITY;
      for (int j = 0; j < SK; ++j) {
        if (causal && j > i + SK - SQ) continue;
        double x = 0;
        for (int d = 0; d < D; ++d) x += f(q[(i * H + h) * D + d]) * f(k[(j * HK + hk) * D + d]);
        s[j] = x / std::sqrt((double)D);
        m = std::max(m, s[j]);
      }
      double l = 0;
      for (double x : s)
        if (x > -INFINITY) l += std::exp(x - m);
      double L = m > -INFINITY ? m + std::log(l) : -INFINITY;
      if (std::isinf(L)) {
        if (!std::isinf(lse[h * SQ + i])) el = 99;
      } else
        el = std::max(el, std::fabs(L - lse[h * SQ + i]));
      double delta = 0;
      for (int d = 0; d < DV; ++d) {
        double x = 0;
        for (int j = 0; j < SK; ++j)
          if (s[j] > -INFINITY) x += std::exp(s[j] - L) * f(v[(j * HK + hk) * DV + d]);
        eo += std::pow(x - f(o[(i * H + h) * DV + d]), 2);
        no += x * x;
        delta += x * f(go[(i * H + h) * DV + d]);
      }
      rows[h * SQ + i] = {std::isinf(L) ? INFINITY : (float)(L * 1.4426950408889634), (float)delta};
      for (int j = 0; j < SK; ++j)
        if (s[j] > -INFINITY) {
          double P = std::exp(s[j] - L), dp = 0;
          for (int d = 0; d < DV; ++d) {
            dp += f(go[(i * H + h) * DV + d]) * f(v[(j * HK + hk) * DV + d]);
            gv[(j * HK + hk) * DV + d] += P * f(go[(i * H + h) * DV + d]);
          }
          double ds = P * (dp - delta) / std::sqrt((double)D);
          for (int d = 0; d < D; ++d) {
            gq[(i * H + h) * D + d] += ds * f(k[(j * HK + hk) * D + d]);
            gk[(j * HK + hk) * D + d] += ds * f(q[(i * H + h) * D + d]);
          }
        }
    }
  std::printf("o rel %.2e lse %.2e\n", std::sqrt(eo / no), el);
  using K = BoundedBackward<kB>;
  BackwardParams bp{};
  bp.f = p;
  V dk(B * SK * HK * D, 0x7fff), dv(B * SK * HK * DV, 0x7fff);
  bp.grad_o = op(go.data(), SQ, H, DV);
  bp.grad_k = op(dk.data(), SK, HK, D);
  bp.grad_v = op(dv.data(), SK, HK, DV);
  bp.rows = rows.data();
  bp.key_blocks = (SK + kB.keys - 1) / kB.keys;
  bp.f.query_blocks = (SQ + kB.queries - 1) / kB.queries;
  std::vector<float> acc((size_t)B * H * bp.f.query_blocks * kB.queries * EMU_D, 0.f);
  bp.grad_q_sum = acc.data();
  t0 = std::chrono::steady_clock::now();
  attune::emulator::launch(B * HK * bp.key_blocks, threads_of(kB),
                           2 * K::kKeyBytes + 4 * K::kQueryBytes + 2 * K::kWeightBytes, 2,
                           [&] { K::run(bp); });
  std::printf("backward %.2f s, %d bytes shared\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count(),
              2 * K::kKeyBytes + 4 * K::kQueryBytes + 2 * K::kWeightBytes);
  auto rel = [&](const V& x, const std::vector<double>& y) {
    double e = 0, n = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      e += std::pow(f(x[i]) - y[i], 2);
      n += y[i] * y[i];
    }
    return std::sqrt(e / n);
  };
  std::printf("dk rel %.2e dv rel %.2e\n", rel(dk, gk), rel(dv, gv));
  // dq from fragments
  using G = K::G;
  constexpr int FR = G::kQueryRows / 16 * (G::kQueryColumns / 8);
  double e = 0, n = 0;
  for (int h = 0; h < H; ++h)
    for (int blk = 0; blk < bp.f.query_blocks; ++blk)
      for (int w = 0; w < kB.warps; ++w)
        for (int fr = 0; fr < FR; ++fr)
          for (int lane = 0; lane < 32; ++lane)
            for (int c = 0; c < 4; ++c) {
              float x =
                  acc[(((size_t)(h * bp.f.query_blocks + blk) * kB.warps + w) * FR + fr) * 128 +
                      lane * 4 + c];
              int m = fr / (G::kQueryColumns / 8), nn = fr % (G::kQueryColumns / 8);
              int row = blk * kB.queries + w % G::kQueryWarps * G::kQueryRows + 16 * m + lane / 4 +
                        8 * (c / 2),
                  col = w / G::kQueryWarps * G::kQueryColumns + 8 * nn + 2 * (lane % 4) + c % 2;
              if (row >= SQ || col >= D) {
                if (x != 0) std::printf("outside %d %d %g\n", row, col, x), exit(1);
                continue;
              }
              double y = gq[(row * H + h) * D + col];
              e += std::pow(x * p.scale - y, 2);
              n += y * y;
            }
  std::printf("dq rel %.2e\n", std::sqrt(e / n));
}
