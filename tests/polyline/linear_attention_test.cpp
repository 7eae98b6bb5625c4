// PPMLA: its three forms are one, and the scan's cost grows with N alone.

#include "polyline/help.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/types.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace polyline_test;

namespace linear_attention_test {

namespace {

struct Case {
  i64 batch, heads, height, width, d;
};
const Case cases[] = {{2, 2, 3, 4, 3}, {1, 2, 1, 7, 4}, {1, 1, 6, 1, 5},
                      {1, 1, 1, 1, 2}, {1, 2, 9, 5, 8}, {1, 1, 5, 17, 19}};

std::vector<Tensor> inputs(const Case& c, double low = 0.2) {
  const Shape tokens{c.batch, c.height, c.width, c.heads * c.d},
      grid{c.batch, c.heads, c.height, c.width};
  return {random(tokens, 1), random(tokens, 2), random(tokens, 3), random_log_decay(grid, 4, low),
          random_log_decay(grid, 5, low)};
}
Function form(i64 heads, Paths p, LinearForm f, i64 rows = 4) {
  return [=](const auto& x) {
    return linear_attention(x[0], x[1], x[2], heads, join_decays(x[3], x[4]), p, f, rows);
  };
}

}  // namespace

TEST_CASE("linear attention: quadratic = scan = chunked", "[polyline][linear]") {
  for (const Case& c : cases)
    for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
      INFO(c.height << "x" << c.width << " d " << c.d << " " << to_string(p));
      const auto in = inputs(c);
      const Function quadratic = form(c.heads, p, LinearForm::quadratic),
                     scan = form(c.heads, p, LinearForm::scan);
      const Tensor want = quadratic(in);
      CHECK(largest_difference(scan(in), want) < 1e-13);
      for (const i64 rows : {1, 2, 4, 100})
        CHECK(largest_difference(form(c.heads, p, LinearForm::chunked, rows)(in), want) < 1e-13);
      CHECK(largest_difference(cast(scan(to_f32(in)), DType::f64), want) < 5e-6);
    }
}

TEST_CASE("linear attention: the forms have the same gradients", "[polyline][linear]") {
  for (const Case& c : {cases[0], cases[4]})
    for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
      INFO(c.height << "x" << c.width << " " << to_string(p));
      const Function quadratic = form(c.heads, p, LinearForm::quadratic);
      check_equal(form(c.heads, p, LinearForm::scan), quadratic, inputs(c), 1e-12);
      for (const i64 rows : {1, 2, 4})
        check_equal(form(c.heads, p, LinearForm::chunked, rows), quadratic, inputs(c), 1e-12);
      check_equal(form(c.heads, p, LinearForm::scan), quadratic, to_f32(inputs(c)), 5e-5);
    }
  const GradCheck g = grad_check(form(2, Paths::both, LinearForm::scan), inputs({1, 2, 3, 3, 2}));
  INFO(g.report);
  CHECK(g.ok);
}

TEST_CASE("linear attention: edges that do not exist have no gradient; extreme decays",
          "[polyline][linear]") {
  const auto in = inputs({1, 2, 4, 5, 3});
  for (const Paths p : {Paths::v2h, Paths::h2v, Paths::both}) {
    const auto g = gradients(form(2, p, LinearForm::scan), in);
    CHECK(largest(narrow(g[3], 3, 0, 1)) == 0);
    CHECK(largest(narrow(g[4], 2, 0, 1)) == 0);
  }
  // Log decays so strong that the decay is 0: each token sees itself, twice in L2D.
  std::vector<Tensor> alone = in;
  alone[3] = alone[4] = Tensor::full(in[3].shape(), -1e4, DType::f64);
  const Tensor self = reshape(sum(reshape(in[0] * in[1], {4, 5, 2, 3}), {3}, true), {4, 5, 2, 1}) *
                      reshape(in[2], {4, 5, 2, 3});
  CHECK(largest_difference(form(2, Paths::both, LinearForm::scan)(alone),
                           reshape(scale(self, 2), in[0].shape())) < 1e-14);
  // No decay: plain linear attention q (sum of k v^T).
  alone[3] = alone[4] = Tensor::zeros(in[3].shape(), DType::f64);
  const Tensor kv =
      matmul(detail::head_tokens(in[1], 2), detail::head_tokens(in[2], 2), true, false);
  const Tensor plain = detail::tokens_to_grid(matmul(detail::head_tokens(in[0], 2), kv), in[0]);
  for (const LinearForm f : {LinearForm::scan, LinearForm::chunked})
    CHECK(largest_difference(form(2, Paths::v2h, f)(alone), plain) < 1e-13);
}

TEST_CASE("linear attention: memory grows with N, not N^2 or N d^2", "[polyline][linear]") {
  if (brief()) PPMA_SKIP("a sanitizer changes no figure of memory");
  // Peak bytes above the inputs in a forward and a backward pass.
  const auto peak = [](i64 height, LinearForm f) {
    std::vector<Tensor> in = to_f32(inputs({1, 1, height, 16, 16}));
    for (Tensor& t : in) t.requires_grad(true);
    trim_memory();
    reset_peak_memory();
    const i64 before = memory_stats().live_bytes;
    const Tensor y = form(1, Paths::both, f)(in);
    y.backward(Tensor::ones(y.shape()));
    return static_cast<double>(memory_stats().peak_bytes - before);
  };
  const double token = 16 * 4;  // bytes of one token's vector
  const double scan_small = peak(32, LinearForm::scan), scan_large = peak(128, LinearForm::scan);
  CHECK(scan_large < 4.05 * scan_small);
  // y, dy, three gradients and the copies of one head: about eleven times q. States of all tokens
  // would be 16 times q alone (N d^2 numbers), one N x N array 128 times.
  CHECK(scan_large < 12 * 128 * 16 * token);
  const double chunk_small = peak(64, LinearForm::chunked),
               chunk_large = peak(256, LinearForm::chunked);
  CHECK(chunk_large < 4.05 * chunk_small);
  const double quadratic_small = peak(16, LinearForm::quadratic),
               quadratic_large = peak(64, LinearForm::quadratic);
  // what the measure shows where it does grow with N^2
  CHECK(quadratic_large > 8 * quadratic_small);
}

TEST_CASE("linear attention: the same on any number of threads", "[polyline][linear]") {
  const auto in = to_f32(inputs({2, 3, 6, 7, 8}));
  const int before = threads();
  set_threads(1);
  const auto one = gradients(form(3, Paths::both, LinearForm::scan), in);
  set_threads(4);
  const auto four = gradients(form(3, Paths::both, LinearForm::scan), in);
  set_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i)
    CHECK(one[i].to_vector<float>() == four[i].to_vector<float>());
}

TEST_CASE("linear attention: misuse is explained", "[polyline][linear]") {
  const auto in = inputs(cases[0]);
  CHECK(says([&] { form(2, Paths::none, LinearForm::scan)(in); },
             "without a mask use log decays of 0"));
  CHECK(says([&] { form(5, Paths::both, LinearForm::scan)(in); },
             "6 channels do not divide into 5 heads"));
  CHECK(says([&] { form(2, Paths::both, LinearForm::chunked, 0)(in); },
             "block_rows must be at least 1"));
}

}  // namespace linear_attention_test
