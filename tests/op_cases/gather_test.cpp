#include "ppma/ops/gather.hpp"

#include <algorithm>
#include <functional>

#include "op_cases/op_case.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/ops/layout.hpp"

using namespace op_cases;

namespace {

// The rows of x (2,3,2) that `chosen` names, of two images.
std::function<Tensor(In)> rows_of_three(const std::vector<i64>& chosen) {
  return [chosen](In x) {
    const i64 each = static_cast<i64>(chosen.size()) / 2;
    return gather_rows(x[0], Tensor::from<i64>(chosen, {2, each}).to(x[0].device()));
  };
}
Plain plain_rows(const std::vector<i64>& chosen) {
  const i64 each = static_cast<i64>(chosen.size()) / 2;
  return {{{{2, 3, 2}}}, {2, each, 2}, [chosen, each](const Lists& x) {
            std::vector<double> y;
            for (i64 j = 0; j < 2 * each; ++j)
              for (i64 c = 0; c < 2; ++c)
                y.push_back(x[0][static_cast<std::size_t>(
                    (j / each * 3 + chosen[static_cast<std::size_t>(j)]) * 2 + c)]);
            return y;
          }};
}

}  // namespace

TEST_CASE("op table: gather") {
  check_table({
      {"gather_rows",
       rows_of_three({2, 0, 2, 2, 1, 1, 0, 1}),
       "gather_rows: index 3 of 3 rows",
       [] {
         gather_rows(zeros({1, 3, 2}), Tensor::from<i64>({3}, {1, 1}));
       },
       {},
       plain_rows({2, 0, 2, 2, 1, 1, 0, 1})},
      {"gather_rows/one",
       rows_of_three({1, 2}),
       "gather_rows: x must be (B,R,...) and index (B,K), got (2, 3, 2) and (3, 2)",
       [] {
         gather_rows(zeros({2, 3, 2}), int64s({3, 2}));
       },
       {},
       plain_rows({1, 2})},
      // the two largest of each row, by what they are
      {"top_k",
       [](In x) {
         return reshape(gather_rows(reshape(x[0], {3, 5, 1}), top_k(x[0], 2)), {3, 2});
       },
       "top_k: 6 of rows of 5 numbers; take 1 to 5",
       [] {
         top_k(zeros({3, 5}), 6);
       },
       {},
       Plain{{{{3, 5}}},
             {3, 2},
             [](const Lists& x) {
               std::vector<double> y;
               for (std::size_t row = 0; row < 3; ++row) {
                 std::vector<double> of(x[0].begin() + static_cast<std::ptrdiff_t>(row * 5),
                                        x[0].begin() + static_cast<std::ptrdiff_t>(row * 5 + 5));
                 std::sort(of.begin(), of.end(), std::greater<>());
                 y.insert(y.end(), of.begin(), of.begin() + 2);
               }
               return y;
             }}},
  });
}

TEST_CASE("top_k: of equal numbers the first, NaN last, infinities in their place", "[ops]") {
  const double inf = -negative_infinity<double>(), nan = inf - inf;
  const std::vector<double> numbers{1, 3, nan, 3, -inf, 3, inf, 1};
  const std::vector<i64> order{6, 1, 3, 5, 0, 7, 2, 4};
  for (const Device device : {Device::cpu, Device::cuda}) {
    if (device == Device::cuda && !cuda::available()) continue;
    for (i64 k = 1; k <= 8; ++k) {
      const Tensor x = Tensor::from<double>(numbers, {8}).to(device);
      CHECK(top_k(x, k).to(Device::cpu).to_vector<i64>() ==
            std::vector<i64>(order.begin(), order.begin() + k));
    }
  }
}
