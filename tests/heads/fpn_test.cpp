#include "ppma/heads/fpn.hpp"

#include "catch.hpp"
#include "ppma/nn/state_dict.hpp"

using namespace ppma;

TEST_CASE("fpn: published size, names and shapes") {
  Rng rng(0);
  const SkipInit skip;
  Fpn tiny({64, 128, 256, 512}, 256, rng), base({80, 160, 320, 512}, 256, rng);
  CHECK(parameter_count(tiny) == 2607104);
  CHECK(parameter_count(base) == 2635776);
  CHECK(state_dict(tiny)[0].name == "lateral_convs.0.conv.weight");
  Fpn small({2, 3, 4, 5}, 6, rng);
  const std::vector<Tensor> p =
      small.forward({Tensor::ones({1, 13, 9, 2}), Tensor::ones({1, 7, 5, 3}),
                     Tensor::ones({1, 4, 3, 4}), Tensor::ones({1, 2, 2, 5})});
  REQUIRE(p.size() == 5);
  CHECK(p[0].shape() == Shape{1, 13, 9, 6});
  CHECK(p[4].shape() == Shape{1, 1, 1, 6});
}
