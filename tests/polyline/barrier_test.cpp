// Hard barriers: every form of the mask and of the attentions under random mixtures of log decays
// from -0 to -infinity, against the definition in float64: each path is walked, nothing is ever
// subtracted. Values and all gradients. What stands at the edges that do not exist (the first of
// every line) may be anything, also NaN.

#include <algorithm>
#include <cmath>
#include <limits>

#include "polyline/help.hpp"
#include "ppma/io/element.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/structured.hpp"
#include "ppma/polyline/volume.hpp"
#include "sanitized.hpp"

using namespace polyline_test;

namespace barrier_test {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
using Numbers = std::vector<double>;
using Size = std::size_t;

Size at(i64 i) { return static_cast<Size>(i); }

struct Grid {
  i64 height, width, d;
};

// One image of `heads` heads. All numbers are those of f32, so that both dtypes see the same.
struct Problem {
  i64 heads, height, width, d, n;
  std::vector<Tensor> in;  // q, k, v (1,H,W,C), log alpha, log beta (1,G,H,W)
  Numbers q, k, v, alpha, beta, dy;

  Problem(const Grid& g, u64 seed, double score, double open, i64 heads_ = 2)
      : heads(heads_), height(g.height), width(g.width), d(g.d), n(height * width) {
    const Shape tokens{1, height, width, heads * d}, grid{1, heads, height, width};
    in = {random(tokens, seed, score),
          random(tokens, seed + 1, 1 / std::sqrt(static_cast<double>(d))), random(tokens, seed + 2),
          decays(grid, seed + 3, open), decays(grid, seed + 4, open)};
    for (i64 e = 0; e < heads * n; ++e) {
      if (e % width == 0) in[3].data<double>()[e] = nowhere(e);
      if (e % n < width) in[4].data<double>()[e] = nowhere(e + 1);
    }
    for (Tensor& t : in) t = cast(cast(t, DType::f32), DType::f64);
    q = in[0].to_vector<double>(), k = in[1].to_vector<double>(), v = in[2].to_vector<double>();
    alpha = in[3].to_vector<double>(), beta = in[4].to_vector<double>();
    for (i64 i = 0; i < in[0].numel(); ++i)
      dy.push_back(static_cast<double>((i * 37 + 11) % 64) / 32 - 1);
  }

  // A share `open` of ordinary decays, the rest from every size of wall.
  static Tensor decays(const Shape& shape, u64 seed, double open) {
    const double walls[] = {-0.0, -1e-42, -5,   -20,  -87,   -104,     -200,
                            -1e3, -1e4,   -1e6, -1e9, -1e30, -infinity};
    Rng rng(seed);
    const Tensor what = Tensor::rand(shape, rng, 0, 1, DType::f64),
                 which = Tensor::rand(shape, rng, 0, 1, DType::f64);
    Tensor t = Tensor::empty(shape, DType::f64);
    for (i64 i = 0; i < t.numel(); ++i)
      t.data<double>()[i] = what.data<double>()[i] < open
                                ? -which.data<double>()[i]
                                : walls[static_cast<Size>(which.data<double>()[i] * 13)];
    return t;
  }
  static double nowhere(i64 e) { return e % 3 == 0 ? std::nan("") : e % 3 == 1 ? -infinity : 1e30; }

  Size token(i64 head, i64 u, i64 c) const { return at((u * heads + head) * d + c); }
  double dot(const Numbers& x, const Numbers& y, i64 head, i64 u, i64 w) const {
    double s = 0;
    for (i64 c = 0; c < d; ++c) s += x[token(head, u, c)] * y[token(head, w, c)];
    return s;
  }
  // f(true for alpha, index) for each edge of the path from key w to query u: V2H, or H2V.
  template <class F>
  void walk(i64 head, bool v2h, i64 u, i64 w, F f) const {
    const i64 i = u / width, j = u % width, k_ = w / width, l = w % width, row = v2h ? i : k_,
              column = v2h ? l : j;
    for (i64 t = std::min(j, l) + 1; t <= std::max(j, l); ++t)
      f(true, at(head * n + row * width + t));
    for (i64 t = std::min(i, k_) + 1; t <= std::max(i, k_); ++t)
      f(false, at(head * n + t * width + column));
  }
  double mask(i64 head, bool v2h, i64 u, i64 w) const {
    double sum = 0;
    walk(head, v2h, u, w, [&](bool a, Size e) { sum += (a ? alpha : beta)[e]; });
    return sum;
  }
};

// Values, then the gradients of q, k, v, log alpha and log beta.
struct Results {
  Numbers y, dq, dk, dv, da, db;
  explicit Results(const Problem& p)
      : y(p.q.size()), dq(y), dk(y), dv(y), da(p.alpha.size()), db(da) {}
  std::vector<Numbers> all() const { return {y, dq, dk, dv, da, db}; }
};

// y_u += share sum_w p_w v_w with p = softmax over the keys of scores + masks; its backward for dy.
// keys: those that u sees.
Numbers softmax(const Numbers& s) {
  double top = -infinity, sum = 0;
  Numbers p = s;
  for (double x : s) top = std::max(top, x);
  for (double& x : p) sum += x = std::exp(x - top);
  for (double& x : p) x /= sum;
  return p;
}

// Adds the gradient g of log L at (u,w) to the edges of the path.
void to_edges(const Problem& p, Results& r, i64 head, bool v2h, i64 u, i64 w, double g) {
  if (g != 0) p.walk(head, v2h, u, w, [&](bool a, Size e) { (a ? r.da : r.db)[e] += g; });
}
// ds: of the score q_u . k_w.
void to_score(const Problem& p, Results& r, i64 head, i64 u, i64 w, double ds) {
  for (i64 c = 0; c < p.d; ++c) {
    r.dq[p.token(head, u, c)] += ds * p.k[p.token(head, w, c)];
    r.dk[p.token(head, w, c)] += ds * p.q[p.token(head, u, c)];
  }
}

bool uses(Paths paths, bool v2h) { return paths == Paths::both || (paths == Paths::v2h) == v2h; }

Results whole(const Problem& p, Paths paths, Variant variant) {
  Results r(p);
  const double share = variant == Variant::code && paths == Paths::both ? 0.5 : 1;
  for (i64 head = 0; head < p.heads; ++head)
    for (i64 u = 0; u < p.n; ++u) {
      Numbers score, dp, m[2];
      for (i64 w = 0; w < p.n; ++w) {
        score.push_back(p.dot(p.q, p.k, head, u, w)), dp.push_back(p.dot(p.dy, p.v, head, u, w));
        for (const bool v2h : {false, true})
          m[v2h].push_back(uses(paths, v2h) ? p.mask(head, v2h, u, w) : -infinity);
      }
      // weights of the values, gradients of the scores and of both masks
      Numbers weight(at(p.n)), ds(at(p.n)), dm[2] = {ds, ds};
      const auto add_softmax = [&](const Numbers& s, double part, auto to_masks) {
        const Numbers prob = softmax(s);
        double mean = 0;
        for (Size w = 0; w < prob.size(); ++w) mean += prob[w] * dp[w];
        for (Size w = 0; w < prob.size(); ++w) {
          const double g = part * prob[w] * (dp[w] - mean);
          weight[w] += part * prob[w], ds[w] += g;
          to_masks(w, g);
        }
      };
      if (variant == Variant::code) {
        for (const bool v2h : {false, true}) {
          if (!uses(paths, v2h)) continue;
          Numbers s = score;
          for (Size w = 0; w < s.size(); ++w) s[w] += m[v2h][w];
          add_softmax(s, share, [&](Size w, double g) { dm[v2h][w] += g; });
        }
      } else {
        Numbers s = score, l[2] = {ds, ds};  // l: each path's part of L + L^T
        for (Size w = 0; w < s.size(); ++w) {
          const double top = std::max(m[0][w], m[1][w]),
                       both = std::exp(m[0][w]) + std::exp(m[1][w]);
          for (Size side = 0; side < 2; ++side)
            l[side][w] = top == -infinity ? 0 : std::exp(m[side][w] - top);
          if (variant == Variant::joint && top > -infinity)
            s[w] += top + std::log(l[0][w] + l[1][w]);
          if (variant == Variant::joint && top == -infinity) s[w] = -infinity;
          if (variant == Variant::paper)
            for (Size side = 0; side < 2; ++side) l[side][w] = both > 0 ? std::exp(m[side][w]) : 0;
        }
        if (variant == Variant::joint)
          add_softmax(s, 1, [&](Size w, double g) {
            for (Size side = 0; side < 2; ++side)
              if (l[0][w] + l[1][w] > 0) dm[side][w] += g * l[side][w] / (l[0][w] + l[1][w]);
          });
        else {  // y = (P * (L + L^T)) V
          const Numbers prob = softmax(score);
          double mean = 0;
          for (Size w = 0; w < prob.size(); ++w) mean += prob[w] * dp[w] * (l[0][w] + l[1][w]);
          for (Size w = 0; w < prob.size(); ++w) {
            weight[w] = prob[w] * (l[0][w] + l[1][w]);
            ds[w] = prob[w] * (dp[w] * (l[0][w] + l[1][w]) - mean);
            for (Size side = 0; side < 2; ++side) dm[side][w] = prob[w] * dp[w] * l[side][w];
          }
        }
      }
      for (i64 w = 0; w < p.n; ++w) {
        for (i64 c = 0; c < p.d; ++c) {
          r.y[p.token(head, u, c)] += weight[at(w)] * p.v[p.token(head, w, c)];
          r.dv[p.token(head, w, c)] += weight[at(w)] * p.dy[p.token(head, u, c)];
        }
        to_score(p, r, head, u, w, ds[at(w)]);
        for (const bool v2h : {false, true}) to_edges(p, r, head, v2h, u, w, dm[v2h][at(w)]);
      }
    }
  return r;
}

// ((Q K^T) * L) V, or with scores of 1 (`plain`) L V: the mask applied to tokens.
Results linear(const Problem& p, Paths paths, bool plain) {
  Results r(p);
  for (i64 head = 0; head < p.heads; ++head)
    for (i64 u = 0; u < p.n; ++u)
      for (i64 w = 0; w < p.n; ++w)
        for (const bool v2h : {false, true}) {
          if (!uses(paths, v2h)) continue;
          const double l = std::exp(p.mask(head, v2h, u, w)),
                       score = plain ? 1 : p.dot(p.q, p.k, head, u, w),
                       dp = p.dot(p.dy, p.v, head, u, w);
          for (i64 c = 0; c < p.d; ++c) {
            r.y[p.token(head, u, c)] += l * score * p.v[p.token(head, w, c)];
            r.dv[p.token(head, w, c)] += l * score * p.dy[p.token(head, u, c)];
          }
          if (!plain) to_score(p, r, head, u, w, l * dp);
          to_edges(p, r, head, v2h, u, w, l * score * dp);
        }
  return r;
}

// Criss-cross: `first` then `second` are the two ways, rows or columns.
Results criss_cross(const Problem& p, Order order) {
  Results r(p);
  for (i64 head = 0; head < p.heads; ++head) {
    // Of every token and way: the tokens of its line and their probabilities.
    const auto line = [&](bool rows, i64 u) {
      std::vector<i64> tokens;
      for (i64 t = 0; t < (rows ? p.width : p.height); ++t)
        tokens.push_back(rows ? u / p.width * p.width + t : t * p.width + u % p.width);
      return tokens;
    };
    const auto probabilities = [&](bool rows, i64 u) {
      Numbers s;
      for (const i64 w : line(rows, u))
        s.push_back(p.dot(p.q, p.k, head, u, w) + p.mask(head, true, u, w));
      return softmax(s);
    };
    std::vector<Numbers> of[2];
    for (const bool rows : {false, true})
      for (i64 u = 0; u < p.n; ++u) of[rows].push_back(probabilities(rows, u));
    const auto mix = [&](bool rows, const Numbers& x, bool transposed) {
      Numbers y(at(p.n * p.d));
      for (i64 u = 0; u < p.n; ++u) {
        const auto tokens = line(rows, u);
        for (Size t = 0; t < tokens.size(); ++t)
          for (i64 c = 0; c < p.d; ++c)
            y[at((transposed ? tokens[t] : u) * p.d + c)] +=
                of[rows][at(u)][t] * x[at((transposed ? u : tokens[t]) * p.d + c)];
      }
      return y;
    };
    // dP = left right^T along a way's lines, on to scores and decays
    const auto back = [&](bool rows, const Numbers& left, const Numbers& right) {
      for (i64 u = 0; u < p.n; ++u) {
        const auto tokens = line(rows, u);
        Numbers dp(tokens.size());
        double mean = 0;
        for (Size t = 0; t < tokens.size(); ++t) {
          for (i64 c = 0; c < p.d; ++c)
            dp[t] += left[at(u * p.d + c)] * right[at(tokens[t] * p.d + c)];
          mean += of[rows][at(u)][t] * dp[t];
        }
        for (Size t = 0; t < tokens.size(); ++t) {
          const double ds = of[rows][at(u)][t] * (dp[t] - mean);
          to_score(p, r, head, u, tokens[t], ds);
          to_edges(p, r, head, true, u, tokens[t], ds);
        }
      }
    };
    const double share = order == Order::both ? 0.5 : 1;
    Numbers v, g;
    for (i64 u = 0; u < p.n; ++u)
      for (i64 c = 0; c < p.d; ++c)
        v.push_back(p.v[p.token(head, u, c)]), g.push_back(share * p.dy[p.token(head, u, c)]);
    for (const bool first : {true, false}) {  // rows first, columns first
      if (order != Order::both && (order == Order::rows_first) != first) continue;
      const Numbers inner = mix(first, v, false), y = mix(!first, inner, false);
      const Numbers d_inner = mix(!first, g, true), dv = mix(first, d_inner, true);
      back(!first, g, inner), back(first, d_inner, v);
      for (i64 u = 0; u < p.n; ++u)
        for (i64 c = 0; c < p.d; ++c) {
          r.y[p.token(head, u, c)] += share * y[at(u * p.d + c)];
          r.dv[p.token(head, u, c)] += dv[at(u * p.d + c)];
        }
    }
  }
  return r;
}

using Form = std::function<Tensor(const std::vector<Tensor>&)>;

// The form in f64 and f32 against what is right: 1e-5 of the largest number (of 1, if all are
// smaller), in f64 far less. `score`: the largest score, whose rounding no form can undo.
void check_form(const char* name, const Form& f, const Problem& p, const Results& want,
                double score = 1) {
  const char* const names[] = {"value", "dq", "dk", "dv", "dlog_alpha", "dlog_beta"};
  for (const DType dtype : {DType::f64, DType::f32}) {
    std::vector<Tensor> in;
    for (const Tensor& t : p.in) in.push_back(cast(t, dtype)), in.back().requires_grad(true);
    const Tensor y = f(in);
    y.backward(cast(Tensor::from<double>(p.dy, y.shape()), dtype));
    std::vector<Tensor> got{y};
    for (const Tensor& t : in) got.push_back(t.grad());
    const double rounding = dtype == DType::f64 ? 1e-15 : 4e-7;
    const double tolerance = std::max(dtype == DType::f64 ? 1e-11 : 1e-5, rounding * score);
    for (Size r = 0; r < got.size(); ++r) {
      if (!got[r].defined()) continue;  // L V has no q and k
      const Numbers a = cast(got[r], DType::f64).to_vector<double>(), b = want.all()[r];
      REQUIRE(a.size() == b.size());
      double worst = 0, most = 1;
      for (Size i = 0; i < a.size(); ++i) {
        const double e = std::fabs(a[i] - b[i]);
        if (!(e <= worst)) worst = std::isnan(e) ? infinity : e;
        most = std::max(most, std::fabs(b[i]));
      }
      INFO(name << ", " << to_string(dtype) << ", " << names[r]);
      CHECK(worst <= tolerance * most);
      if (r < 4) continue;
      // Edges that do not exist, and those that nothing passes.
      for (i64 e = 0; e < p.heads * p.n; ++e) {
        const bool first = r == 4 ? e % p.width == 0 : e % p.n < p.width;
        if (first || !((r == 4 ? p.alpha : p.beta)[at(e)] > -1e29)) REQUIRE(a[at(e)] == 0.0);
      }
    }
  }
}

double largest_score(const Problem& p) {
  double most = 1;
  for (i64 head = 0; head < p.heads; ++head)
    for (i64 u = 0; u < p.n; ++u)
      for (i64 w = 0; w < p.n; ++w) most = std::max(most, std::fabs(p.dot(p.q, p.k, head, u, w)));
  return most;
}

const Grid grids[] = {{1, 9, 3}, {8, 1, 2},  {1, 1, 2},  {3, 5, 4},
                      {7, 7, 8}, {2, 19, 4}, {13, 4, 5}, {14, 14, 4}};
const double opens[] = {0.3, 0.7, 0.95};  // shares of ordinary decays

std::string about(const Grid& g, double open) {
  return std::to_string(g.height) + "x" + std::to_string(g.width) + ", " + std::to_string(open) +
         " open";
}

}  // namespace

TEST_CASE("barriers: what each token takes from the last one behind a closed edge",
          "[polyline][barrier]") {
  // 1 x 6, scores 0, log decays -1, and a middle edge closed more and more.
  for (const double closed : {-20.0, -1e4, -1e6, -1e9, -1e30, -infinity}) {
    const Tensor zero = Tensor::zeros({1, 1, 6, 1});
    Tensor v = Tensor::zeros({1, 1, 6, 1}), a = Tensor::full({1, 1, 1, 6}, -1),
           b = Tensor::zeros({1, 1, 1, 6});
    v.data<float>()[5] = 1;
    a.data<float>()[3] = static_cast<float>(closed);
    for (const Tensor& y : {whole_attention(zero, zero, v, 1, join_decays(a, b)),
                            criss_cross_attention(zero, zero, v, 1, join_decays(a, b))}) {
      INFO("closed " << closed);
      CHECK(y.data<float>()[2] < 3e-9f);
      CHECK(y.data<float>()[3] == Approx(0.09003057).epsilon(1e-6));
      CHECK(y.data<float>()[4] == Approx(0.21194156).epsilon(1e-6));
      CHECK(y.data<float>()[5] == Approx(0.66524096).epsilon(1e-6));
    }
  }
}

TEST_CASE("barriers: a token behind walls on all sides keeps itself", "[polyline][barrier]") {
  for (const double closed : {-1e4, -1e9, -infinity}) {
    const Tensor q = random({1, 5, 6, 8}, 1), v = random({1, 5, 6, 8}, 3);
    const Tensor walls = Tensor::full({1, 2, 5, 6}, closed, DType::f64);
    for (const DType dtype : {DType::f64, DType::f32}) {
      const Tensor a = cast(walls, dtype), x = cast(q, dtype), z = cast(v, dtype);
      // A probability is p (1 / p): off by a rounding.
      const auto kept = [&](const Tensor& y) {
        return largest_difference(y, z) <= (dtype == DType::f64 ? 3e-16 : 2e-7);
      };
      for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both}) {
        CHECK(kept(whole_attention(x, x, z, 2, join_decays(a, a), paths)));
        CHECK(kept(whole_attention_composed(x, x, z, 2, join_decays(a, a), paths)));
      }
      for (const Order order : {Order::rows_first, Order::columns_first, Order::both})
        CHECK(kept(criss_cross_attention(x, x, z, 2, join_decays(a, a), order)));
      CHECK(largest_difference(apply_mask(z, join_decays(a, a), Paths::v2h), z) == 0);
      CHECK(largest_difference(apply_mask_factored(z, join_decays(a, a), Paths::h2v), z) == 0);
    }
  }
}

TEST_CASE("barriers: whole attention in every form", "[polyline][barrier]") {
  for (const Grid& g : grids)
    for (const double open : opens)
      for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both}) {
        if (g.height * g.width > 100 && (paths == Paths::h2v || open == 0.3)) continue;
        if (brief() && open == 0.95) continue;  // other numbers
        INFO(about(g, open) << ", " << to_string(paths));
        const Problem p(g, 10, 1, open, g.height * g.width > 100 ? 1 : 2);
        const Results want = whole(p, paths, Variant::code);
        check_form(
            "fused",
            [&](const auto& x) {
              return whole_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]), paths);
            },
            p, want);
        for (const Variant v : {Variant::code, Variant::paper, Variant::joint})
          check_form(("composed " + to_string(v)).c_str(),
                     [&](const auto& x) {
                       return whole_attention_composed(x[0], x[1], x[2], p.heads,
                                                       join_decays(x[3], x[4]), paths, v);
                     },
                     p, v == Variant::code ? want : whole(p, paths, v));
      }
}

TEST_CASE("barriers: scores that overcome walls, and walls that overcome scores",
          "[polyline][barrier]") {
  for (const Grid& g : {Grid{3, 5, 4}, Grid{7, 7, 8}, Grid{2, 19, 4}})
    for (const double score : {20.0, 100.0, 500.0}) {
      const Problem p(g, 20, score, 0.6);
      const double most = largest_score(p);
      INFO(about(g, 0.6) << ", scores up to " << most);
      for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both})
        check_form(
            "fused",
            [&](const auto& x) {
              return whole_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]), paths);
            },
            p, whole(p, paths, Variant::code), most * score);
      for (const Order order : {Order::rows_first, Order::columns_first, Order::both})
        check_form(
            "criss-cross",
            [&](const auto& x) {
              return criss_cross_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]),
                                           order);
            },
            p, criss_cross(p, order), most * score);
    }
}

TEST_CASE("barriers: no score passes minus infinity", "[polyline][barrier]") {
  // Integer scores and decays in quarters: f32 rounds neither, but for the logarithms of sums.
  for (const Grid& g : {Grid{3, 5, 4}, Grid{7, 7, 8}, Grid{2, 19, 4}})
    for (const double scale : {1.0, 16.0, 1024.0}) {
      Problem p(g, 80, 1, 0.6);
      const auto each = [](Tensor& t, Numbers& numbers, auto f) {
        for (i64 e = 0; e < t.numel(); ++e)
          t.data<double>()[e] = numbers[at(e)] = f(numbers[at(e)]);
      };
      each(p.in[0], p.q, [&](double x) { return scale * std::round(8 * x); });
      const double root = std::sqrt(static_cast<double>(g.d));
      each(p.in[1], p.k, [&](double x) { return std::round(8 * x * root); });
      for (Size t : {Size{3}, Size{4}})
        each(p.in[t], t == 3 ? p.alpha : p.beta, [](double x) {
          return x <= -1e9 ? -infinity : x < -8 ? -8 : std::round(4 * x) / 4;  // NaN stays
        });
      const double most = largest_score(p);
      INFO(about(g, 0.6) << ", scores up to " << most);
      for (const Paths paths : {Paths::v2h, Paths::both})
        check_form(
            "fused",
            [&](const auto& x) {
              return whole_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]), paths);
            },
            p, whole(p, paths, Variant::code), most);
      check_form(
          "criss-cross",
          [&](const auto& x) {
            return criss_cross_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]));
          },
          p, criss_cross(p, Order::both), most);
    }
}

TEST_CASE("barriers: criss-cross attention in every form", "[polyline][barrier]") {
  for (const Grid& g :
       {Grid{1, 9, 3}, Grid{8, 1, 2}, Grid{1, 1, 2}, Grid{3, 5, 4}, Grid{7, 7, 8}, Grid{2, 19, 4},
        Grid{13, 4, 5}, Grid{14, 14, 4}, Grid{17, 33, 2}, Grid{28, 28, 2}})
    for (const double open : opens)
      for (const Order order : {Order::rows_first, Order::columns_first, Order::both}) {
        const bool many = g.height * g.width > 200;
        if (many && order != Order::both) continue;
        if (brief() && open == 0.95) continue;  // other numbers
        INFO(about(g, open) << ", " << to_string(order));
        const Problem p(g, 30, 1, open, many ? 1 : 2);
        const Results want = criss_cross(p, order);
        check_form(
            "fused",
            [&](const auto& x) {
              return criss_cross_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]),
                                           order);
            },
            p, want);
        check_form(
            "composed",
            [&](const auto& x) {
              return criss_cross_attention_composed(x[0], x[1], x[2], p.heads,
                                                    join_decays(x[3], x[4]), order);
            },
            p, want);
        if (p.n < 60)
          check_form(
              "dense",
              [&](const auto& x) {
                return criss_cross_attention_dense(x[0], x[1], x[2], p.heads,
                                                   join_decays(x[3], x[4]), order);
              },
              p, want);
      }
}

TEST_CASE("barriers: the mask applied, and linear attention, in every form",
          "[polyline][barrier]") {
  for (const Grid& g : grids)
    for (const double open : opens)
      for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both}) {
        if (g.height * g.width > 100 && (open != 0.7 || (brief() && paths != Paths::both)))
          continue;
        if (brief() && open == 0.95) continue;  // other numbers
        INFO(about(g, open) << ", " << to_string(paths));
        const Problem p(g, 40, 1, open, g.height * g.width > 100 ? 1 : 2);
        const Results plain = linear(p, paths, true), want = linear(p, paths, false);
        check_form(
            "scans",
            [&](const auto& x) { return apply_mask(x[2], join_decays(x[3], x[4]), paths); }, p,
            plain);
        check_form(
            "factored",
            [&](const auto& x) {
              return apply_mask_factored(x[2], join_decays(x[3], x[4]), paths);
            },
            p, plain);
        check_form(
            "built",
            [&](const auto& x) {
              const Tensor tokens = detail::head_tokens(x[2], p.heads);
              return detail::tokens_to_grid(
                  matmul(polyline_mask(join_decays(x[3], x[4]), paths), tokens), x[2]);
            },
            p, plain);
        for (const LinearForm form : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
          for (const i64 rows : {1, 2, 3}) {
            if (form != LinearForm::chunked && rows > 1) continue;
            check_form((to_string(form) + " " + std::to_string(rows)).c_str(),
                       [&](const auto& x) {
                         return linear_attention(x[0], x[1], x[2], p.heads, join_decays(x[3], x[4]),
                                                 paths, form, rows);
                       },
                       p, want);
          }
      }
}

TEST_CASE("barriers: sequences, in any order and causal", "[polyline][barrier]") {
  for (const i64 n : {1, 2, 7, 20, 65})
    for (const double open : opens) {
      INFO(n << " tokens, " << open << " open");
      // A sequence is a grid of one row: its paths are walked there.
      const Problem p({1, n, 3}, 50, 1, open);
      std::vector<i64> order;
      for (i64 i = 0; i < n; ++i) order.push_back(n - 1 - (i * 3) % n);
      const bool permutation = n % 3 != 0;
      for (const bool ordered : {false, true}) {
        if (ordered && !permutation) continue;
        for (const DType dtype : {DType::f64, DType::f32}) {
          // By token: what is visited i-th has the i-th decay.
          Tensor log_decay = Tensor::empty({p.heads, n}, DType::f64);
          for (i64 e = 0; e < p.heads * n; ++e)
            log_decay.data<double>()[e / n * n + (ordered ? order[at(e % n)] : e % n)] =
                p.alpha[at(e)];
          const Numbers m =
              sequence_log_mask(cast(log_decay, dtype), ordered ? order : std::vector<i64>{})
                  .to_vector<double>();
          double worst = 0;
          for (i64 head = 0; head < p.heads; ++head)
            for (i64 i = 0; i < n; ++i)
              for (i64 j = 0; j < n; ++j) {
                const i64 u = ordered ? order[at(i)] : i, w = ordered ? order[at(j)] : j;
                const double got = m[at((head * n + u) * n + w)], right = p.mask(head, true, i, j);
                const double e =
                    got == right ? 0 : std::fabs(got - right) / std::max(1.0, std::fabs(right));
                if (!(e <= worst)) worst = std::isnan(e) ? infinity : e;
              }
          CHECK(worst < (dtype == DType::f64 ? 1e-14 : 1e-5));
        }
      }
      // Causal: keys up to the query.
      Results want(p);
      for (i64 head = 0; head < p.heads; ++head)
        for (i64 u = 0; u < n; ++u)
          for (i64 w = 0; w <= u; ++w) {
            const double l = std::exp(p.mask(head, true, u, w)),
                         score = p.dot(p.q, p.k, head, u, w), dp = p.dot(p.dy, p.v, head, u, w);
            for (i64 c = 0; c < p.d; ++c) {
              want.y[p.token(head, u, c)] += l * score * p.v[p.token(head, w, c)];
              want.dv[p.token(head, w, c)] += l * score * p.dy[p.token(head, u, c)];
            }
            to_score(p, want, head, u, w, l * dp);
            to_edges(p, want, head, true, u, w, l * score * dp);
          }
      for (const LinearForm form : {LinearForm::quadratic, LinearForm::scan, LinearForm::chunked})
        for (const i64 chunk : {1, 4, 16})
          check_form((to_string(form) + " " + std::to_string(chunk)).c_str(),
                     [&](const auto& x) {
                       const auto heads_of = [&](const Tensor& t) {
                         return detail::head_tokens(t, p.heads);
                       };
                       const Tensor y =
                           structured_attention(heads_of(x[0]), heads_of(x[1]), heads_of(x[2]),
                                                reshape(x[3], {1, p.heads, n}), form, chunk);
                       return detail::tokens_to_grid(y, x[0]);
                     },
                     p, want);
    }
}

TEST_CASE("barriers: volumes", "[polyline][barrier]") {
  const Shape shape{1, 2, 3, 4, 5};
  for (const double open : opens) {
    VolumeLogDecay decay{Problem::decays(shape, 1, open), Problem::decays(shape, 2, open),
                         Problem::decays(shape, 3, open)};
    for (i64 e = 0; e < decay.log_alpha.numel(); ++e) {
      if (e / 5 % 4 == 0) decay.log_alpha.data<double>()[e] = Problem::nowhere(e);
      if (e / 20 % 3 == 0) decay.log_beta.data<double>()[e] = Problem::nowhere(e);
      if (e % 5 == 0) decay.log_gamma.data<double>()[e] = Problem::nowhere(e);
    }
    const Tensor want = volume_log_mask_by_definition(decay), l = exp(want);
    const Tensor x = random({1, 3, 4, 5, 6}, 4),
                 tokens = permute(reshape(x, {60, 2, 3}), {1, 0, 2});
    const Tensor applied =
        permute(reshape(matmul(reshape(l, {2, 60, 60}), tokens), {2, 60, 3}), {1, 0, 2});
    CHECK(largest_difference(exp(volume_log_mask(decay)), l) < 1e-13);
    CHECK(largest_difference(reshape(apply_volume_mask(x, decay), {60, 2, 3}), applied) < 1e-13);
    const VolumeLogDecay f32{cast(decay.log_alpha, DType::f32), cast(decay.log_beta, DType::f32),
                             cast(decay.log_gamma, DType::f32)};
    CHECK(largest_difference(cast(exp(volume_log_mask(f32)), DType::f64), l) < 1e-5);
    CHECK(largest_difference(
              cast(reshape(apply_volume_mask(cast(x, DType::f32), f32), {60, 2, 3}), DType::f64),
              applied) < 1e-5);
    const std::vector<Tensor> in{decay.log_alpha, decay.log_beta, decay.log_gamma};
    const auto scans = gradients(
        [&](const auto& d) {
          return reshape(apply_volume_mask(x, {d[0], d[1], d[2]}), {60, 2, 3});
        },
        in);
    const auto built = gradients(
        [&](const auto& d) {
          const Tensor m = reshape(exp(volume_log_mask({d[0], d[1], d[2]})), {2, 60, 60});
          return permute(matmul(m, tokens), {1, 0, 2});
        },
        in);
    for (Size t = 0; t < 3; ++t) CHECK(largest_difference(built[t], scans[t]) < 1e-12);
  }
}

TEST_CASE("barriers: the masks of the ablation", "[polyline][barrier]") {
  // Walls in a sequence mask; whole and criss-cross attention with it against probabilities worked
  // out from the mask.
  const Problem p({4, 5, 4}, 60, 1, 0.6);
  for (const MaskKind kind :
       {MaskKind::v2h, MaskKind::polyline, MaskKind::cross_scan, MaskKind::hilbert}) {
    INFO(to_string(kind));
    Tensor la = p.in[3].clone(),
           lb = p.in[4].clone();  // sequences use all edges but the first token's
    for (i64 e = 0; e < la.numel(); ++e)
      for (Tensor* t : {&la, &lb})
        if (!(t->data<double>()[e] <= 0)) t->data<double>()[e] = -infinity;
    std::vector<Tensor> in{p.in[0], p.in[1], p.in[2], la, lb};
    for (const bool whole : {true, false}) {
      const Function f = [&](const auto& x) {
        return whole ? masked_whole_attention(x[0], x[1], x[2], 2, kind, join_decays(x[3], x[4]))
                     : masked_criss_cross(x[0], x[1], x[2], 2, kind, join_decays(x[3], x[4]));
      };
      const auto g64 = gradients(f, in), g32 = gradients(f, to_f32(in));
      CHECK(largest_difference(cast(f(to_f32(in)), DType::f64), f(in)) < 1e-5);
      for (Size t = 0; t < in.size(); ++t)
        CHECK(largest_difference(cast(g32[t], DType::f64), g64[t]) < 1e-5);
    }
  }
}

}  // namespace barrier_test
