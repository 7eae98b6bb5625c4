// Crops, flips, normalisation, erasing, mixup and CutMix: by hand where a hand can do it, by
// counting where they are random.

#include "ppma/data/augment.hpp"

#include "catch.hpp"
#include "ppma/data/mix.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace augment_test {

namespace {

// Pixel (i, j) is (i, j, 7).
Tensor numbered(i64 H, i64 W) {
  Tensor t = Tensor::empty({H, W, 3}, DType::uint8);
  for (i64 i = 0; i < H; ++i)
    for (i64 j = 0; j < W; ++j) {
      u8* p = t.data<u8>() + (i * W + j) * 3;
      p[0] = static_cast<u8>(i), p[1] = static_cast<u8>(j), p[2] = 7;
    }
  return t;
}
std::vector<int> pixel(const Tensor& t, i64 i, i64 j) {
  const u8* p = t.data<u8>() + (i * t.dim(1) + j) * 3;
  return {p[0], p[1], p[2]};
}

}  // namespace

TEST_CASE("crop takes what is there and fills the rest") {
  const Tensor image = numbered(5, 6);
  const Tensor inside = crop(image, {1, 2, 3, 4});
  REQUIRE(inside.shape() == Shape({3, 4, 3}));
  CHECK(pixel(inside, 0, 0) == std::vector<int>{1, 2, 7});
  CHECK(pixel(inside, 2, 3) == std::vector<int>{3, 5, 7});
  const Tensor around = crop(image, {-1, -2, 8, 10}, 99);
  CHECK(pixel(around, 0, 5) == std::vector<int>{99, 99, 99});
  CHECK(pixel(around, 1, 1) == std::vector<int>{99, 99, 99});
  CHECK(pixel(around, 1, 2) == std::vector<int>{0, 0, 7});
  CHECK(pixel(around, 5, 7) == std::vector<int>{4, 5, 7});
  CHECK(pixel(around, 6, 7) == std::vector<int>{99, 99, 99});
  CHECK(pixel(around, 5, 8) == std::vector<int>{99, 99, 99});
  CHECK(pixel(crop(image, {40, 40, 2, 2}), 1, 1) == std::vector<int>{0, 0, 0});
  CHECK(says([&] { crop(image, {0, 0, 0, 3}); }, "a box of 0 x 3 pixels"));
  CHECK(says(
      [&] {
        crop(Tensor::zeros({4, 4, 3}), {0, 0, 1, 1});
      },
      "needs a uint8 image (H,W,3), got (4, 4, 3) f32"));
}

TEST_CASE("flipping exchanges left and right") {
  const Tensor image = numbered(3, 5), flipped = flip_horizontal(image);
  for (i64 j = 0; j < 5; ++j)
    CHECK(pixel(flipped, 2, j) == std::vector<int>{2, static_cast<int>(4 - j), 7});
  Rng rng(3);
  int flips = 0;
  for (int n = 0; n < 2000; ++n) flips += pixel(random_flip(image, rng, 0.3), 0, 0)[1] == 4;
  CHECK(flips == Approx(600).margin(90));  // four standard deviations and a bit
}

TEST_CASE("random crops reach every place and no other") {
  const Tensor image = crop(numbered(4, 5), {0, 0, 4, 5});
  Rng rng(4);
  std::vector<int> count(7 * 7);
  for (int n = 0; n < 4900; ++n) {
    const Tensor part = random_crop(image, 4, 5, 3, rng);
    REQUIRE(part.shape() == Shape({4, 5, 3}));
    // Where the image's first pixel (or, if it is cut off, any other) lies tells the offset.
    for (i64 i = 0; i < 4; ++i)
      for (i64 j = 0; j < 5; ++j)
        if (const auto p = pixel(part, i, j); p[2] == 7) {
          ++count[static_cast<std::size_t>((p[0] - i + 3) * 7 + p[1] - j + 3)];
          i = 4;
          break;
        }
  }
  for (const int c : count) CHECK(c == Approx(100).margin(45));
  CHECK(says([&] { random_crop(image, 11, 5, 3, rng); },
             "11 x 5 pixels from (4, 5, 3) with 3 around it"));
}

TEST_CASE("the middle of an image, halves rounded to even") {
  CHECK(pixel(center_crop(numbered(10, 12), 4, 4), 0, 0) == std::vector<int>{3, 4, 7});
  // 0.5 to 0, 1.5 to 2
  CHECK(pixel(center_crop(numbered(5, 7), 4, 4), 0, 0) == std::vector<int>{0, 2, 7});
  CHECK(resize_shorter(numbered(50, 75), 20).shape() == Shape({20, 30, 3}));
  CHECK(resize_shorter(numbered(77, 50), 20).shape() == Shape({30, 20, 3}));  // int(30.8)
  Rng rng(0);
  CHECK(eval_transform(224)(numbered(100, 150), rng).shape() == Shape({224, 224, 3}));
  CHECK(eval_transform(32)(numbered(32, 32), rng).shape() == Shape({32, 32, 3}));
  CHECK(eval_transform(32)(numbered(64, 50), rng).shape() == Shape({32, 32, 3}));
  CHECK(train_transform(64)(numbered(100, 150), rng).shape() == Shape({64, 64, 3}));
  CHECK(train_transform(32)(numbered(32, 32), rng).shape() == Shape({32, 32, 3}));
  CHECK(train_transform(32)(numbered(20, 32), rng).shape() == Shape({32, 32, 3}));
}

TEST_CASE("boxes of random resized crops") {
  Rng rng(5);
  double area = 0, log_ratio = 0;
  for (int n = 0; n < 4000; ++n) {
    const PixelBox b = resized_crop_box(200, 300, rng);
    REQUIRE(b.top >= 0);
    REQUIRE(b.left >= 0);
    REQUIRE(b.top + b.height <= 200);
    REQUIRE(b.left + b.width <= 300);
    const double share = static_cast<double>(b.height * b.width) / 60000,
                 ratio = static_cast<double>(b.width) / static_cast<double>(b.height);
    REQUIRE(share > 0.078);
    REQUIRE(ratio > 0.73);
    REQUIRE(ratio < 1.36);
    area += share / 4000;
    log_ratio += std::log(ratio) / 4000;
  }
  // The means over 200,000 boxes drawn by the same rules in Python; the margins are four standard
  // errors of 4,000.
  CHECK(area == Approx(0.3902).margin(0.012));
  CHECK(log_ratio == Approx(0.0312).margin(0.0104));
  // No box of an image this narrow fits ten times in a row: the largest one in the middle.
  CHECK(resized_crop_box(900, 3, rng, {0.5, 1.0}) == PixelBox{448, 0, 4, 3});
  CHECK(resized_crop_box(3, 900, rng, {0.5, 1.0}) == PixelBox{0, 448, 3, 4});
  CHECK(resized_crop_box(8, 8, rng, {1.0, 1.0, 1.0, 1.0}) == PixelBox{0, 0, 8, 8});
}

TEST_CASE("normalisation is that of torchvision") {
  const Tensor x = normalize(numbered(2, 3));
  REQUIRE(x.shape() == Shape({1, 3, 2, 3}));
  const float* p = x.data<float>();
  CHECK(p[0] == Approx((0 / 255.0 - 0.485) / 0.229));
  CHECK(p[3] == Approx((1 / 255.0 - 0.485) / 0.229));
  CHECK(p[6 + 5] == Approx((2 / 255.0 - 0.456) / 0.224));
  CHECK(p[12] == Approx((7 / 255.0 - 0.406) / 0.225));
  CHECK(normalize(numbered(2, 3), {{0, 0, 0}, {1, 1, 1}}).data<float>()[12] == 7 / 255.0f);
}

TEST_CASE("random erasing fills one box with noise") {
  RandomErasing options;
  options.probability = 0.25;
  Rng rng(6);
  int erased = 0;
  double sum = 0, squares = 0, values = 0;
  for (int n = 0; n < 2000; ++n) {
    Tensor image = Tensor::full({3, 20, 30}, 100);
    random_erase(image.data<float>(), 3, 20, 30, rng, options);
    i64 t = 20, l = 30, b = -1, r = -1, changed = 0;
    for (i64 c = 0; c < 3; ++c)
      for (i64 i = 0; i < 20; ++i)
        for (i64 j = 0; j < 30; ++j)
          if (const float v = image.data<float>()[(c * 20 + i) * 30 + j]; v != 100) {
            ++changed;
            sum += v, squares += v * v;
            t = std::min(t, i), b = std::max(b, i), l = std::min(l, j), r = std::max(r, j);
          }
    if (changed == 0) continue;
    ++erased;
    values += static_cast<double>(changed);
    REQUIRE(changed == 3 * (b - t + 1) * (r - l + 1));
    REQUIRE(changed <= 3 * 210);  // a third and what rounding adds
  }
  CHECK(erased == Approx(500).margin(80));
  CHECK(std::abs(sum / values) < 0.02);
  CHECK(squares / values == Approx(1).margin(0.02));
  for (int n = 0; n < 200; ++n) {
    const PixelBox box = erasing_box(9, 9, rng);
    CHECK(box.height < 9);
    CHECK(box.width < 9);
  }
}

TEST_CASE("soft targets") {
  const Tensor t = soft_targets(Tensor::from<i64>({2, 0}, {2}), 4, 0.1);
  CHECK(t.to_vector<float>() ==
        std::vector<float>{0.025f, 0.025f, 0.925f, 0.025f, 0.925f, 0.025f, 0.025f, 0.025f});
  CHECK(says([] { soft_targets(Tensor::from<i64>({4}, {1}), 4, 0.1); }, "label 4 of 4 classes"));
}

TEST_CASE("mixup and CutMix by hand") {
  Tensor x = Tensor::from<float>({1, 2, 10, 20, 100, 200}, {3, 1, 1, 2});
  mixup(x, 0.75);
  CHECK(x.to_vector<float>() == std::vector<float>{25.75f, 51.5f, 10, 20, 75.25f, 150.5f});
  Tensor y = Tensor::from<float>({1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60}, {2, 1, 2, 3});
  cutmix(y, {0, 1, 1, 2});
  CHECK(y.to_vector<float>() == std::vector<float>{1, 20, 30, 4, 5, 6, 10, 2, 3, 40, 50, 60});
}

TEST_CASE("a mixed batch's targets sum to one and tell what was mixed") {
  MixOptions options{0.8, 1.0, 0.5, 0.1};
  int cuts = 0;
  double lambdas = 0;
  for (u64 n = 0; n < 400; ++n) {
    // Image b is b everywhere, its class is b.
    Tensor x = Tensor::empty({4, 3, 6, 8});
    for (i64 i = 0; i < x.numel(); ++i) x.data<float>()[i] = static_cast<float>(i / 144);
    const Tensor t = mix_batch(x, Tensor::from<i64>({0, 1, 2, 3}, {4}), 4, options, Rng(7, 0, n));
    double share = 0;  // of image 3 in image 0, by its mean: a pixel is 0 or 3, or a mixture
    bool whole = true;
    for (i64 i = 0; i < 144; ++i) {
      const float v = x.data<float>()[i];
      share += v / 3.0 / 144;
      whole = whole && (v == 0 || v == 3);
    }
    cuts += whole;
    lambdas += 1 - share;
    for (i64 b = 0; b < 4; ++b) {
      double sum = 0;
      for (i64 k = 0; k < 4; ++k) sum += t.data<float>()[b * 4 + k];
      REQUIRE(sum == Approx(1));
    }
    REQUIRE(t.data<float>()[3] == Approx(0.025 + 0.9 * share).epsilon(1e-4));
    REQUIRE(t.data<float>()[0] == Approx(0.025 + 0.9 * (1 - share)).epsilon(1e-4));
    REQUIRE(t.data<float>()[3 * 4] == Approx(t.data<float>()[3]));
  }
  CHECK(cuts == Approx(200).margin(45));
  CHECK(lambdas / 400 > 0.48);  // clipping the box at the border leaves more than lambda
  CHECK(lambdas / 400 < 0.68);
}

TEST_CASE("CutMix's box") {
  Rng rng(8);
  double share = 0;
  for (int n = 0; n < 4000; ++n) {
    const PixelBox b = cutmix_box(40, 60, 0.75, rng);  // at most half of each side
    REQUIRE(b.top >= 0);
    REQUIRE(b.left >= 0);
    REQUIRE(b.height >= 10);
    REQUIRE(b.height <= 20);
    REQUIRE(b.width >= 15);
    REQUIRE(b.width <= 30);
    REQUIRE(b.top + b.height <= 40);
    REQUIRE(b.left + b.width <= 60);
    share += static_cast<double>(b.height * b.width) / 2400 / 4000;
  }
  // A side of half the image keeps 7/8 of itself on average (it hangs over by a quarter at most, at
  // either end).
  CHECK(share == Approx(0.25 * 49 / 64).margin(0.01));
  CHECK(cutmix_box(40, 60, 1.0, rng).height == 0);
}

TEST_CASE("beta variates have their mean and variance") {
  Rng rng(9);
  for (const double a : {0.8, 1.0, 3.0}) {
    double sum = 0, squares = 0;
    constexpr int draws = 40000;
    for (int n = 0; n < draws; ++n) {
      const double x = draw_beta(a, a, rng);
      REQUIRE(x >= 0);
      REQUIRE(x <= 1);
      sum += x, squares += x * x;
    }
    const double mean = sum / draws, variance = squares / draws - mean * mean;
    CHECK(mean == Approx(0.5).margin(0.01));
    CHECK(variance == Approx(1 / (4 * (2 * a + 1))).epsilon(0.03));
  }
  double skewed = 0;
  for (int n = 0; n < 20000; ++n) skewed += draw_beta(2, 6, rng) / 20000;
  CHECK(skewed == Approx(0.25).margin(0.01));
}

}  // namespace augment_test
