// The ablation's masks: names, visiting orders, the generic rule, RMT.

#include "ppma/polyline/masks.hpp"

#include "polyline/help.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/polyline/sequence.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace ablation_test {

namespace {

constexpr i64 heads = 2;

struct Problem {
  Tensor q, k, v, la, lb;
  Problem(i64 h, i64 w)
      : q(random({2, h, w, heads * 3}, 1)),
        k(random({2, h, w, heads * 3}, 2, 0.7)),
        v(random({2, h, w, heads * 3}, 3)),
        la(random_log_decay({2, heads, h, w}, 4)),
        lb(random_log_decay({2, heads, h, w}, 5)) {}
  std::vector<Tensor> all() const { return {q, k, v, la, lb}; }
  Tensor decays() const { return join_decays(la, lb); }
  Tensor of(MaskKind kind) const {
    if (kind == MaskKind::shared) return stack({la});
    if (kind == MaskKind::rmt)
      return constant_log_decay(rmt_decay_log(heads, 2, 4, DType::f64), 2, q.dim(1), q.dim(2));
    return decays();
  }
};

// The generic rule of algorithm 2.7, for any mask.
Tensor whole_by_rule(const Problem& x, MaskKind kind) {
  return whole_attention_with(x.q, x.k, x.v, heads, ablation_log_masks(kind, x.of(kind)));
}
Tensor criss_cross_by_rule(const Problem& x, MaskKind kind) {
  const auto m = ablation_log_masks(kind, x.of(kind));
  LineMasks lines;
  if (!m.empty())
    lines = {restrict_to_lines(m.front(), x.q.dim(1), x.q.dim(2), true),
             restrict_to_lines(m.back(), x.q.dim(1), x.q.dim(2), false)};
  return criss_cross_attention_with(x.q, x.k, x.v, heads, lines, mask_of(kind).order);
}

}  // namespace

TEST_CASE("masks by name", "[polyline][ablation]") {
  for (const Mask& mask : masks()) {
    CHECK(parse_mask_kind(mask.name) == mask.kind);
    CHECK(to_string(mask.kind) == mask.name);
  }
  CHECK(masks().size() == 7);
  CHECK(parse_mask_kind("2d") == MaskKind::polyline);
  CHECK(says([] { parse_mask_kind("polylines"); },
             "there is no mask \"polylines\"; the masks are none, rmt, v2h, polyline, shared, "
             "cross_scan, hilbert"));
  CHECK(mask_of(MaskKind::rmt).decays == 0);
  CHECK(mask_of(MaskKind::shared).decays == 1);
  CHECK(mask_of(MaskKind::hilbert).decays == 2);
}

TEST_CASE("every mask follows the generic rule", "[polyline][ablation]") {
  for (const auto& [h, w] : {std::pair<i64, i64>{3, 4}, {5, 2}, {1, 4}, {9, 19}})
    for (const Mask& mask : masks()) {
      const MaskKind kind = mask.kind;
      const Problem x(h, w);
      INFO(mask.name << " " << h << "x" << w);
      CHECK(largest_difference(masked_whole_attention(x.q, x.k, x.v, heads, kind, x.of(kind)),
                               whole_by_rule(x, kind)) < 1e-13);
      CHECK(largest_difference(masked_criss_cross(x.q, x.k, x.v, heads, kind, x.of(kind)),
                               criss_cross_by_rule(x, kind)) < 1e-13);
    }
}

TEST_CASE("sequence masks without N x N arrays: gradients of the masks as they are built",
          "[polyline][ablation]") {
  // Lines of more than a vector, with an edge that is closed and one that is nearly so.
  Problem x(6, 19);
  x.la.data<double>()[40] = x.lb.data<double>()[77] = -1e30;
  x.la.data<double>()[90] = -1e9;
  const auto gradients = [&](bool by_rule, bool whole, MaskKind kind, DType dtype) {
    std::vector<Tensor> in;
    for (const Tensor& t : x.all()) {
      in.push_back(cast(t, dtype).clone());
      in.back().requires_grad(true);
    }
    Problem p = x;
    p.q = in[0], p.k = in[1], p.v = in[2], p.la = in[3], p.lb = in[4];
    const Tensor y =
        whole ? (by_rule ? whole_by_rule(p, kind)
                         : masked_whole_attention(p.q, p.k, p.v, heads, kind, p.decays()))
              : (by_rule ? criss_cross_by_rule(p, kind)
                         : masked_criss_cross(p.q, p.k, p.v, heads, kind, p.decays()));
    sum(y * cast(random(y.shape(), 9), dtype)).backward();
    std::vector<Tensor> all{cast(y, DType::f64)};
    for (const Tensor& t : in) all.push_back(cast(t.grad(), DType::f64));
    return all;
  };
  for (const MaskKind kind : {MaskKind::cross_scan, MaskKind::hilbert})
    for (const bool whole : {true, false}) {
      INFO(to_string(kind) << (whole ? " whole" : " criss-cross"));
      const auto built = gradients(true, whole, kind, DType::f64),
                 fused = gradients(false, whole, kind, DType::f64),
                 f32 = gradients(false, whole, kind, DType::f32);
      for (std::size_t t = 0; t < built.size(); ++t) {
        CHECK(largest_difference(fused[t], built[t]) < 1e-12);
        CHECK(largest_difference(f32[t], built[t]) < 2e-5);
      }
      if (whole || kind == MaskKind::hilbert) CHECK(fused[4].data<double>()[40] == 0);
    }
  CHECK(says(
      [&] {
        sequence_attention(x.q, x.k, x.v, heads, x.decays(), {{0, 1}, {0, 1}});
      },
      "an order of 2 tokens for 114"));
}

TEST_CASE("masks are different masks, and learn", "[polyline][ablation]") {
  const Problem x(3, 4);
  std::vector<Tensor> seen;
  for (const Mask& mask : masks()) {
    const MaskKind kind = mask.kind;
    const Tensor y = masked_whole_attention(x.q, x.k, x.v, heads, kind, x.of(kind));
    for (const Tensor& other : seen) CHECK(largest_difference(y, other) > 1e-3);
    seen.push_back(y);
    if (mask.decays == 0) continue;
    const MaskKind which = kind;
    for (const bool criss : {false, true}) {
      const GradCheck g = grad_check(
          [which, criss](const auto& in) {
            const Tensor d = in.size() == 4 ? stack({in[3]}) : join_decays(in[3], in[4]);
            return criss ? masked_criss_cross(in[0], in[1], in[2], heads, which, d)
                         : masked_whole_attention(in[0], in[1], in[2], heads, which, d);
          },
          which == MaskKind::shared ? std::vector<Tensor>{x.q, x.k, x.v, x.la} : x.all(),
          {.max_elements = 17});
      INFO(mask.name << (criss ? " criss-cross" : " whole") << "\n" << g.report);
      CHECK(g.ok);
    }
  }
}

TEST_CASE("polyline masks restrict to the 1-D masks of their lines", "[polyline][ablation]") {
  const Problem x(3, 4);
  const LineMasks lines = line_log_masks(x.decays());
  for (const Tensor& m : ablation_log_masks(MaskKind::polyline, x.decays())) {
    CHECK(largest_difference(restrict_to_lines(m, 3, 4, true), lines.rows) < 1e-14);
    CHECK(largest_difference(restrict_to_lines(m, 3, 4, false), lines.columns) < 1e-14);
  }
  const auto scan = ablation_log_masks(MaskKind::cross_scan, x.decays());
  CHECK(largest_difference(restrict_to_lines(scan[0], 3, 4, true), lines.rows) < 1e-14);
  CHECK(largest_difference(restrict_to_lines(scan[1], 3, 4, false), lines.columns) < 1e-14);
}

TEST_CASE("cross scan: the mask of a raster sequence wraps from row to row",
          "[polyline][ablation]") {
  const Problem x(3, 4);
  const auto m = ablation_log_masks(MaskKind::cross_scan, x.decays());
  const double *a = x.la.data<double>(), *b = x.lb.data<double>();
  // Last token of row 0 and first of row 1: one edge. (2,0) and (0,1): in column order one edge.
  CHECK(m[0].data<double>()[3 * 12 + 4] == Approx(a[4]).epsilon(1e-13));
  CHECK(m[1].data<double>()[8 * 12 + 1] == Approx(b[1]).epsilon(1e-13));
  CHECK(m[0].data<double>()[1 * 12 + 6] == Approx(a[2] + a[3] + a[4] + a[5] + a[6]).epsilon(1e-13));
  CHECK(column_major_order(2, 3) == std::vector<i64>{0, 3, 1, 4, 2, 5});
}

TEST_CASE("Hilbert order visits each cell once, neighbours in turn on a square of 2^k",
          "[polyline][ablation]") {
  for (const auto& [h, w] :
       {std::pair<i64, i64>{1, 1}, {2, 2}, {8, 8}, {7, 7}, {14, 14}, {5, 9}, {1, 6}, {6, 1}})
    for (const bool transposed : {false, true}) {
      INFO(h << "x" << w);
      const std::vector<i64> order = hilbert_order(h, w, transposed);
      REQUIRE(order.size() == static_cast<std::size_t>(h * w));
      std::vector<int> visits(order.size(), 0);
      for (const i64 u : order) ++visits[static_cast<std::size_t>(u)];
      CHECK(visits == std::vector<int>(order.size(), 1));
      if (h != w || (h & (h - 1)) != 0) continue;
      for (std::size_t t = 1; t < order.size(); ++t)
        CHECK(std::abs(order[t] / w - order[t - 1] / w) +
                  std::abs(order[t] % w - order[t - 1] % w) ==
              1);
    }
  CHECK(hilbert_order(2, 2) == std::vector<i64>{0, 2, 3, 1});
  CHECK(hilbert_order(2, 2, true) == std::vector<i64>{0, 1, 3, 2});
  // The curve of the 4 x 4 square, by hand.
  CHECK(hilbert_order(4, 4) ==
        std::vector<i64>{0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3});
}

TEST_CASE("RMT: published decays, Manhattan mask, equality with constant decays",
          "[polyline][ablation]") {
  const Tensor log_gamma = rmt_decay_log(4, 2, 4, DType::f64);
  const double gamma[] = {0.75, 0.875, 0.9375, 0.96875};
  for (std::size_t g = 0; g < 4; ++g)
    CHECK(std::exp(log_gamma.to_vector<double>()[g]) == Approx(gamma[g]).epsilon(1e-14));

  const Problem x(3, 4);
  const Tensor d = x.of(MaskKind::rmt);
  const double* l = d.data<double>();
  const Tensor m = ablation_log_masks(MaskKind::rmt, d).at(0);
  for (i64 g = 0; g < heads; ++g)
    for (i64 u = 0; u < 12; ++u)
      for (i64 v = 0; v < 12; ++v)
        CHECK(m.data<double>()[(g * 12 + u) * 12 + v] ==
              Approx(l[g * 12] *
                     static_cast<double>(std::abs(u / 4 - v / 4) + std::abs(u % 4 - v % 4)))
                  .margin(1e-14));
  // Whole attention: with constant decays the polyline mask's average of two is RMT's one.
  // Criss-cross: it is not.
  CHECK(largest_difference(masked_whole_attention(x.q, x.k, x.v, heads, MaskKind::rmt, d),
                           whole_attention(x.q, x.k, x.v, heads, d)) < 1e-13);
  CHECK(largest_difference(masked_criss_cross(x.q, x.k, x.v, heads, MaskKind::rmt, d),
                           criss_cross_attention(x.q, x.k, x.v, heads, d)) > 1e-3);
}

TEST_CASE("ablation: misuse is explained", "[polyline][ablation]") {
  const Problem x(2, 3);
  CHECK(says([&] { masked_whole_attention(x.q, x.k, x.v, heads, MaskKind::hilbert, Tensor()); },
             "needs log_decays"));
  CHECK(says(
      [&] {
        restrict_to_lines(Tensor::zeros({1, 1, 6, 6}), 2, 2, true);
      },
      "the mask must be (B,G,N,N) with N = 4"));
  CHECK(says([] { rmt_decay_log(0, 2, 4); }, "needs heads"));
}

}  // namespace ablation_test
