#include "ppma/nn/image_by_image.hpp"

#include "distance.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/ops/layout.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

PpmaConfig small() {
  PpmaConfig c = ppma_nano();
  c.depths = {1, 1, 1, 1};
  return c;
}

// The logits of the whole batch at once: who watches gets that.
Tensor at_once(const Ppma& model, const Tensor& images) {
  const NoGrad off;
  Context watched;
  watched.observe = [](const std::string&, const Tensor&) {};
  return model.forward(images, watched);
}

}  // namespace

TEST_CASE("image by image a network gives what it gives a batch", "[nn]") {
  if (brief()) return;  // how a batch is cut: the kernels see what every network gives them
  const int before = threads();
  Rng rng(1);
  const Ppma model(small(), 3);
  const DenseBackbone dense(small(), 3);
  const NoGrad off;
  // With one thread, as under a sanitizer, fewer are a whole part and a rest.
  const bool one = sanitized();
  const Tensor large = Tensor::randn({one ? 2 : 5, 3, 224, 224}, rng),
               small_ones = Tensor::randn({one ? 51 : 101, 3, 32, 32}, rng);
  const Tensor logits = at_once(model, large), of_small = at_once(model, small_ones);
  Context ctx, watched;
  watched.observe = [](const std::string&, const Tensor&) {};
  const std::vector<Tensor> whole = dense.forward(large, watched);
  // The ends of rows and images are computed by other instructions than their middle: rounding.
  for (const int t : {2, 3}) {
    set_threads(t);
    if (threads() == 1 && t > 2) break;  // without OpenMP once is enough
    // Large images alone, the last ones together; small ones 49 at a time, where all threads have
    // some.
    CHECK(goes_image_by_image(large, Context{}));
    CHECK(distance(model.forward(large), logits) < 1e-6);
    CHECK(goes_image_by_image(small_ones, Context{}) == (threads() < 3));
    CHECK(distance(model.forward(small_ones), of_small) < 1e-6);
    const std::vector<Tensor> maps = dense.forward(large, ctx);
    REQUIRE(maps.size() == 4);
    for (std::size_t s = 0; s < 4; ++s) {
      CHECK(maps[s].shape() == whole[s].shape());
      CHECK(distance(maps[s], whole[s]) < 1e-6);
    }
  }
  set_threads(before);
}

TEST_CASE("training, watching and recording see the whole batch", "[nn]") {
  const Tensor images = Tensor::zeros({8, 3, 224, 224});
  CHECK_FALSE(goes_image_by_image(images, Context{}));  // recorded
  const NoGrad off;
  CHECK(goes_image_by_image(images, Context{}));
  CHECK_FALSE(goes_image_by_image(images, Context{true, Rng(0)}));
  Context watched;
  watched.observe = [](const std::string&, const Tensor&) {};
  CHECK_FALSE(goes_image_by_image(images, watched));
  CHECK_FALSE(goes_image_by_image(Tensor::zeros({1, 3, 224, 224}), Context{}));
  CHECK_FALSE(goes_image_by_image(Tensor(), Context{}));
}

TEST_CASE("an error within an image reaches the caller", "[nn]") {
  const NoGrad off;
  const Tensor images = Tensor::zeros({6, 3, 224, 224});
  CHECK(says(
      [&] {
        image_by_image(images, [](const Tensor& part, Context&) -> std::vector<Tensor> {
          fail("a part of ", part.dim(0));
        });
      },
      "a part of 1"));
}
