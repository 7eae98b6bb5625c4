// BiFormer and VVT: sizes of all published ones, products as PyTorch counts them, one block against
// plain numbers, what they refuse.

#include <array>

#include "mixers/help.hpp"
#include "networks/help.hpp"
#include "ppma/networks/biformer.hpp"
#include "ppma/networks/vvt.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/grad_check.hpp"

using namespace networks_test;

namespace {

using mixers_test::Numbers;

constexpr std::size_t u(i64 n) { return static_cast<std::size_t>(n); }

// A module in f64 with weights by formula.
template <class M>
M filled(M m) {
  models_test::fill_by_formula(m);
  to(m, DType::f64);
  return m;
}

template <class M>
Numbers weights(M& m, const std::string& name) {
  Numbers found;
  for_each_field(m, [&](const std::string& field, Tensor& t, Kind) {
    if (field == name) found = t.to_vector<double>();
  });
  return found;
}

Tensor tokens(const Shape& shape) { return as(formula_image("tokens", shape), DType::f64); }

// Gradients of the tokens and of every parameter of m.forward(tokens), against differences.
template <class M, class F>
void check_gradients(M m, const Shape& shape, F forward) {
  std::vector<Tensor> values{tokens(shape)};
  for (const Field& f : named_parameters(m)) values.push_back(f.tensor.detach());
  const GradCheck g = grad_check(
      [&](const std::vector<Tensor>& in) {
        std::size_t n = 1;
        for_each_field(m, [&](const std::string&, Tensor& t, Kind) { t = in[n++]; });
        return forward(m, in[0]);
      },
      values, {.max_elements = 8});
  INFO(g.report);
  CHECK(g.ok);
}

}  // namespace

TEST_CASE("networks: BiFormer and VVT of all sizes, products as PyTorch counts them",
          "[networks]") {
  struct Published {
    const char* name;
    i64 parameters, macs;
  };
  const SkipInit skip;
  // The papers print 13.1 M and 2.2 G, 25.5 M and 4.5 G, 56.8 M and 9.8 G; 12.9, 25.5 and 47.9 M.
  for (const Published& p : {Published{"biformer_tiny", 13142760, 2215901568},
                             {"biformer_small", 25536232, 4463629568},
                             {"biformer_base", 56804968, 9758990208},
                             {"vvt_tiny", 12882440, 2984570880},
                             {"vvt_small", 25492264, 5586166784},
                             {"vvt_medium", 47907304, 9387674624}}) {
    INFO(p.name);
    Network n(*network_config_by_name(p.name));
    CHECK(parameter_count(n) == p.parameters);
    i64 macs = summary(n, 1, 224, 224).macs(), side = 56, stage = 0;
    // FlopCounterMode sees no product in the sums of k, which VVT's q meets
    if (n.config.network == "vvt")
      for (; stage < 4; ++stage, side /= 2)
        macs -= n.config.depths[u(stage)] * side * side * 2 * n.config.dims[u(stage)];
    CHECK(macs == p.macs);
  }
}

TEST_CASE("networks: BiFormer's attentions and VVT's, gradients against differences",
          "[networks]") {
  Rng rng(1);
  const auto plain = [](const auto& m, const Tensor& x) { return m.forward(x); };
  check_gradients(filled(BiFormerRouted(6, 2, 4, rng)), {1, 7, 9, 6}, plain);
  check_gradients(filled(BiFormerRouted(6, 2, 1, rng)), {2, 14, 7, 6}, plain);
  check_gradients(filled(BiFormerWhole(6, 2, rng)), {2, 3, 4, 6}, plain);
  check_gradients(filled(VvtAttention(8, 2, rng)), {2, 3, 4, 8}, plain);
}

TEST_CASE("networks: VVT's attention by all pairs, written down", "[networks]") {
  Rng rng(1);
  const i64 H = 3, W = 4, C = 8, n = H * W, half = C / 2, G = 2, d = half / G;
  VvtAttention m = filled(VvtAttention(C, G, rng));
  const Tensor x = tokens({1, H, W, C});
  const Numbers in = x.to_vector<double>();
  const auto layer = [&](const char* name, const Numbers& of) {
    return mixers_test::times(of, u(n), weights(m, std::string(name) + ".weight"),
                              weights(m, std::string(name) + ".bias"));
  };
  const Numbers q = layer("q_proj", in), k = layer("k_proj", in), v = layer("v_proj", in);
  Numbers y(u(n * half), 0);
  const double quarter = std::acos(0.0);
  for (i64 a = 0; a < n; ++a)
    for (i64 g = 0; g < G; ++g) {
      double all = 1e-4;
      for (i64 b = 0; b < n; ++b) {
        double dot = 0;
        for (i64 c = g * d; c < (g + 1) * d; ++c)
          dot += std::max(q[u(a * half + c)], 0.0) * std::max(k[u(b * half + c)], 0.0);
        dot *= std::cos(quarter * static_cast<double>(a / W - b / W) / H) +
               std::cos(quarter * static_cast<double>(a % W - b % W) / W);
        all += dot;
        for (i64 c = g * d; c < (g + 1) * d; ++c) y[u(a * half + c)] += dot * v[u(b * half + c)];
      }
      for (i64 c = g * d; c < (g + 1) * d; ++c) y[u(a * half + c)] /= all;
    }
  Numbers z = layer("out_proj", y), pooled(u(C), 0);
  for (i64 t = 0; t < n * C; ++t) pooled[u(t % C)] += in[u(t)] / static_cast<double>(n);
  Numbers said = mixers_test::times(pooled, 1, weights(m, "se_fc.0.weight"));
  for (double& s : said) s = std::max(s, 0.0);
  said = mixers_test::times(said, 1, weights(m, "se_fc.2.weight"));
  for (i64 t = 0; t < n * C; ++t) z[u(t)] *= 1 + mixers_test::logistic(said[u(t % C)]);
  // no number of this one is so small that it is held
  CHECK(mixers_test::distance_from(m.forward(x), z) < 1e-12);
}

TEST_CASE("networks: what VVT's attention holds is held", "[networks]") {
  Rng rng(1);
  VvtAttention m = filled(VvtAttention(8, 2, rng));
  m.out_proj.weight = scale(m.out_proj.weight, 1e-9);
  m.out_proj.bias = Tensor::from<double>({2e-5, -2e-5, 0.5, 3e4, -3e4, -0.5, 0, 1e-6}, {8});
  m.excite.weight = scale(m.excite.weight, 0);  // a half of each is added
  const std::vector<double> y =
      narrow(m.forward(tokens({1, 1, 1, 8})), 3, 0, 8).to_vector<double>();
  const std::array<double, 6> want{1.5e-4, -1.5e-4, 0.75, 1e4, -1e4, -0.75};
  for (std::size_t c = 0; c < want.size(); ++c)
    CHECK(std::fabs(y[c] - want[c]) < 1e-6 * std::fabs(want[c]));
}

TEST_CASE("networks: zeros beside a grid that 7 does not divide are tokens in BiFormer",
          "[networks]") {
  Rng rng(1);
  BiFormerRouted m = filled(BiFormerRouted(6, 2, 49, rng));
  const Tensor x = tokens({2, 5, 9, 6}),
               right = concat({x, Tensor::zeros({2, 5, 5, 6}, DType::f64)}, 2),
               all = concat({right, Tensor::zeros({2, 2, 14, 6}, DType::f64)}, 1);
  const Tensor whole = m.forward(all);
  CHECK(whole.shape() == all.shape());
  CHECK(distance(m.forward(x), narrow(narrow(whole, 1, 0, 5), 2, 0, 9)) < 1e-14);
}

TEST_CASE("networks: what BiFormer and VVT refuse", "[networks]") {
  const auto made = [](const char* network, std::vector<i64> dims, std::vector<i64> heads) {
    return [=] {
      Network(
          NetworkConfig{.network = network, .depths = {1, 1, 1, 1}, .dims = dims, .heads = heads});
    };
  };
  CHECK(says(made("biformer", {8, 8, 8, 8}, {}), "biformer: `heads` must name those of the four"));
  CHECK(says(made("vvt", {8, 8, 8, 8}, {}), "vvt: `heads` must name those of the four"));
  CHECK(says(made("biformer", {8, 8, 10, 8}, {1, 2, 4, 8}),
             "biformer: the 10 channels of stage 2 do not divide into 4 heads"));
  CHECK(says(made("vvt", {8, 8, 8, 8}, {1, 2, 4, 8}),
             "vvt: half of the 8 channels of stage 3 does not divide into 8 heads"));
}
