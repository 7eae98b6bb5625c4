// The fused attentions against plain loops in float64 that follow the definition: every path
// product walked, every softmax written out. The loops share no code with the library.

#include <cmath>
#include <functional>
#include <vector>

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/criss_cross/attention.hpp"
#include "ppma/kernels/cpu/whole/attention.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/polyline/whole_fused.hpp"
#include "ppma/tensor/autograd.hpp"
#include "sanitized.hpp"
#include "thread_counts.hpp"

using namespace ppma;

namespace fused_attention_test {

namespace {

struct Problem {
  i64 batch, heads, height, width, d;
  Tensor q, k, v, la, lb;  // f64
  // undefined where la is: no mask
  Tensor decays() const { return la.defined() ? join_decays(la, lb) : Tensor(); }

  Problem(i64 B, i64 G, i64 H, i64 W, i64 d_, double score_deviation, double strongest_decay,
          u64 seed)
      : batch(B), heads(G), height(H), width(W), d(d_) {
    Rng rng(seed);
    const Shape tokens{B, H, W, G * d}, grid{B, G, H, W};
    q = Tensor::randn(tokens, rng, score_deviation, DType::f64);
    k = Tensor::randn(tokens, rng, 1 / std::sqrt(static_cast<double>(d)), DType::f64);
    v = Tensor::randn(tokens, rng, 1, DType::f64);
    la = Tensor::rand(grid, rng, strongest_decay, 0, DType::f64);
    lb = Tensor::rand(grid, rng, strongest_decay, 0, DType::f64);
  }
  i64 token(i64 b, i64 i, i64 j, i64 g, i64 c) const {
    return ((b * height + i) * width + j) * heads * d + g * d + c;
  }
  double decay(const Tensor& t, i64 b, i64 g, i64 i, i64 j) const {
    return t.data<double>()[((b * heads + g) * height + i) * width + j];
  }
  double score(i64 b, i64 g, i64 i, i64 j, i64 k_, i64 l) const {
    double s = 0;
    for (i64 c = 0; c < d; ++c)
      s += q.data<double>()[token(b, i, j, g, c)] * k.data<double>()[token(b, k_, l, g, c)];
    return s;
  }
  // Sum of log alpha over the edges of row `r` between columns j and l; of log beta likewise.
  double along_row(i64 b, i64 g, i64 r, i64 j, i64 l) const {
    double s = 0;
    for (i64 t = std::min(j, l) + 1; t <= std::max(j, l); ++t) s += decay(la, b, g, r, t);
    return s;
  }
  double along_column(i64 b, i64 g, i64 c, i64 i, i64 k_) const {
    double s = 0;
    for (i64 t = std::min(i, k_) + 1; t <= std::max(i, k_); ++t) s += decay(lb, b, g, t, c);
    return s;
  }
};

std::vector<double> softmax(std::vector<double> s) {
  double top = s[0], sum = 0;
  for (double x : s) top = std::max(top, x);
  for (double& x : s) sum += x = std::exp(x - top);
  for (double& x : s) x /= sum;
  return s;
}

std::vector<double> whole_by_definition(const Problem& p, Paths paths) {
  std::vector<double> y(static_cast<std::size_t>(p.q.numel()), 0.0);
  std::vector<bool> v2h;  // the softmaxes to average
  if (paths != Paths::h2v) v2h.push_back(true);
  if (paths == Paths::h2v || paths == Paths::both) v2h.push_back(false);
  for (i64 b = 0; b < p.batch; ++b)
    for (i64 g = 0; g < p.heads; ++g)
      for (i64 i = 0; i < p.height; ++i)
        for (i64 j = 0; j < p.width; ++j)
          for (const bool first : v2h) {
            std::vector<double> s;
            for (i64 k = 0; k < p.height; ++k)
              for (i64 l = 0; l < p.width; ++l) {
                const double mask =
                    paths == Paths::none ? 0
                    : first ? p.along_row(b, g, i, j, l) + p.along_column(b, g, l, i, k)
                            : p.along_row(b, g, k, j, l) + p.along_column(b, g, j, i, k);
                s.push_back(p.score(b, g, i, j, k, l) + mask);
              }
            s = softmax(s);
            for (i64 u = 0; u < p.height * p.width; ++u)
              for (i64 c = 0; c < p.d; ++c)
                y[static_cast<std::size_t>(p.token(b, i, j, g, c))] +=
                    s[static_cast<std::size_t>(u)] *
                    p.v.data<double>()[p.token(b, u / p.width, u % p.width, g, c)] /
                    static_cast<double>(v2h.size());
          }
  return y;
}

// x (a copy of all tokens) mixed along rows or along columns.
std::vector<double> mix(const Problem& p, const std::vector<double>& x, bool rows, bool masked) {
  std::vector<double> y(x.size(), 0.0);
  for (i64 b = 0; b < p.batch; ++b)
    for (i64 g = 0; g < p.heads; ++g)
      for (i64 i = 0; i < p.height; ++i)
        for (i64 j = 0; j < p.width; ++j) {
          std::vector<double> s;
          const i64 n = rows ? p.width : p.height;
          for (i64 t = 0; t < n; ++t) {
            const double mask = !masked ? 0
                                : rows  ? p.along_row(b, g, i, j, t)
                                        : p.along_column(b, g, j, i, t);
            s.push_back(mask + (rows ? p.score(b, g, i, j, i, t) : p.score(b, g, i, j, t, j)));
          }
          s = softmax(s);
          for (i64 t = 0; t < n; ++t)
            for (i64 c = 0; c < p.d; ++c)
              y[static_cast<std::size_t>(p.token(b, i, j, g, c))] +=
                  s[static_cast<std::size_t>(t)] *
                  x[static_cast<std::size_t>(rows ? p.token(b, i, t, g, c)
                                                  : p.token(b, t, j, g, c))];
        }
  return y;
}

std::vector<double> criss_cross_by_definition(const Problem& p, Order order, bool masked) {
  const std::vector<double> v = p.v.to_vector<double>();
  const std::vector<double> o1 = mix(p, mix(p, v, true, masked), false, masked);
  const std::vector<double> o2 = mix(p, mix(p, v, false, masked), true, masked);
  if (order == Order::rows_first) return o1;
  if (order == Order::columns_first) return o2;
  std::vector<double> y = o1;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = 0.5 * (o1[i] + o2[i]);
  return y;
}

Tensor to_f32(const Tensor& t) { return Tensor::from<float>(t.to_vector<float>(), t.shape()); }

using Attention = std::function<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&)>;

// Largest difference between the gradients of <y, dy> and central differences, relative to the
// largest gradient.
double gradient_error(Problem& p, const Attention& attention, bool masked) {
  Rng rng(9);
  const Tensor dy = Tensor::randn(p.q.shape(), rng, 1, DType::f64);
  std::vector<Tensor*> inputs{&p.q, &p.k, &p.v};
  if (masked) inputs.insert(inputs.end(), {&p.la, &p.lb});
  const auto loss = [&] {
    const NoGrad off;
    const Tensor y = attention(p.q, p.k, p.v, p.la, p.lb);
    double sum = 0;
    for (i64 i = 0; i < y.numel(); ++i) sum += y.data<double>()[i] * dy.data<double>()[i];
    return sum;
  };
  for (Tensor* t : inputs) t->requires_grad(true);
  attention(p.q, p.k, p.v, p.la, p.lb).backward(dy);
  double worst = 0;
  for (Tensor* t : inputs) {
    const Tensor g = t->grad();
    double error = 0, largest = 0;
    for (i64 i = 0; i < t->numel(); ++i) {
      double& x = t->data<double>()[i];
      const double before = x, h = 1e-5;
      x = before + h;
      const double above = loss();
      x = before - h;
      const double below = loss();
      x = before;
      const double numeric = (above - below) / (2 * h);
      error = std::max(error, std::abs(numeric - g.data<double>()[i]));
      largest = std::max(largest, std::abs(numeric));
    }
    CHECK(largest > 1e-3);  // a vanishing gradient would prove nothing
    worst = std::max(worst, error / largest);
  }
  return worst;
}

struct Grid {
  i64 height, width, d;
};
// One line, one column, one token, wider than a register tile, widths around the vector length,
// square.
const Grid grids[] = {{3, 5, 4},  {1, 7, 3},  {6, 1, 5},  {1, 1, 2},  {2, 19, 16},
                      {5, 16, 8}, {4, 17, 1}, {7, 7, 32}, {14, 14, 4}};

}  // namespace

TEST_CASE("fused whole attention equals its definition", "[polyline][attention]") {
  for (const Paths paths : {Paths::none, Paths::v2h, Paths::h2v, Paths::both})
    for (const Grid& s : grids) {
      const Problem p(2, 2, s.height, s.width, s.d, 1, -1, 3);
      INFO(to_string(paths) << " " << s.height << "x" << s.width << " d " << s.d);
      const std::vector<double> want = whole_by_definition(p, paths);
      CHECK(distance(whole_attention(p.q, p.k, p.v, p.heads, p.decays(), paths).to_vector<double>(),
                     want) < 1e-13);
      const Tensor y = whole_attention(to_f32(p.q), to_f32(p.k), to_f32(p.v), p.heads,
                                       to_f32(p.decays()), paths);
      CHECK(distance(y.to_vector<double>(), want) < 2e-6);
    }
}

TEST_CASE("fused whole attention survives masks that silence everything but the query",
          "[polyline][attention]") {
  // Scores up to +-60 and decays down to e^-60 a step: the raw maximum underflows, the query itself
  // must still count.
  for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both}) {
    const Problem p(1, 2, 5, 6, 4, 30, -60, 4);
    const std::vector<double> want = whole_by_definition(p, paths);
    CHECK(distance(whole_attention(p.q, p.k, p.v, p.heads, p.decays(), paths).to_vector<double>(),
                   want) < 1e-12);
    const Tensor y =
        whole_attention(to_f32(p.q), to_f32(p.k), to_f32(p.v), p.heads, to_f32(p.decays()), paths);
    // scores of 100 have an f32 spacing of 8e-6
    CHECK(distance(y.to_vector<double>(), want) < 1e-4);
  }
}

TEST_CASE("fused whole attention: gradients", "[polyline][attention][gradient]") {
  for (const Paths paths : {Paths::none, Paths::v2h, Paths::h2v, Paths::both})
    for (const Grid& s : {Grid{3, 4, 3}, Grid{2, 14, 2}}) {
      INFO(to_string(paths) << " " << s.height << "x" << s.width);
      Problem p(1, 2, s.height, s.width, s.d, 1, -1, 5);
      const auto attention = [&](const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& la, const Tensor& lb) {
        const bool masked = paths != Paths::none;
        return whole_attention(q, k, v, p.heads, masked ? join_decays(la, lb) : Tensor(), paths);
      };
      CHECK(gradient_error(p, attention, paths != Paths::none) < 1e-8);
      if (paths == Paths::none) continue;
      for (i64 line = 0; line < 2 * s.height; ++line)
        CHECK(p.la.grad().data<double>()[line * s.width] == 0.0);
      for (i64 j = 0; j < s.width; ++j) CHECK(p.lb.grad().data<double>()[j] == 0.0);
    }
}

TEST_CASE("fused criss-cross attention equals its definition", "[polyline][attention]") {
  for (const bool masked : {false, true})
    for (const Order order : {Order::rows_first, Order::columns_first, Order::both})
      for (const Grid& s : grids) {
        Problem p(2, 2, s.height, s.width, s.d, 1, -1, 6);
        INFO(to_string(order) << " " << s.height << "x" << s.width << " d " << s.d << " masked "
                              << masked);
        const std::vector<double> want = criss_cross_by_definition(p, order, masked);
        if (!masked) p.la = p.lb = Tensor();
        CHECK(distance(criss_cross_attention(p.q, p.k, p.v, p.heads, p.decays(), order)
                           .to_vector<double>(),
                       want) < 1e-13);
        if (!masked) continue;
        const Tensor y = criss_cross_attention(to_f32(p.q), to_f32(p.k), to_f32(p.v), p.heads,
                                               to_f32(p.decays()), order);
        CHECK(distance(y.to_vector<double>(), want) < 2e-6);
      }
}

TEST_CASE("fused criss-cross attention: gradients", "[polyline][attention][gradient]") {
  for (const bool masked : {false, true})
    for (const Order order : {Order::rows_first, Order::columns_first, Order::both})
      for (const Grid& s : {Grid{3, 4, 3}, Grid{2, 14, 2}}) {
        INFO(to_string(order) << " " << s.height << "x" << s.width << " masked " << masked);
        Problem p(1, 2, s.height, s.width, s.d, 1, -1, 7);
        if (!masked) p.la = p.lb = Tensor();
        const auto attention = [&](const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Tensor& la, const Tensor& lb) {
          return criss_cross_attention(q, k, v, p.heads, masked ? join_decays(la, lb) : Tensor(),
                                       order);
        };
        CHECK(gradient_error(p, attention, masked) < 1e-8);
        if (!masked) continue;
        for (i64 line = 0; line < 2 * s.height; ++line)
          CHECK(p.la.grad().data<double>()[line * s.width] == 0.0);
      }
}

TEST_CASE("criss-cross probabilities that do not fit are computed again, with the same result",
          "[polyline][attention]") {
  // One head of 4 x 300 keeps its row probabilities, 4 x 400 is over the limit: compare both with
  // the definition.
  for (const i64 width : {300, 400}) {
    const Problem p(1, 1, 4, width, 2, 1, -0.01, 8);
    REQUIRE((4 * width * width > kernels::criss_cross::keep_limit) == (width == 400));
    CHECK(distance(criss_cross_attention(p.q, p.k, p.v, 1, p.decays()).to_vector<double>(),
                   criss_cross_by_definition(p, Order::both, true)) < 1e-13);
  }
}

TEST_CASE("fused attentions do not depend on the number of threads",
          "[polyline][attention][threads]") {
  const int before = threads();
  Problem p(2, 3, 12, 20, 16, 1, -1, 10);
  std::vector<std::vector<double>> results;
  for (const int count : thread_counts({1, 2, 3})) {
    set_threads(count);
    for (Tensor* t : {&p.q, &p.k, &p.v, &p.la, &p.lb}) t->requires_grad(true).zero_grad();
    const Tensor y1 = whole_attention(p.q, p.k, p.v, p.heads, p.decays());
    y1.backward(p.v.detach());
    const Tensor y2 = criss_cross_attention(p.q, p.k, p.v, p.heads, p.decays());
    y2.backward(p.v.detach());
    std::vector<double> all = y1.to_vector<double>();
    for (const Tensor& t : {y2, p.q.grad(), p.k.grad(), p.v.grad(), p.la.grad(), p.lb.grad()}) {
      const std::vector<double> x = t.to_vector<double>();
      all.insert(all.end(), x.begin(), x.end());
    }
    results.push_back(all);
  }
  set_threads(before);
  for (const auto& result : results) CHECK(result == results[0]);
}

TEST_CASE("fused whole attention needs memory in proportion to N",
          "[polyline][attention][memory]") {
  if (brief()) PPMA_SKIP("a sanitizer changes no figure of memory");
  // Peak above the arguments, forward and backward, at one head of width 8: bytes a token must not
  // grow with N.
  const int before = threads();
  set_threads(1);
  std::vector<double> bytes_per_token;
  for (const i64 side : {32, 64, 128}) {  // N = 1024, 4096, 16384
    Rng rng(11);
    const Shape tokens{1, side, side, 8};
    Tensor q = Tensor::randn(tokens, rng), k = Tensor::randn(tokens, rng, 0.3),
           v = Tensor::randn(tokens, rng);
    Tensor la = Tensor::rand({1, 1, side, side}, rng, -0.2, 0),
           lb = Tensor::rand({1, 1, side, side}, rng, -0.2, 0);
    // the backward of 16384 takes its time: forward only
    for (Tensor* t : {&q, &la}) t->requires_grad(side < 128);
    reset_peak_memory();
    const i64 start = memory_stats().live_bytes;
    const Tensor y = whole_attention(q, k, v, 1, join_decays(la, lb));
    if (side < 128) y.backward(v);
    const double extra = static_cast<double>(memory_stats().peak_bytes - start);
    const double n = static_cast<double>(side * side);
    bytes_per_token.push_back(extra / n);
    CHECK(extra < 0.02 * n * n * 4 + 2000 * n);
  }
  set_threads(before);
  CHECK(bytes_per_token[1] < 1.2 * bytes_per_token[0]);
  CHECK(bytes_per_token[2] < 1.2 * bytes_per_token[0]);
}

TEST_CASE("fused attentions name what is wrong", "[polyline][attention][error]") {
  const Tensor q = Tensor::zeros({1, 2, 3, 8}), decays = Tensor::zeros({2, 1, 2, 2, 3});
  CHECK_THROWS_WITH(whole_attention(q, q, q, 3, decays),
                    "whole_attention: 8 channels do not divide into 3 heads");
  CHECK_THROWS_WITH(whole_attention(q, q, Tensor::zeros({1, 2, 3, 4}), 2, decays),
                    "whole_attention: q, k and v must have one shape, got (1, 2, 3, 8), (1, 2, 3, "
                    "8) and (1, 2, 3, 4)");
  CHECK_THROWS_WITH(whole_attention(q, q, q, 2, Tensor()),
                    "whole_attention: a masked attention needs log_decays, (2, 1, 2, 2, 3)");
  CHECK(!turns_in_whole_attention(q, 2, Paths::both));
  CHECK_THROWS_WITH(
      whole_attention_turned(q, q, q, 2, decays, Paths::both, Tensor::zeros({4}), 0.5),
      "whole_attention_turned: takes masked maps of at most 16 x 16 on a GPU in bf16, got (1, 2, "
      "3, "
      "8) f32; use rotary() and whole_attention()");
  CHECK_THROWS_WITH(criss_cross_attention(q, q, q, 2, Tensor::zeros({2, 1, 2, 3, 2})),
                    "criss_cross_attention: log_decays must be (2,B,G,H,W) = (2, 1, 2, 2, 3), or "
                    "(1, 1, 2, 2, 3) where alpha = beta, got (2, 1, 2, 3, 2)");
  CHECK_THROWS_WITH(join_decays(Tensor(), q), "join_decays: a log decay is undefined");
  CHECK_THROWS_WITH(log_beta_of(q),
                    "log_beta_of: log_decays must be (2,B,G,H,W), or (1,B,G,H,W) where alpha = "
                    "beta, got (1, 2, 3, 8); join_decays() makes them of two tensors");
  CHECK_THROWS_WITH(criss_cross_attention(Tensor::zeros({2, 3, 8}), q, q, 2, decays),
                    "criss_cross_attention: q must be (B,H,W,C), got (2, 3, 8)");
}

}  // namespace fused_attention_test
