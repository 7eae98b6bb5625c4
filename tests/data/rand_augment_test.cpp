// Every change of RandAugment against Pillow, bit for bit; and which changes are drawn how often.

#include "ppma/data/rand_augment.hpp"

#include "catch.hpp"
#include "ppma/io/safetensors.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace rand_augment_test {

namespace {

const char* const change_names[] = {"auto_contrast", "equalize",    "invert",       "rotate",
                                    "posterize",     "solarize",    "solarize_add", "color",
                                    "contrast",      "brightness",  "sharpness",    "shear_x",
                                    "shear_y",       "translate_x", "translate_y"};

}  // namespace

TEST_CASE("changes of colour and geometry are Pillow's") {
  const auto tensors =
      read_safetensors(std::string(PPMA_TEST_REFERENCE_DIR) + "/image_ops.safetensors").tensors;
  const Tensor* image = find(tensors, "image");
  REQUIRE(image != nullptr);
  const std::pair<const char*, double> magnitudes[] = {{"3.7", 3.7}, {"9.25", 9.25}, {"10", 10}};
  i64 compared = 0;
  for (const auto& [text, m] : magnitudes)
    for (const bool negative : {false, true})
      for (i64 k = 0; k < change_count; ++k) {
        const std::string name = str(change_names[k], ".", text, negative ? ".-" : ".+");
        const Tensor* expected = find(tensors, name);
        REQUIRE(expected != nullptr);
        const Tensor got =
            apply_change(*image, static_cast<Change>(k), m, negative, {124, 116, 104});
        REQUIRE(got.shape() == expected->shape());
        i64 different = 0;
        for (i64 i = 0; i < got.numel(); ++i)
          different += got.data<u8>()[i] != expected->data<u8>()[i];
        INFO(name);
        CHECK(different == 0);
        ++compared;
      }
  CHECK(compared == 90);
}

TEST_CASE("changes of images with one level, and errors") {
  const Tensor flat = Tensor::full({5, 4, 3}, 77, DType::uint8);
  for (const Change c : {Change::auto_contrast, Change::equalize, Change::contrast,
                         Change::sharpness, Change::color})
    CHECK(apply_change(flat, c, 9, false, {}).to_vector<u8>() == flat.to_vector<u8>());
  CHECK(rotate(flat, 0, {}).to_vector<u8>() == flat.to_vector<u8>());
  CHECK(translate_x(flat, 0, {}).to_vector<u8>() == flat.to_vector<u8>());
  CHECK(solarize(flat, 256).to_vector<u8>() == flat.to_vector<u8>());
  CHECK(posterize(flat, 0).to_vector<u8>() == std::vector<u8>(60, 0));
  CHECK(says([&] { posterize(flat, 9); }, "posterize: 9 bits of 8"));
  CHECK(says(
      [] {
        invert(Tensor::zeros({2, 2, 4}, DType::uint8));
      },
      "invert: needs a uint8 image (H,W,3), got (2, 2, 4)"));
}

TEST_CASE("RandAugment draws two changes, each with probability a half") {
  // A grey image with a white and a black line: most changes are seen in it, and those that are not
  // are counted.
  Tensor image = Tensor::full({16, 16, 3}, 100, DType::uint8);
  for (i64 i = 0; i < 16; ++i)
    for (i64 c = 0; c < 3; ++c)
      image.data<u8>()[(i * 16 + 2) * 3 + c] = 255, image.data<u8>()[(i * 16 + 9) * 3 + c] = 0;
  i64 idle = 0;
  for (i64 k = 0; k < change_count; ++k)
    idle += apply_change(image, static_cast<Change>(k), 9, false, {}).to_vector<u8>() ==
            image.to_vector<u8>();
  int kept = 0;
  constexpr int draws = 4000;
  for (u64 n = 0; n < draws; ++n) {
    Rng rng(1, 0, n), again(1, 0, n);
    const Tensor a = rand_augment(image, rng);
    REQUIRE(a.to_vector<u8>() == rand_augment(image, again).to_vector<u8>());
    kept += a.to_vector<u8>() == image.to_vector<u8>();
  }
  // a change leaves the image as it is
  const double one = 0.5 + 0.5 * static_cast<double>(idle) / 15;
  // two inversions also do
  CHECK(kept / static_cast<double>(draws) == Approx(one * one).margin(0.045));
  Rng rng(2);
  CHECK(rand_augment(image, rng, {.changes = 0}).to_vector<u8>() == image.to_vector<u8>());
  CHECK(published_transform(48)(image, rng).shape() == Shape({48, 48, 3}));
}

}  // namespace rand_augment_test
