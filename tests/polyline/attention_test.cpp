// Composed attentions: their algebra, their variants, and the fused forms against them.

#include "ppma/polyline/attention.hpp"

#include "polyline/help.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/cpu/softmax.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/vis/picture.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace attention_test {

namespace {

constexpr i64 heads = 2;

struct Problem {
  Tensor q, k, v, la, lb;
  Problem(i64 h, i64 w, i64 d = 3, double low = 0.2, i64 batch = 2)
      : q(random({batch, h, w, heads * d}, 1)),
        k(random({batch, h, w, heads * d}, 2, 0.7)),
        v(random({batch, h, w, heads * d}, 3)),
        la(random_log_decay({batch, heads, h, w}, 4, low)),
        lb(random_log_decay({batch, heads, h, w}, 5, low)) {}
  std::vector<Tensor> all() const { return {q, k, v, la, lb}; }
  Tensor decays() const { return join_decays(la, lb); }
  Tensor scores() const {
    return matmul(detail::head_tokens(q, heads), detail::head_tokens(k, heads), false, true);
  }
  Tensor ones() const { return Tensor::ones(q.shape(), DType::f64); }
};
const std::pair<i64, i64> grids[] = {{3, 4}, {1, 6}, {5, 1}, {4, 4}, {1, 1}};

Function whole(Paths p, Variant v = Variant::code) {
  return [=](const auto& x) {
    return whole_attention_composed(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), p, v);
  };
}
Function criss_cross(Order o, Variant v = Variant::code) {
  return [=](const auto& x) {
    return criss_cross_attention_composed(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), o, v);
  };
}

}  // namespace

TEST_CASE("whole attention: the fused form equals the composed one", "[polyline][attention]") {
  for (const auto& [h, w] : grids)
    for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
      if (h * w == 1) continue;  // one token: no gradient but v's
      INFO(h << "x" << w << " " << to_string(p));
      const auto all = Problem(h, w).all();
      const Function fused = [p](const auto& x) {
        return whole_attention(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), p);
      };
      if (h > 1 && w > 1) check_equal(fused, whole(p), all, 1e-12);
      CHECK(largest_difference(fused(all), whole(p)(all)) < 1e-13);
      CHECK(largest_difference(fused(to_f32(all)), whole(p)(to_f32(all))) < 1e-5);
    }
  const Problem x(3, 4);
  const auto unmasked = [&](auto&& f) {
    return [f](const auto& in) { return f(in[0], in[1], in[2], heads, Tensor(), Paths::none); };
  };
  check_equal(unmasked([](auto... a) { return whole_attention(a...); }),
              unmasked([](auto... a) { return whole_attention_composed(a...); }), {x.q, x.k, x.v},
              1e-12);
}

TEST_CASE("attention: log decays shared by both directions are those twice",
          "[polyline][attention]") {
  const Problem x(3, 4);
  const std::vector<Tensor> in{x.q, x.k, x.v, x.la};
  const auto shared = [](const std::vector<Tensor>& t) { return stack({t[3]}); };
  const auto twice = [](const std::vector<Tensor>& t) { return join_decays(t[3], t[3]); };
  const auto attend = [](int which, const std::vector<Tensor>& t, const Tensor& decays) {
    return which == 0   ? whole_attention(t[0], t[1], t[2], heads, decays)
           : which == 1 ? whole_attention_composed(t[0], t[1], t[2], heads, decays)
           : which == 2 ? criss_cross_attention(t[0], t[1], t[2], heads, decays)
           : which == 3 ? criss_cross_attention_composed(t[0], t[1], t[2], heads, decays)
           : which == 4 ? linear_attention(t[0], t[1], t[2], heads, decays)
           : which == 5 ? linear_attention(t[0], t[1], t[2], heads, decays, Paths::both,
                                           LinearForm::chunked, 2)
                        : t[0] * t[1] * apply_mask(t[2], decays, Paths::both);
  };
  for (int which = 0; which < 7; ++which) {
    INFO(which);
    check_equal([&](const auto& t) { return attend(which, t, shared(t)); },
                [&](const auto& t) { return attend(which, t, twice(t)); }, in, 1e-14);
  }
}

TEST_CASE("criss-cross attention: fused, composed and dense are one", "[polyline][attention]") {
  for (const auto& [h, w] : grids)
    for (const Order o : {Order::rows_first, Order::columns_first, Order::both}) {
      if (h * w == 1) continue;
      INFO(h << "x" << w << " " << to_string(o));
      const auto all = Problem(h, w).all();
      const Function fused = [o](const auto& x) {
        return criss_cross_attention(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), o);
      };
      const Function dense = [o](const auto& x) {
        return criss_cross_attention_dense(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), o);
      };
      CHECK(largest_difference(fused(all), dense(all)) < 1e-13);
      CHECK(largest_difference(criss_cross(o)(all), dense(all)) < 1e-13);
      CHECK(largest_difference(fused(to_f32(all)), criss_cross(o)(to_f32(all))) < 1e-5);
      if (h > 1 && w > 1) {
        check_equal(fused, criss_cross(o), all, 1e-12);
        check_equal(dense, criss_cross(o), all, 1e-12);
      }
    }
  const Problem x(3, 4);
  for (const Order o : {Order::rows_first, Order::columns_first, Order::both})
    check_equal(
        [o](const auto& in) {
          return criss_cross_attention(in[0], in[1], in[2], heads, Tensor(), o);
        },
        [o](const auto& in) {
          return criss_cross_attention_composed(in[0], in[1], in[2], heads, Tensor(), o);
        },
        {x.q, x.k, x.v}, 1e-12);
}

TEST_CASE("attention: gradients of every variant", "[polyline][attention]") {
  const auto all = Problem(2, 3, 2, 0.2, 1).all();
  for (const Variant v : {Variant::code, Variant::paper, Variant::joint})
    for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
      const GradCheck g = grad_check(whole(p, v), all);
      INFO(to_string(v) << " " << to_string(p) << "\n" << g.report);
      CHECK(g.ok);
    }
  for (const Variant v : {Variant::code, Variant::paper})
    for (const Order o : {Order::rows_first, Order::columns_first, Order::both}) {
      const GradCheck g = grad_check(criss_cross(o, v), all);
      INFO(to_string(v) << " " << to_string(o) << "\n" << g.report);
      CHECK(g.ok);
    }
}

TEST_CASE("attention: row sums", "[polyline][attention]") {
  const Problem x(3, 5);
  // Attending to ones gives the row sums.
  for (const Variant v : {Variant::code, Variant::joint}) {
    const Tensor y =
        whole_attention_composed(x.q, x.k, x.ones(), heads, x.decays(), Paths::both, v);
    CHECK(largest_difference(y, x.ones()) < 1e-14);
  }
  CHECK(largest_difference(whole_attention(x.q, x.k, x.ones(), heads, x.decays()), x.ones()) <
        1e-14);
  CHECK(largest_difference(criss_cross_attention(x.q, x.k, x.ones(), heads, x.decays()), x.ones()) <
        1e-14);
  CHECK(largest_difference(criss_cross_attention_composed(x.q, x.k, x.ones(), heads, x.decays()),
                           x.ones()) < 1e-14);
  const Tensor paper =
      whole_attention_composed(x.q, x.k, x.ones(), heads, x.decays(), Paths::both, Variant::paper);
  for (const double s : paper.to_vector<double>()) {
    CHECK(s > 0);
    CHECK(s < 2);
  }
}

TEST_CASE("whole attention: `code` is the renormalised product with L", "[polyline][attention]") {
  const Problem x(3, 4);
  const Tensor p = softmax(x.scores());
  const auto renormalised = [&](Paths path) {
    const Tensor masked = p * polyline_mask(x.decays(), path);
    return masked / sum(masked, {-1}, true);
  };
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::v2h, Variant::code),
                           renormalised(Paths::v2h)) < 1e-13);
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::h2v, Variant::code),
                           renormalised(Paths::h2v)) < 1e-13);
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::both, Variant::code),
                           scale(renormalised(Paths::v2h) + renormalised(Paths::h2v), 0.5)) <
        1e-13);
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::both, Variant::joint),
                           renormalised(Paths::both)) < 1e-13);
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::both, Variant::paper),
                           p * polyline_mask(x.decays())) < 1e-14);
  // The three are different attentions, not three spellings of one.
  const Tensor code = attention_map(x.scores(), x.decays(), Paths::both, Variant::code);
  CHECK(largest_difference(attention_map(x.scores(), x.decays(), Paths::both, Variant::joint),
                           code) > 1e-3);
  CHECK(largest_difference(
            scale(attention_map(x.scores(), x.decays(), Paths::both, Variant::paper), 0.5), code) >
        1e-1);
}

TEST_CASE("attention: without decay every mask disappears", "[polyline][attention]") {
  const Problem x(4, 3);
  const Tensor zero = Tensor::zeros(x.la.shape(), DType::f64);
  const Tensor plain = whole_attention_composed(x.q, x.k, x.v, heads, Tensor(), Paths::none);
  CHECK(largest_difference(
            plain, detail::tokens_to_grid(
                       matmul(softmax(x.scores()), detail::head_tokens(x.v, heads)), x.q)) < 1e-14);
  CHECK(largest_difference(whole_attention(x.q, x.k, x.v, heads, join_decays(zero, zero)), plain) <
        1e-13);
  for (const Variant v : {Variant::code, Variant::joint})
    CHECK(largest_difference(whole_attention_composed(x.q, x.k, x.v, heads, join_decays(zero, zero),
                                                      Paths::both, v),
                             plain) < 1e-13);
  CHECK(largest_difference(whole_attention_composed(x.q, x.k, x.v, heads, join_decays(zero, zero),
                                                    Paths::both, Variant::paper),
                           scale(plain, 2)) < 1e-13);
  CHECK(largest_difference(criss_cross_attention(x.q, x.k, x.v, heads, join_decays(zero, zero)),
                           criss_cross_attention_composed(x.q, x.k, x.v, heads, Tensor())) < 1e-13);
}

TEST_CASE("criss-cross attention: the paper's factorisations", "[polyline][attention]") {
  const Problem x(3, 4);
  const Tensor q = detail::split_heads(x.q, heads), k = detail::split_heads(x.k, heads);
  const Tensor sh = row_factor(softmax(matmul(q, k, false, true)));
  const Tensor sv =
      column_factor(softmax(matmul(transpose(q, 2, 3), transpose(k, 2, 3), false, true)));
  const Tensor l = polyline_mask(x.decays(), Paths::v2h),
               lt = polyline_mask(x.decays(), Paths::h2v);
  const Tensor v = detail::head_tokens(x.v, heads);
  const auto paper = [&](Order o) {
    return detail::head_tokens(
        criss_cross_attention_composed(x.q, x.k, x.v, heads, x.decays(), o, Variant::paper), heads);
  };
  // ((S_H S_V) * L) V = (S_H*L_H)(S_V*L_V) V and ((S_V S_H) * L^T) V = (S_V*L_V)(S_H*L_H) V ...
  CHECK(largest_difference(paper(Order::columns_first), matmul(matmul(sh, sv) * l, v)) < 1e-13);
  CHECK(largest_difference(paper(Order::rows_first), matmul(matmul(sv, sh) * lt, v)) < 1e-13);
  CHECK(largest_difference(paper(Order::both),
                           paper(Order::rows_first) + paper(Order::columns_first)) < 1e-13);
  // ... but ((S_H S_V) * L^T) V, which the paper prints, does not factor.
  CHECK(largest_difference(paper(Order::rows_first), matmul(matmul(sh, sv) * lt, v)) > 1e-2);
}

TEST_CASE("attention: images and heads do not see each other", "[polyline][attention]") {
  const Problem x(3, 4);
  const auto f = [](const std::vector<Tensor>& in, bool criss) {
    return criss ? criss_cross_attention_composed(in[0], in[1], in[2], heads,
                                                  join_decays(in[3], in[4]))
                 : whole_attention_composed(in[0], in[1], in[2], heads, join_decays(in[3], in[4]));
  };
  for (const bool criss : {false, true}) {
    const Tensor y = f(x.all(), criss);
    // The second image alone gives the second image's result.
    std::vector<Tensor> second;
    for (const Tensor& t : x.all()) second.push_back(narrow(t, 0, 1, 1));
    CHECK(largest_difference(f(second, criss), narrow(y, 0, 1, 1)) < 1e-14);
    // Changing everything of head 1 leaves head 0, the first three channels, as it was.
    std::vector<Tensor> changed;
    for (std::size_t i = 0; i < 5; ++i) {
      const int axis = i < 3 ? 3 : 1;
      const Tensor t = x.all()[i], first = narrow(t, axis, 0, t.dim(axis) / 2),
                   other = narrow(t, axis, t.dim(axis) / 2, t.dim(axis) / 2);
      changed.push_back(concat({first, scale(other, 0.5)}, axis));
    }
    CHECK(largest_difference(narrow(f(changed, criss), 3, 0, 3), narrow(y, 3, 0, 3)) == 0);
    CHECK(largest_difference(narrow(f(changed, criss), 3, 3, 3), narrow(y, 3, 3, 3)) > 0.1);
  }
}

TEST_CASE("attention: misuse is explained", "[polyline][attention]") {
  const Problem x(2, 3);
  CHECK(says([&] { whole_attention_composed(x.q, x.k, x.v, 4, x.decays()); },
             "6 channels do not divide into 4 heads"));
  CHECK(
      says([&] { whole_attention_composed(x.q, x.k, x.v, heads, Tensor()); }, "needs log_decays"));
  CHECK(says(
      [&] {
        criss_cross_attention_composed(x.q, x.k, x.v, heads, x.decays(), Order::both,
                                       Variant::joint);
      },
      "the variants are code and paper"));
}

}  // namespace attention_test
