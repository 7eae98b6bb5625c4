// Fused whole attention on the GPU against the CPU's in float64: values and all gradients, every
// path, odd grids and head widths, strong decay, and the same bits in every run. bf16 is compared
// with float64 on the rounded inputs.

#if PPMA_TEST_GPU

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "catch.hpp"
#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/polyline/whole_fused.hpp"
#include "ppma/tensor/autograd.hpp"

using namespace ppma;

namespace whole_cuda_test {

namespace {

// Output, then the gradients of q, k, v and the log decays, on the host in their own dtypes.
std::vector<Tensor> run(const std::vector<Tensor>& host, i64 heads, Paths paths, DType dtype,
                        Device device) {
  std::vector<Tensor> in;
  for (std::size_t t = 0; t < host.size(); ++t) {
    in.push_back(cast(host[t], t < 3 ? dtype : accumulator_dtype(dtype)).to(device));
    in.back().requires_grad(true);
  }
  const Tensor y = whole_attention(in[0], in[1], in[2], heads, join_decays(in[3], in[4]), paths);
  Tensor dy = Tensor::empty(y.shape(), DType::f64);
  // exact in bf16
  for (i64 i = 0; i < dy.numel(); ++i)
    dy.data<double>()[i] = static_cast<double>((i * 37 + 11) % 64) / 32 - 1;
  y.backward(cast(dy, dtype).to(device));
  std::vector<Tensor> out{y.detach().to(Device::cpu)};
  for (std::size_t t = 0; t < in.size(); ++t)
    if (t < 3 || paths != Paths::none) out.push_back(in[t].grad().to(Device::cpu));
  return out;
}

struct Size {
  i64 batch, heads, height, width, d;
};

void compare(const Size& s, double weakest_decay, double score_deviation) {
  const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
      grid{s.batch, s.heads, s.height, s.width};
  std::vector<Tensor> in{polyline_test::random(tokens, 1, score_deviation),
                         polyline_test::random(tokens, 2, 1 / std::sqrt(static_cast<double>(s.d))),
                         polyline_test::random(tokens, 3),
                         polyline_test::random_log_decay(grid, 4, weakest_decay),
                         polyline_test::random_log_decay(grid, 5, weakest_decay)};
  for (const Paths paths : {Paths::none, Paths::v2h, Paths::h2v, Paths::both})
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      std::vector<Tensor> rounded;
      for (std::size_t t = 0; t < in.size(); ++t)
        rounded.push_back(cast(cast(in[t], t < 3 ? dtype : accumulator_dtype(dtype)), DType::f64));
      const auto want = run(rounded, s.heads, paths, DType::f64, Device::cpu);
      const auto got = run(rounded, s.heads, paths, dtype, Device::cuda),
                 again = run(rounded, s.heads, paths, dtype, Device::cuda);
      INFO("B " << s.batch << " G " << s.heads << " H " << s.height << " W " << s.width << " d "
                << s.d << ", paths " << to_string(paths) << ", " << to_string(dtype));
      // On small maps a weight in bf16 is a product of four factors that are rounded, as it is: each
      // by 2^-8 of itself at most. Few elements show all five, so their norm is held to less.
      const bool small = s.height <= 16 && s.width <= 16 && paths != Paths::none;
      const double tolerance = dtype == DType::f64   ? 1e-11
                               : dtype == DType::f32 ? 2e-5
                               : small               ? 5 * std::exp2(-8)
                                                     : 1e-2;
      REQUIRE(got.size() == want.size());
      for (std::size_t t = 0; t < got.size(); ++t) {
        INFO("result " << t << " (y, dq, dk, dv, dlog_alpha, dlog_beta)");
        CHECK(largest_difference(cast(got[t], DType::f64), want[t]) <= tolerance);
        if (dtype == DType::bf16) CHECK(distance(got[t], want[t]) <= 1e-2);
        CHECK(cuda_test::same_bits(got[t], again[t]));
      }
    }
}

}  // namespace

TEST_CASE("whole attention on the GPU equals the CPU's, any grid and head width",
          "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  compare({2, 3, 7, 7, 32}, 0.2, 1);
  compare({1, 2, 14, 14, 16}, 0.2, 1);
  compare({1, 1, 5, 13, 7}, 0.2, 1);
  compare({1, 2, 33, 3, 64}, 0.2, 1);
  compare({1, 1, 1, 40, 32}, 0.2, 1);
  compare({1, 1, 67, 2, 9}, 0.2, 1);
  compare({1, 1, 16, 9, 48}, 0.2, 1);
  compare({2, 8, 14, 14, 32}, 0.2, 1);  // a tile of four lines
  compare({3, 8, 14, 14, 32}, 0.2, 1);  // too many heads to share keys out
  compare({12, 6, 7, 7, 16}, 0.2, 1);
  compare({1, 1, 21, 20, 8}, 0.2, 1);   // two
  compare({1, 2, 16, 16, 32}, 0.2, 1);  // no padding
  compare({1, 2, 15, 8, 32}, 0.2, 1);   // an odd number of short lines
  compare({2, 1, 3, 10, 64}, 0.2, 1);   // fewer lines than a tile has room for
  compare({3, 4, 1, 5, 32}, 0.2, 1);
  compare({1, 2, 35, 39, 64}, 0.2, 1);  // one
  compare({1, 1, 6, 80, 16}, 0.2, 1);   // columns as lines
}

// Maps above 16 x 16 in bf16, by squares of 8 x 8 tokens: sides above 64, squares that are not full,
// one path alone, decays that reach far, closed edges, and scores whose sums leave the range.
TEST_CASE("whole attention in bf16 on the GPU, large maps", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Case {
    Size size;
    Paths paths;
    double closed, score_deviation;  // closed: the share of such edges
  };
  const std::vector<Case> cases{
      {{1, 1, 66, 65, 24}, Paths::both, 0, 1}, {{1, 1, 67, 73, 16}, Paths::both, 0.02, 1},
      {{1, 1, 71, 66, 40}, Paths::v2h, 0, 1},  {{1, 1, 65, 70, 8}, Paths::h2v, 0.02, 1},
      {{1, 2, 33, 19, 32}, Paths::both, 0, 1}, {{2, 1, 18, 41, 64}, Paths::both, 0.04, 40},
      {{1, 1, 34, 21, 32}, Paths::v2h, 0, 40}, {{1, 1, 21, 34, 64}, Paths::h2v, 0.04, 40}};
  for (const auto& [s, paths, closed, deviation] : cases) {
    const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
        grid{s.batch, s.heads, s.height, s.width};
    std::vector<Tensor> in{
        polyline_test::random(tokens, 1, deviation),
        polyline_test::random(tokens, 2, 1 / std::sqrt(static_cast<double>(s.d))),
        polyline_test::random(tokens, 3), polyline_test::random_log_decay(grid, 4, 0.7),
        polyline_test::random_log_decay(grid, 5, 0.7)};
    Rng rng(6);
    for (std::size_t t = 0; t < in.size(); ++t) {
      if (t >= 3) {
        const std::vector<double> draw =
            Tensor::rand(grid, rng, 0, 1, DType::f64).to_vector<double>();
        for (std::size_t i = 0; i < draw.size(); ++i)
          if (draw[i] < closed) in[t].data<double>()[i] = -std::numeric_limits<double>::infinity();
      }
      in[t] = cast(in[t], t < 3 ? DType::bf16 : DType::f32);
    }
    const auto want = run(in, s.heads, paths, DType::f32, Device::cpu),
               got = run(in, s.heads, paths, DType::bf16, Device::cuda),
               again = run(in, s.heads, paths, DType::bf16, Device::cuda);
    for (std::size_t t = 0; t < got.size(); ++t) {
      INFO("H " << s.height << " W " << s.width << " d " << s.d << ", paths " << to_string(paths)
                << ", closed " << closed << ", scores " << deviation << ", result " << t
                << " (y, dq, dk, dv, dlog_alpha, dlog_beta)");
      const Tensor wide = cast(want[t], DType::f64);
      REQUIRE(polyline_test::largest(cast(got[t], DType::f64)) < 1e300);
      // Of large scores few count: the rounding of dS to bf16 is left in the gradients.
      CHECK(largest_difference(cast(got[t], DType::f64), wide) <= (deviation > 1 ? 4e-2 : 1e-2));
      CHECK(cuda_test::same_bits(got[t], again[t]));
    }
  }
}

TEST_CASE("whole attention with a local term in one kernel of the GPU", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  // Keys shared out or not; all widths of heads and lines; too few heads of long lines, a map that
  // is too large, too many heads.
  for (const Size& s : {Size{2, 3, 7, 7, 32}, Size{1, 8, 14, 14, 32}, Size{3, 8, 14, 14, 32},
                        Size{9, 2, 16, 16, 64}, Size{20, 4, 16, 15, 48}, Size{6, 16, 8, 3, 16},
                        Size{1, 1, 1, 2, 8}, Size{1, 2, 17, 5, 32}, Size{40, 8, 7, 7, 32}}) {
    INFO("B " << s.batch << " G " << s.heads << " H " << s.height << " W " << s.width << " d "
              << s.d);
    const i64 c = s.heads * s.d;
    const Shape tokens{s.batch, s.height, s.width, c}, grid{s.batch, s.heads, s.height, s.width};
    const auto rounded = [](const Tensor& t, DType dtype) {
      return cast(cast(t, dtype), DType::f64);
    };
    const Tensor q = rounded(polyline_test::random(tokens, 1), DType::bf16),
                 k = rounded(polyline_test::random(tokens, 2, 0.3), DType::bf16),
                 v = rounded(polyline_test::random(tokens, 3), DType::bf16),
                 w = rounded(polyline_test::random({c, 1, 5, 5}, 4, 0.2), DType::f32),
                 b = rounded(polyline_test::random({c}, 5), DType::f32),
                 decays = rounded(join_decays(polyline_test::random_log_decay(grid, 6, 0.2),
                                              polyline_test::random_log_decay(grid, 7, 0.2)),
                                  DType::f32);
    const auto there = [](const Tensor& t, DType dtype) { return cast(t, dtype).to(Device::cuda); };
    for (const Paths paths : {Paths::none, Paths::v2h, Paths::both}) {
      INFO("paths " << to_string(paths));
      const auto run = [&](DType narrow, DType wide) {
        return whole_attention_local(there(q, narrow), there(k, narrow), there(v, narrow), s.heads,
                                     there(decays, wide), paths, there(w, wide), there(b, wide));
      };
      CHECK(!run(DType::f32, DType::f32).defined());
      const Tensor there_one = run(DType::bf16, DType::f32);
      const i64 all_heads = s.batch * s.heads;
      REQUIRE(there_one.defined() == (paths != Paths::none && s.height <= 16 && all_heads < 100 &&
                                      (s.width <= 8 || all_heads > 17)));
      if (!there_one.defined()) continue;
      const Tensor want =
          depthwise_conv2d(v, w, b, whole_attention(q, k, v, s.heads, decays, paths));
      const Tensor one = there_one.to(Device::cpu),
                   two = run(DType::bf16, DType::f32).to(Device::cpu);
      CHECK(largest_difference(cast(one, DType::f64), want) <= 1e-2);
      CHECK(cuda_test::same_bits(one, two));
    }
  }
}

TEST_CASE("whole attention on the GPU turns queries and keys as rotary does", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // Keys shared out or not; all widths of heads and lines; a map that is too large.
  for (const Size& s : {Size{2, 3, 7, 7, 32}, Size{1, 8, 14, 14, 32}, Size{40, 8, 14, 14, 32},
                        Size{1, 2, 16, 16, 64}, Size{20, 4, 16, 15, 48}, Size{6, 16, 8, 3, 16},
                        Size{1, 1, 1, 2, 8}, Size{1, 2, 17, 5, 32}, Size{140, 8, 7, 7, 32}}) {
    INFO("B " << s.batch << " G " << s.heads << " H " << s.height << " W " << s.width << " d "
              << s.d);
    const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
        grid{s.batch, s.heads, s.height, s.width};
    const auto random = [&](unsigned seed) {
      return cast(polyline_test::random(tokens, seed), DType::bf16).to(Device::cuda);
    };
    Tensor q = random(1);
    const Tensor k = random(2), v = random(3), angle = rotary_angle(s.d).to(Device::cuda),
                 decays = cast(join_decays(polyline_test::random_log_decay(grid, 6, 0.2),
                                           polyline_test::random_log_decay(grid, 7, 0.2)),
                               DType::f32)
                              .to(Device::cuda);
    const double scale = 1 / std::sqrt(static_cast<double>(s.d));
    CHECK(!turns_in_whole_attention(q, s.heads, Paths::none));
    REQUIRE(turns_in_whole_attention(q, s.heads, Paths::both) == (s.height <= 16));
    const auto one = [&] {
      return whole_attention_turned(q, k, v, s.heads, decays, Paths::both, angle, scale);
    };
    if (s.height > 16) {
      CHECK_THROWS_WITH(one(),
                        "whole_attention_turned: takes masked maps of at most 16 x 16 on a GPU in "
                        "bf16, got (1, 17, 5, 64) bf16; use rotary() and whole_attention()");
      continue;
    }
    const Rotated turned = rotary(q, k, angle, s.heads, scale);
    const Tensor want = whole_attention(turned.q, turned.k, v, s.heads, decays, Paths::both);
    CHECK(largest_difference(cast(one().to(Device::cpu), DType::f64),
                             cast(want.to(Device::cpu), DType::f64)) == 0);
    CHECK_THROWS_WITH(
        whole_attention_turned(q, k, v, s.heads, decays, Paths::both, Tensor(), scale),
        "whole_attention_turned: angle must be (" + std::to_string(s.d) + ") in f32 on the GPU");
    q.requires_grad(true);
    CHECK_THROWS_WITH(one(),
                      "whole_attention_turned: has no gradient; use rotary() and "
                      "whole_attention(), or NoGrad");
  }
}

TEST_CASE("whole attention on the GPU under strong decay and large scores", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  compare({1, 2, 9, 11, 32}, 1e-13, 1);
  compare({1, 1, 12, 6, 16}, 0.01, 6);
}

// Every query's largest score is that of one far key, above its own by `excess`, and a decay of
// -100 a step removes it.
TEST_CASE("whole attention on the GPU where the mask removes the largest score",
          "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const i64 side : {7, 14})
    for (const double decay : {-100.0, -10.0, -1.0})
      for (const double excess : {50.0, 100.0, 200.0}) {
        const i64 heads = 2, d = 32, tokens = side * side;
        std::vector<Tensor> in{polyline_test::random({1, side, side, heads * d}, 1),
                               polyline_test::random({1, side, side, heads * d}, 2, 0.2),
                               polyline_test::random({1, side, side, heads * d}, 3),
                               Tensor::full({1, heads, side, side}, decay, DType::f64),
                               Tensor::full({1, heads, side, side}, decay, DType::f64)};
        for (i64 t = 0; t < tokens; ++t)
          for (i64 g = 0; g < heads; ++g) {
            in[0].data<double>()[(t * heads + g) * d] = 8;
            in[1].data<double>()[(t * heads + g) * d] = t == tokens - 2 ? excess / 8 : 0;
          }
        for (std::size_t t = 0; t < 3; ++t) in[t] = cast(cast(in[t], DType::bf16), DType::f64);
        const auto want = run(in, heads, Paths::both, DType::f64, Device::cpu),
                   got = run(in, heads, Paths::both, DType::bf16, Device::cuda),
                   again = run(in, heads, Paths::both, DType::bf16, Device::cuda);
        for (std::size_t t = 0; t < got.size(); ++t) {
          INFO("side " << side << ", decay " << decay << ", excess " << excess << ", result " << t
                       << " (y, dq, dk, dv, dlog_alpha, dlog_beta)");
          // Few scores count: of the gradients the rounding of dS to bf16 is left (3 % of the
          // largest at most, in a simulation of 60 draws), and with all weight on one key they are
          // differences of equal numbers of size 1.
          const bool rounded = t != 0 && t != 3;
          const double scale = std::max(polyline_test::largest(want[t]), rounded ? 1.0 : 0.0);
          CHECK(largest_difference(cast(got[t], DType::f64), want[t]) *
                    polyline_test::largest(want[t]) <=
                (rounded ? 4e-2 : 1e-2) * scale);
          CHECK(largest_difference(cast(again[t], DType::f64), cast(got[t], DType::f64)) == 0);
        }
      }
}

TEST_CASE("whole attention on the GPU: one token, whose decays have no edge", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(1);
  const Tensor q = Tensor::randn({2, 1, 1, 32}, rng, 1, DType::f32).to(Device::cuda);
  const Tensor la = Tensor::full({2, 2, 1, 1}, -0.5, DType::f32).to(Device::cuda);
  const Tensor y = whole_attention(q, q, q, 2, join_decays(la, la)).to(Device::cpu);
  CHECK(largest_difference(cast(y, DType::f64), cast(q.to(Device::cpu), DType::f64)) < 1e-6);
}

TEST_CASE("whole attention on the GPU reads nothing of the next image", "[cuda][attention]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const i64 side : {1, 3, 7, 10})
    for (const Paths paths : {Paths::none, Paths::both}) {
      const Shape tokens{2, side, side, 64}, grid{2, 2, side, side};
      std::vector<Tensor> in;
      for (u64 seed = 1; seed <= 3; ++seed) in.push_back(polyline_test::random(tokens, seed));
      for (u64 seed = 4; seed <= 5; ++seed)
        in.push_back(polyline_test::random_log_decay(grid, seed, 0.2));
      for (Tensor& t : in)
        std::fill_n(t.data<double>() + t.numel() / 2, t.numel() / 2,
                    std::numeric_limits<double>::quiet_NaN());
      const auto out = run(in, 2, paths, DType::bf16, Device::cuda);
      for (const Tensor& t : out) {
        const std::vector<double> v = t.to_vector<double>();
        INFO("side " << side << ", " << to_string(paths));
        CHECK(std::all_of(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2),
                          [](double x) { return std::isfinite(x); }));
      }
    }
}

}  // namespace whole_cuda_test

#endif
