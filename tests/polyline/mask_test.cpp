// The polyline path mask: every form against walking the paths, its properties, its gradients.

#include "ppma/polyline/mask.hpp"

#include "polyline/help.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/polyline/volume.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "ppma/tensor/tensor.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace mask_test {

namespace {

struct Grid {
  i64 height, width;
};
const Grid grids[] = {{3, 4}, {4, 3}, {1, 7}, {6, 1}, {1, 1}, {5, 5}, {2, 9}};

struct Decays {
  Tensor la, lb;  // (2,3,H,W)
  Tensor decays() const { return join_decays(la, lb); }
  explicit Decays(Grid g, double low = 0.2, double high = 1)
      : la(random_log_decay({2, 3, g.height, g.width}, 11, low, high)),
        lb(random_log_decay({2, 3, g.height, g.width}, 12, low, high)) {}
};

// The example of algorithm 1.4. The first column of alpha and the first row of beta are never used: 0.77
// stands there.
const Decays& worked() {
  static const Decays d = [] {
    const auto logs = [](std::vector<double> v) {
      for (double& x : v) x = std::log(x);
      return Tensor::from<double>(v, {1, 1, 2, 3});
    };
    Decays e({1, 1});
    e.la = logs({0.77, .5, .8, 0.77, .25, .4});
    e.lb = logs({0.77, 0.77, 0.77, .9, .6, .3});
    return e;
  }();
  return d;
}
Tensor identity(i64 n) {
  Tensor one = Tensor::zeros({n, n}, DType::f64);
  for (i64 i = 0; i < n; ++i) one.data<double>()[i * n + i] = 1;
  return one;
}
const Tensor& worked_mask() {
  static const Tensor l = Tensor::from<double>(
      {1,  .5,  .4,  .9, .3,  .12, .5,   1,  .8,  .45, .6, .24, .4,  .8,  1,  .36, .48, .3,
       .9, .15, .03, 1,  .25, .1,  .225, .6, .12, .25, 1,  .4,  .09, .24, .3, .1,  .4,  1},
      {1, 1, 6, 6});
  return l;
}

Tensor mask_times(const Tensor& mask, const Tensor& x, i64 heads) {  // (B,G,N,N) (B,H,W,C)
  const i64 b = x.dim(0), h = x.dim(1), w = x.dim(2), d = x.dim(3) / heads;
  const Tensor t = permute(reshape(x, {b, h * w, heads, d}), {0, 2, 1, 3});
  return reshape(permute(matmul(mask, t), {0, 2, 1, 3}), x.shape());
}

}  // namespace

TEST_CASE("1-D mask: -|c_i - c_j| is the product of the decays in between", "[polyline][mask]") {
  const i64 n = 9;
  const Tensor log_decay = random_log_decay({2, n}, 1);
  const Tensor m = exp(sequence_log_mask(log_decay));
  for (i64 line = 0; line < 2; ++line)
    for (i64 i = 0; i < n; ++i)
      for (i64 j = 0; j < n; ++j) {
        double product = 1;
        for (i64 t = std::min(i, j) + 1; t <= std::max(i, j); ++t)
          product *= std::exp(log_decay.data<double>()[line * n + t]);
        CHECK(m.data<double>()[(line * n + i) * n + j] == Approx(product).epsilon(1e-13));
      }
}

TEST_CASE("1-D mask: blocks inside a triangle have rank one", "[polyline][mask]") {
  const i64 n = 8;
  const Tensor t = exp(sequence_log_mask(random_log_decay({n}, 2)));
  const double* m = t.data<double>();
  // Every 2 x 2 minor of the lower triangle, diagonal included, vanishes; one across the diagonal
  // does not.
  for (i64 i = 1; i < n; ++i)
    for (i64 k = i; k < n; ++k)
      for (i64 j = 0; j < i; ++j)
        for (i64 l = j; l <= i; ++l) {
          CHECK(std::fabs(m[i * n + j] * m[k * n + l] - m[i * n + l] * m[k * n + j]) < 1e-15);
          CHECK(std::fabs(m[j * n + i] * m[l * n + k] - m[l * n + i] * m[j * n + k]) < 1e-15);
        }
  CHECK(std::fabs(m[0] * m[n + 1] - m[1] * m[n]) > 1e-2);
}

TEST_CASE("1-D mask: gradients, also where decays are exactly 1", "[polyline][mask]") {
  const GradCheck g = grad_check([](const auto& x) { return sequence_log_mask(x[0]); },
                                 {random_log_decay({2, 7}, 3)});
  INFO(g.report);
  CHECK(g.ok);
  const GradCheck ordered = grad_check(
      [](const auto& x) {
        return sequence_log_mask(x[0], {3, 0, 4, 1, 2});
      },
      {random_log_decay({2, 5}, 4)});
  INFO(ordered.report);
  CHECK(ordered.ok);
  // d(ln a_t) = sum of G over the pairs that straddle edge t, whatever the values: with G = 1, 2 t
  // (n - t).
  Tensor flat = Tensor::zeros({5}, DType::f64);
  flat.requires_grad(true);
  sum(sequence_log_mask(flat)).backward();
  CHECK(flat.grad().to_vector<double>() == std::vector<double>{0, 8, 12, 12, 8});
}

TEST_CASE("1-D mask: a bad visiting order is explained", "[polyline][mask]") {
  const Tensor t = Tensor::zeros({3}, DType::f64);
  CHECK(says([&] { sequence_log_mask(t, {0, 1}); }, "an order of 2 tokens for 3 decays"));
  CHECK(says([&] { sequence_log_mask(t, {0, 1, 1}); }, "named twice"));
  CHECK(says([&] { sequence_log_mask(t, {0, 1, 3}); }, "out of range"));
}

TEST_CASE("polyline paths turn once and are shortest", "[polyline][mask]") {
  CHECK(polyline_path({0, 0}, {2, 1}, Paths::v2h) ==
        std::vector<Cell>{{0, 0}, {1, 0}, {2, 0}, {2, 1}});
  CHECK(polyline_path({0, 0}, {2, 1}, Paths::h2v) ==
        std::vector<Cell>{{0, 0}, {0, 1}, {1, 1}, {2, 1}});
  CHECK(polyline_path({2, 2}, {1, 0}, Paths::v2h) ==
        std::vector<Cell>{{2, 2}, {1, 2}, {1, 1}, {1, 0}});
  CHECK(polyline_path({1, 1}, {1, 1}, Paths::h2v) == std::vector<Cell>{{1, 1}});
  CHECK(says([] { polyline_path({0, 0}, {0, 0}, Paths::both); }, "a path is v2h or h2v, not both"));
}

TEST_CASE("polyline mask: the worked example", "[polyline][mask]") {
  const Decays& d = worked();
  const Tensor by_definition = exp(polyline_log_mask_by_definition(d.decays(), Paths::v2h));
  CHECK(largest_difference(by_definition, worked_mask()) < 1e-15);
  CHECK(largest_difference(exp(polyline_log_mask(d.decays())), worked_mask()) < 1e-15);
  const Tensor x = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {1, 2, 3, 1});
  const Tensor lx = Tensor::from<double>({9.02, 11.14, 10.64, 7.14, 10.185, 9.87}, x.shape());
  const Tensor ltx = Tensor::from<double>({8.465, 9.94, 7.52, 8.73, 11.34, 9.9}, x.shape());
  for (const auto& apply : {apply_mask, apply_mask_factored}) {
    CHECK(largest_difference(apply(x, d.decays(), Paths::v2h), lx) < 1e-15);
    CHECK(largest_difference(apply(x, d.decays(), Paths::h2v), ltx) < 1e-15);
    CHECK(largest_difference(apply(x, d.decays(), Paths::both), lx + ltx) < 1e-15);
  }
}

TEST_CASE("polyline mask: sums equal the walked definition, H2V is the transpose",
          "[polyline][mask]") {
  for (const Grid g : grids) {
    INFO(g.height << "x" << g.width);
    const Decays d(g);
    const Tensor v2h = polyline_log_mask_by_definition(d.decays(), Paths::v2h);
    const Tensor h2v = polyline_log_mask_by_definition(d.decays(), Paths::h2v);
    CHECK(largest_difference(transpose(v2h, 2, 3), h2v) < 1e-13);
    CHECK(largest_difference(polyline_log_mask(d.decays(), Paths::v2h), v2h) < 1e-13);
    CHECK(largest_difference(polyline_log_mask(d.decays(), Paths::h2v), h2v) < 1e-13);
    CHECK(largest_difference(polyline_mask(d.decays()), exp(v2h) + exp(h2v)) < 1e-13);
  }
}

TEST_CASE("polyline mask: its properties", "[polyline][mask]") {
  const Decays d({3, 4});
  const Tensor l = polyline_mask(d.decays(), Paths::v2h),
               l2d = polyline_mask(d.decays(), Paths::both);
  for (const double x : l.to_vector<double>()) {
    CHECK(x > 0);
    CHECK(x <= 1);
  }
  for (i64 u = 0; u < 12; ++u) {
    CHECK(l.data<double>()[u * 12 + u] == 1);
    CHECK(l2d.data<double>()[u * 12 + u] == 2);
  }
  CHECK(largest_difference(l2d, transpose(l2d, 2, 3)) == 0);
  CHECK(largest_difference(l, transpose(l, 2, 3)) > 0.1);  // L itself is not symmetric
  CHECK(polyline_mask(d.decays(), Paths::none).to_vector<double>() ==
        std::vector<double>(2 * 3 * 144, 1.0));
}

TEST_CASE("theorem 1: L = L_H L_V, and log L = log A + log B", "[polyline][mask]") {
  for (const Grid g : grids) {
    INFO(g.height << "x" << g.width);
    const Decays d(g);
    const Tensor l = exp(polyline_log_mask_by_definition(d.decays(), Paths::v2h));
    const LineMasks m = line_log_masks(d.decays());
    const Tensor lh = row_factor(exp(m.rows)), lv = column_factor(exp(m.columns));
    CHECK(largest_difference(lh, transpose(lh, 2, 3)) == 0);
    CHECK(largest_difference(lv, transpose(lv, 2, 3)) == 0);
    CHECK(largest_difference(matmul(lh, lv), l) < 1e-14);                   // (a)
    CHECK(largest_difference(matmul(lv, lh), transpose(l, 2, 3)) < 1e-14);  // L^T = L_V L_H
    // (b): entry by entry, A_i[j,l] B_l[i,k]
    const i64 h = g.height, w = g.width, n = h * w;
    const std::vector<double> a = exp(m.rows).to_vector<double>(),
                              b = exp(m.columns).to_vector<double>(), full = l.to_vector<double>();
    double worst = 0;
    for (i64 head = 0; head < 6; ++head)
      for (i64 u = 0; u < n; ++u)
        for (i64 v = 0; v < n; ++v) {
          const i64 i = u / w, j = u % w, k = v / w, c = v % w;
          const double product = a[static_cast<std::size_t>(((head * h + i) * w + j) * w + c)] *
                                 b[static_cast<std::size_t>(((head * w + c) * h + i) * h + k)];
          worst = std::max(
              worst, std::fabs(product - full[static_cast<std::size_t>((head * n + u) * n + v)]));
        }
    CHECK(worst < 1e-14);
  }
}

TEST_CASE("theorem 2: scans and factors apply the dense mask", "[polyline][mask]") {
  for (const Grid g : grids)
    for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
      INFO(g.height << "x" << g.width << " " << to_string(p));
      const Decays d(g);
      const Tensor x = random({2, g.height, g.width, 6}, 5);
      const Tensor want = mask_times(polyline_mask(d.decays(), p), x, 3);
      CHECK(largest_difference(apply_mask(x, d.decays(), p), want) < 1e-13);
      CHECK(largest_difference(apply_mask_factored(x, d.decays(), p), want) < 1e-13);
    }
}

TEST_CASE("theorem 2: the three ways have the same gradients", "[polyline][mask]") {
  for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
    const Decays d({3, 4});
    const std::vector<Tensor> in{random({2, 3, 4, 6}, 6), d.la, d.lb};
    const Function scans = [p](const auto& x) {
      return apply_mask(x[0], join_decays(x[1], x[2]), p);
    };
    const Function factors = [p](const auto& x) {
      return apply_mask_factored(x[0], join_decays(x[1], x[2]), p);
    };
    const Function dense = [p](const auto& x) {
      return mask_times(polyline_mask(join_decays(x[1], x[2]), p), x[0], 3);
    };
    check_equal(scans, dense, in, 1e-12);
    check_equal(factors, dense, in, 1e-12);
    const GradCheck g = grad_check(scans, in);
    INFO(g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("polyline mask: gradients, and none for edges that do not exist", "[polyline][mask]") {
  const Decays d({3, 4});
  for (const Paths p : {Paths::v2h, Paths::h2v}) {
    const Function f = [p](const auto& x) { return polyline_log_mask(join_decays(x[0], x[1]), p); };
    const GradCheck g = grad_check(f, {d.la, d.lb});
    INFO(g.report);
    CHECK(g.ok);
    const std::vector<Tensor> grads = gradients(f, {d.la, d.lb});
    CHECK(largest(narrow(grads[0], 3, 0, 1)) == 0);  // alpha[:,0]
    CHECK(largest(narrow(grads[1], 2, 0, 1)) == 0);  // beta[0,:]
  }
  const std::vector<Tensor> scans = gradients(
      [](const auto& x) { return apply_mask(x[0], join_decays(x[1], x[2]), Paths::both); },
      {random({2, 3, 4, 3}, 1), d.la, d.lb});
  CHECK(largest(narrow(scans[1], 3, 0, 1)) == 0);
  CHECK(largest(narrow(scans[2], 2, 0, 1)) == 0);
}

TEST_CASE("polyline mask: the gradient rule of algorithm 1.6 written out", "[polyline][mask]") {
  // d ln alpha[i,t] = sum of G over the entries whose row step straddles edge t, likewise beta: by
  // walking.
  const i64 h = 3, w = 4, n = h * w;
  Tensor la = random_log_decay({1, 1, h, w}, 21), lb = random_log_decay({1, 1, h, w}, 22);
  const Tensor g = random({1, 1, n, n}, 23);
  la.requires_grad(true), lb.requires_grad(true);
  polyline_log_mask(join_decays(la, lb)).backward(g);
  std::vector<double> da(static_cast<std::size_t>(n)), db(da);
  for (i64 u = 0; u < n; ++u)
    for (i64 v = 0; v < n; ++v) {
      const auto cells = polyline_path({v / w, v % w}, {u / w, u % w}, Paths::v2h);
      for (std::size_t s = 1; s < cells.size(); ++s) {
        const Cell a = cells[s - 1], b = cells[s];
        const auto at =
            static_cast<std::size_t>(std::max(a.row, b.row) * w + std::max(a.column, b.column));
        (a.row == b.row ? da : db)[at] += g.data<double>()[u * n + v];
      }
    }
  CHECK(largest_difference(la.grad(), Tensor::from<double>(da, la.shape())) < 1e-13);
  CHECK(largest_difference(lb.grad(), Tensor::from<double>(db, lb.shape())) < 1e-13);
}

TEST_CASE("polyline mask: one constant decay gives RMT's Manhattan mask", "[polyline][mask]") {
  const i64 h = 4, w = 5, n = h * w;
  const double log_gamma = std::log(0.9);
  const Tensor d = Tensor::full({1, 1, h, w}, log_gamma, DType::f64);
  const Tensor m = polyline_log_mask(join_decays(d, d));
  for (i64 u = 0; u < n; ++u)
    for (i64 v = 0; v < n; ++v)
      CHECK(
          m.data<double>()[u * n + v] ==
          Approx(log_gamma * static_cast<double>(std::abs(u / w - v / w) + std::abs(u % w - v % w)))
              .margin(1e-14));
}

TEST_CASE("polyline mask: decays near 0 and near 1", "[polyline][mask]") {
  for (const auto& [low, high] : {std::pair<double, double>{1e-30, 1e-20}, {1 - 1e-12, 1}}) {
    const Decays d({4, 5}, low, high);
    const Tensor want = exp(polyline_log_mask_by_definition(d.decays(), Paths::v2h));
    const Tensor x = random({2, 4, 5, 3}, 31);
    CHECK(largest_difference(polyline_mask(d.decays(), Paths::v2h), want) < 1e-13);
    CHECK(largest_difference(apply_mask(x, d.decays(), Paths::v2h), mask_times(want, x, 3)) <
          1e-13);
  }
  // No decay at all: every entry 1, and L x is the sum of x. Total decay: the identity.
  const Tensor one = Tensor::zeros({1, 1, 3, 4}, DType::f64),
               zero = Tensor::full({1, 1, 3, 4}, -1e6, DType::f64);
  const Tensor x = random({1, 3, 4, 2}, 32);
  CHECK(polyline_mask(join_decays(one, one), Paths::v2h).to_vector<double>() ==
        std::vector<double>(144, 1.0));
  CHECK(largest_difference(apply_mask(x, join_decays(one, one), Paths::v2h),
                           broadcast_to(sum(x, {1, 2}, true), x.shape())) < 1e-14);
  CHECK(largest_difference(polyline_mask(join_decays(zero, zero), Paths::v2h),
                           reshape(identity(12), {1, 1, 12, 12})) == 0);
  CHECK(largest_difference(apply_mask(x, join_decays(zero, zero), Paths::both), scale(x, 2)) == 0);
}

TEST_CASE("polyline mask: f32 keeps what its running sums allow", "[polyline][mask]") {
  const Decays d({14, 14}, 0.3);
  const Tensor la = cast(d.la, DType::f32), lb = cast(d.lb, DType::f32);
  // Compared with f64 on the same (rounded) decays. |c| < 17, so a difference of two is wrong by
  // about 14 roundings of 17 2^-24.
  const Tensor want = polyline_mask(cast(join_decays(la, lb), DType::f64), Paths::both);
  CHECK(largest_difference(cast(polyline_mask(join_decays(la, lb), Paths::both), DType::f64),
                           want) < 1e-5);
  const Tensor x = random({2, 14, 14, 3}, 41);
  const Tensor y = apply_mask(cast(x, DType::f32), join_decays(la, lb), Paths::both);
  CHECK(largest_difference(cast(y, DType::f64),
                           mask_times(want, cast(cast(x, DType::f32), DType::f64), 3)) < 2e-6);
}

TEST_CASE("one-way scan: the recurrence equals the causal part of H2V", "[polyline][mask]") {
  const i64 h = 3, w = 5, n = h * w;
  const Tensor d = random_log_decay({2, 3, h, w}, 51), x = random({2, h, w, 6}, 52);
  Tensor m = polyline_mask(join_decays(d, d), Paths::h2v).clone();
  for (i64 head = 0; head < 6; ++head)
    for (i64 u = 0; u < n; ++u)
      for (i64 v = 0; v < n; ++v)
        if (v / w > u / w || v % w > u % w) m.data<double>()[(head * n + u) * n + v] = 0;
  CHECK(largest_difference(one_way_scan(x, d), mask_times(m, x, 3)) < 1e-13);
  const GradCheck g = grad_check([](const auto& in) { return one_way_scan(in[0], in[1]); }, {x, d});
  INFO(g.report);
  CHECK(g.ok);
}

TEST_CASE("volume mask: walked, summed, multiplied and scanned", "[polyline][mask]") {
  const i64 h = 2, w = 3, d = 4, n = h * w * d;
  const Shape volume{2, 2, h, w, d};
  const VolumeLogDecay decay{random_log_decay(volume, 61), random_log_decay(volume, 62),
                             random_log_decay(volume, 63)};
  const Tensor walked = volume_log_mask_by_definition(decay);
  CHECK(largest_difference(volume_log_mask(decay), walked) < 1e-13);

  // L3D = L_H L_V L_D: with the other decays 0 (1 on the diagonal only) the mask is one factor.
  const Tensor none = Tensor::full(volume, -1e6, DType::f64);
  const Tensor lh = exp(volume_log_mask({decay.log_alpha, none, none})),
               lv = exp(volume_log_mask({none, decay.log_beta, none})),
               ld = exp(volume_log_mask({none, none, decay.log_gamma}));
  CHECK(largest_difference(matmul(lh, matmul(lv, ld)), exp(walked)) < 1e-13);

  const Tensor x = random({2, h, w, d, 4}, 64);
  const Tensor tokens = permute(reshape(x, {2, n, 2, 2}), {0, 2, 1, 3});
  const Tensor want = reshape(permute(matmul(exp(walked), tokens), {0, 2, 1, 3}), x.shape());
  CHECK(largest_difference(apply_volume_mask(x, decay), want) < 1e-13);
  for (const bool scanned : {false, true}) {
    const GradCheck g = grad_check(
        [scanned](const auto& in) {
          const VolumeLogDecay v{in[1], in[2], in[3]};
          return scanned ? apply_volume_mask(in[0], v)
                         : mul(volume_log_mask(v), reshape(sum(square(in[0])), {1, 1, 1, 1}));
        },
        {x, decay.log_alpha, decay.log_beta, decay.log_gamma});
    INFO(g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("masks: misuse is explained", "[polyline][mask]") {
  const auto z = [](const Shape& s) { return Tensor::zeros(s, DType::f64); };
  CHECK(says(
      [&] {
        polyline_log_mask(join_decays(z({1, 1, 2, 3}), z({1, 1, 3, 2})));
      },
      "must both be (B,G,H,W), got (1, 1, 2, 3) and (1, 1, 3, 2)"));
  CHECK(says(
      [&] {
        polyline_log_mask(join_decays(z({1, 1, 2, 3}), z({1, 1, 2, 3})), Paths::both);
      },
      "their sum is polyline_mask"));
  CHECK(says(
      [&] {
        apply_mask(z({1, 2, 2, 1}), join_decays(z({1, 1, 2, 3}), z({1, 1, 2, 3})), Paths::v2h);
      },
      "apply_mask: x must be (B,H,W,C) on the grid"));
  CHECK(says(
      [&] {
        apply_mask(z({1, 2, 3, 1}), join_decays(z({1, 1, 2, 3}), z({1, 1, 2, 3})), Paths::none);
      },
      "choose v2h, h2v or both"));
  CHECK(says(
      [&] {
        volume_log_mask({z({1, 1, 2, 3}), z({1, 1, 2, 3}), z({1, 1, 2, 3})});
      },
      "must all be (B,G,H,W,D)"));
}

}  // namespace mask_test
