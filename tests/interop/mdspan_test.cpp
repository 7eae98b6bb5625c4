#include "ppma/mdspan.hpp"

#include <vector>

#include "thrown.hpp"

using namespace ppma;

TEST_CASE("tensors as mdspan, and back") {
#if PPMA_MDSPAN
  Tensor t = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const auto m = as_mdspan<float, 2>(t);
  CHECK((m.extent(0) == 2 && m.extent(1) == 3 && m[1, 0] == 4));
  m[1, 2] = 60;
  CHECK(t.to_vector<float>()[5] == 60);
  const Tensor& fixed = t;
  static_assert(std::is_same_v<decltype(as_mdspan<float, 2>(fixed)), Span<const float, 2>>);
  CHECK(says([&] { as_mdspan<float, 3>(t); }, "as_mdspan: 3 axes of a tensor of shape (2, 3)"));
  CHECK(says([&] { as_mdspan<double, 2>(t); }, "holds f32, not f64"));

  std::vector<double> values{1, 2, 3, 4, 5, 6};
  const Tensor w = wrap(std::mdspan(values.data(), 3, 2));
  CHECK((w.shape() == Shape{3, 2} && w.data<double>() == values.data() && w.writable()));
  CHECK_FALSE(wrap(std::mdspan(static_cast<const double*>(values.data()), 6)).writable());
#else
  PPMA_SKIP("this standard library has no <mdspan>");
#endif
}
