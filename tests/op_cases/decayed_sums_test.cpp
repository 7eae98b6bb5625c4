#include "ppma/ops/decayed_sums.hpp"

#include <cmath>

#include "distance.hpp"
#include "op_cases/op_case.hpp"
#include "ppma/ops/layout.hpp"

using namespace op_cases;

namespace {

// Every pair on its own: q, k (1,N,heads or 1,d), v (1,N,heads,p), log decays (1,N,heads).
Plain plain_sums(i64 n, i64 heads, i64 of_keys, i64 d, i64 p) {
  return {{{{1, n, of_keys, d}, -1, 1},
           {{1, n, of_keys, d}, -1, 1},
           {{1, n, heads, p}},
           {{1, n, heads}, -1, 0}},
          {1, n, heads, p},
          [=](const Lists& x) {
            const auto at = [](i64 i) { return static_cast<std::size_t>(i); };
            std::vector<double> y(at(n * heads * p));
            for (i64 g = 0; g < heads; ++g)
              for (i64 t = 0; t < n; ++t)
                for (i64 s = 0; s <= t; ++s) {
                  const i64 q = (t * of_keys + g % of_keys) * d,
                            k = (s * of_keys + g % of_keys) * d;
                  double weight = 0, decays = 0;
                  for (i64 i = 0; i < d; ++i) weight += x[0][at(q + i)] * x[1][at(k + i)];
                  for (i64 u = s + 1; u <= t; ++u) decays += x[3][at(u * heads + g)];
                  for (i64 c = 0; c < p; ++c)
                    y[at((t * heads + g) * p + c)] +=
                        std::exp(decays) * weight * x[2][at((s * heads + g) * p + c)];
                }
            return y;
          }};
}

}  // namespace

TEST_CASE("op table: decayed sums") {
  const auto sums = [](In x) { return decayed_sums(x[0], x[1], x[2], x[3]); };
  const auto composed = [](i64 longest) {
    return [=](In x) { return decayed_sums_composed(x[0], x[1], x[2], x[3], longest); };
  };
  const Tensor a = zeros({1, 5, 2}), x = zeros({1, 5, 2, 3});
  check_table({
      {"decayed_sums",
       sums,
       "decayed_sums: q and k must both be (1, 5, 2 or 1, d) beside v (1, 5, 2, 3), got (1, 5, 2, "
       "3) and (1, 5, 1, 3)",
       [=] {
         decayed_sums(x, zeros({1, 5, 1, 3}), x, a);
       },
       {3},
       plain_sums(5, 2, 2, 3, 2)},
      {"decayed_sums/keys of all heads",
       sums,
       "decayed_sums: log_decay must be (1, 5, 2), got (1, 5, 2, 3)",
       [=] { decayed_sums(x, x, x, x); },
       {3},
       plain_sums(4, 3, 1, 8, 8)},
      {"decayed_sums/widths of the GPU's kernels",
       sums,
       "decayed_sums: v is int64; it must be f32 or f64",
       [] {
         const Tensor i = int64s({1, 5, 2, 3});
         decayed_sums(i, i, i, int64s({1, 5, 2}));
       },
       {3},
       plain_sums(5, 2, 2, 8, 16)},
      {"decayed_sums/two tokens",
       sums,
       "decayed_sums: an argument is undefined",
       [=] { decayed_sums(x, x, x, {}); },
       {3},
       plain_sums(2, 2, 1, 8, 8)},
      {"decayed_sums/three chunks",
       sums,
       "decayed_sums: v must be (B,N,G,p), got (1, 5, 2)",
       [=] { decayed_sums(x, x, a, a); },
       {3},
       plain_sums(67, 2, 1, 2, 1)},
      {"decayed_sums_composed",
       composed(64),
       "decayed_sums: k is f32 on cpu; beside v it must be f64 on cpu",
       [=] { decayed_sums_composed(x, cast(x, DType::f32), x, a); },
       {3},
       plain_sums(5, 2, 2, 3, 2)},
      {"decayed_sums_composed/chunks of two",
       composed(2),
       "decayed_sums: chunks of 0 tokens",
       [=] { decayed_sums_composed(x, x, x, a, 0); },
       {3},
       plain_sums(5, 2, 1, 3, 2)},
  });
}

TEST_CASE("decayed sums: chunks of any length are one", "[ops]") {
  Rng rng(3);
  for (const i64 of_keys : {1, 3}) {
    const Tensor q = Tensor::randn({2, 11, of_keys, 4}, rng, 1, DType::f64),
                 k = Tensor::randn({2, 11, of_keys, 4}, rng, 1, DType::f64),
                 v = Tensor::randn({2, 11, 3, 5}, rng, 1, DType::f64),
                 a = Tensor::rand({2, 11, 3}, rng, -2, 0, DType::f64),
                 whole = decayed_sums(q, k, v, a);
    for (const i64 longest : {1, 2, 3, 4, 6, 10, 11, 64}) {
      INFO(of_keys << " heads of keys, chunks of " << longest);
      CHECK(distance(decayed_sums_composed(q, k, v, a, longest), whole) < 1e-13);
    }
  }
  CHECK(detail::Chunks(196).count == 4);
  CHECK(detail::Chunks(196).length == 49);
  CHECK(detail::Chunks(65).length == 33);
  CHECK(detail::Chunks(64).count == 1);
}
