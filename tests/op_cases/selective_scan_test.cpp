#include "ppma/ops/selective_scan.hpp"

#include <cmath>

#include "distance.hpp"
#include "op_cases/op_case.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

using namespace op_cases;

namespace {

// u, dt (1,H,W,E), a (E,S), b, c (1,H,W,S) -> y (1,H,W,E)
std::function<std::vector<double>(const Lists&)> plain_scan(int height, int width, int channels,
                                                            int states) {
  return [=](const Lists& x) {
    const auto at = [](int i) { return static_cast<std::size_t>(i); };
    std::vector<double> g(at(height * width * channels * states)), h = g,
                                                                   y(at(height * width * channels));
    for (int t = 0; t < height * width; ++t)
      for (int e = 0; e < channels; ++e)
        for (int s = 0; s < states; ++s) {
          const auto of = [&](int token) { return at((token * channels + e) * states + s); };
          const double dt = x[1][at(t * channels + e)],
                       decay = std::exp(dt * x[2][at(e * states + s)]);
          g[of(t)] = dt * x[3][at(t * states + s)] * x[0][at(t * channels + e)];
          if (t % width > 0) g[of(t)] += decay * g[of(t - 1)];
          h[of(t)] = g[of(t)];
          if (t >= width) h[of(t)] += decay * h[of(t - width)];
          y[at(t * channels + e)] += x[4][at(t * states + s)] * h[of(t)];
        }
    return y;
  };
}

// The same of one sequence: column by column, from the last token to the first.
std::function<std::vector<double>(const Lists&)> in_other_order(int height, int width, int channels,
                                                                int states) {
  return [=](const Lists& x) {
    const int n = height * width;
    const auto place = [=](int t) { return (n - 1 - t) % height * width + (n - 1 - t) / height; };
    const auto moved = [=](const std::vector<double>& v, bool back) {
      std::vector<double> y(v.size());
      const int each = static_cast<int>(v.size()) / n;
      for (int t = 0; t < n; ++t)
        for (int k = 0; k < each; ++k) {
          const auto here = static_cast<std::size_t>(t * each + k),
                     there = static_cast<std::size_t>(place(t) * each + k);
          y[back ? there : here] = v[back ? here : there];
        }
      return y;
    };
    return moved(plain_scan(1, n, channels, states)({moved(x[0], false), moved(x[1], false), x[2],
                                                     moved(x[3], false), moved(x[4], false)}),
                 true);
  };
}

}  // namespace

TEST_CASE("op table: selective scan") {
  const auto scan = [](In x) { return selective_scan(x[0], x[1], x[2], x[3], x[4]); };
  const auto composed = [](In x) { return selective_scan_composed(x[0], x[1], x[2], x[3], x[4]); };
  const auto inputs = [](i64 h, i64 w, i64 e, i64 s) {
    return std::vector<PlainInput>{
        {{1, h, w, e}}, {{1, h, w, e}, 0.1, 2}, {{e, s}, -2, -0.1}, {{1, h, w, s}}, {{1, h, w, s}}};
  };
  check_table({
      {"selective_scan",
       scan,
       "selective_scan: b and c must be (1, 2, 3, 5), got (1, 2, 3, 4)",
       [] {
         selective_scan(zeros({1, 2, 3, 4}), zeros({1, 2, 3, 4}), zeros({4, 5}),
                        zeros({1, 2, 3, 4}), zeros({1, 2, 3, 5}));
       },
       {2},
       Plain{inputs(3, 2, 3, 2), {1, 3, 2, 3}, plain_scan(3, 2, 3, 2)}},
      {"selective_scan/a sequence",
       scan,
       "selective_scan: u is int64; it must be f32 or f64",
       [] {
         const Tensor u = int64s({1, 1, 2, 2});
         selective_scan(u, u, int64s({2, 2}), u, u);
       },
       {2},
       Plain{inputs(1, 7, 2, 1), {1, 1, 7, 2}, plain_scan(1, 7, 2, 1)}},
      {"selective_scan/one column",
       scan,
       "selective_scan: a must be (2,S), got (3, 2)",
       [] {
         const Tensor u = zeros({1, 1, 2, 2});
         selective_scan(u, u, zeros({3, 2}), u, u);
       },
       {2},
       Plain{inputs(4, 1, 2, 3), {1, 4, 1, 2}, plain_scan(4, 1, 2, 3)}},
      {"selective_scan/its input besides",
       [](In x) { return selective_scan(x[0], x[1], x[2], x[3], x[4], TokenOrder::grid, x[5]); },
       "selective_scan: d must be (2), got (3)",
       [] {
         const Tensor u = zeros({1, 1, 2, 2});
         selective_scan(u, u, zeros({2, 2}), u, u, TokenOrder::grid, zeros({3}));
       },
       {2, 5},
       Plain{[&] {
               auto all = inputs(2, 3, 3, 2);
               all.push_back({{3}});
               return all;
             }(),
             {1, 2, 3, 3},
             [](const Lists& x) {
               std::vector<double> y = plain_scan(2, 3, 3, 2)({x[0], x[1], x[2], x[3], x[4]});
               for (std::size_t i = 0; i < y.size(); ++i) y[i] += x[5][i % 3] * x[0][i];
               return y;
             }}},
      {"selective_scan/softplus of the steps, added",
       [](In x) {
         return selective_scan(x[0], x[1], x[2], x[3], x[4], TokenOrder::rows, Tensor(), x[5],
                               StepSizes::softplus);
       },
       "selective_scan: add must be (1, 1, 2, 2), got (2, 2)",
       [] {
         const Tensor u = zeros({1, 1, 2, 2});
         selective_scan(u, u, zeros({2, 2}), u, u, TokenOrder::grid, Tensor(), zeros({2, 2}));
       },
       {2},
       Plain{[&] {
               auto all = inputs(1, 6, 3, 2);
               all[1] = {{1, 1, 6, 3}, -3, 3};
               all.push_back({{1, 1, 6, 3}});
               return all;
             }(),
             {1, 1, 6, 3},
             [](const Lists& x) {
               std::vector<double> steps = x[1];
               for (double& dt : steps) dt = std::log1p(std::exp(dt));
               std::vector<double> y = plain_scan(1, 6, 3, 2)({x[0], steps, x[2], x[3], x[4]});
               for (std::size_t i = 0; i < y.size(); ++i) y[i] += x[5][i];
               return y;
             }}},
      {"selective_scan/down the columns and back",
       [](In x) { return selective_scan(x[0], x[1], x[2], x[3], x[4], TokenOrder::columns_back); },
       "selective_scan: an argument is undefined",
       [] { selective_scan({}, {}, {}, {}, {}, TokenOrder::columns); },
       {2},
       // column by column from the last token: its neighbours are those of the grid on its side
       Plain{inputs(3, 2, 2, 2), {1, 3, 2, 2}, in_other_order(3, 2, 2, 2)}},
      {"selective_scan_composed",
       composed,
       "selective_scan: u and dt must be (B,H,W,E)",
       [] {
         const Tensor u = zeros({1, 1, 2, 2});
         selective_scan_composed(u, zeros({2, 2}), zeros({2, 2}), u, u);
       },
       {2},
       Plain{inputs(2, 3, 2, 2), {1, 2, 3, 2}, plain_scan(2, 3, 2, 2)}},
  });
}

TEST_CASE("selective scan: strips of channels give what is composed, and its gradients", "[ops]") {
  Rng rng(3);
  const TokenOrder orders[] = {TokenOrder::grid, TokenOrder::rows, TokenOrder::columns,
                               TokenOrder::rows_back, TokenOrder::columns_back};
  for (const i64 channels : {1, 8, 13, 37})
    for (const TokenOrder order : orders) {
      const Shape tokens{2, 5, 6, channels}, states{2, 5, 6, 3};
      std::vector<Tensor> x{Tensor::randn(tokens, rng, 1, DType::f64),
                            Tensor::rand(tokens, rng, 0, 1, DType::f64),
                            Tensor::rand({channels, 3}, rng, -2, 0, DType::f64),
                            Tensor::randn(states, rng, 1, DType::f64),
                            Tensor::randn(states, rng, 1, DType::f64),
                            Tensor::randn({channels}, rng, 1, DType::f64)};
      const Tensor up = Tensor::randn(tokens, rng, 1, DType::f64);
      std::vector<Tensor> gradients[2];
      Tensor y[2];
      for (int way = 0; way < 2; ++way) {
        std::vector<Tensor> in;
        for (const Tensor& t : x) in.push_back(t.clone().requires_grad(true));
        const auto scan = way == 0 ? selective_scan : selective_scan_composed;
        // two scans of one u: the second adds to the gradient of the first
        const Tensor first =
            scan(in[0], in[1], in[2], in[3], in[4], order, in[5], Tensor(), StepSizes::given);
        y[way] = scan(in[0], in[1], in[2], in[4], in[3], TokenOrder::rows, Tensor(), first,
                      StepSizes::softplus);
        y[way].backward(up);
        for (const Tensor& t : in) gradients[way].push_back(t.grad());
      }
      INFO(channels << " channels, order " << static_cast<int>(order));
      CHECK(distance(y[0], y[1]) < 1e-13);
      for (std::size_t i = 0; i < x.size(); ++i) {
        INFO("input " << i);
        CHECK(distance(gradients[0][i], gradients[1][i]) < 1e-12);
      }
    }
}
