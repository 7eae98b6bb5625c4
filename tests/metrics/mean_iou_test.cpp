// Mean IoU by hand.

#include "ppma/metrics/mean_iou.hpp"

#include "catch.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("mean IoU by hand", "[metrics]") {
  const Tensor label = Tensor::from<u8>({0, 0, 0, 1,  //
                                         1, 1, 255, 255},
                                        {2, 4});
  const Tensor prediction = Tensor::from<i64>({0, 0, 1, 1,  //
                                               // what is ignored may be anything
                                               1, 2, 0, 77},
                                              {2, 4});
  MeanIou m(4);
  m.add(prediction, label, "a");
  const SegmentationFigures r = m.result();
  CHECK(m.count(0, 1) == 1);
  CHECK(m.count(1, 2) == 1);
  CHECK(r.iou[0] == Approx(2.0 / 3));
  CHECK(r.iou[1] == Approx(2.0 / 4));
  CHECK(r.iou[2] == 0);         // predicted, never labelled: counts
  CHECK(std::isnan(r.iou[3]));  // neither: left out
  CHECK(r.mean_iou == Approx((2.0 / 3 + 2.0 / 4) / 3));
  CHECK(r.all_accuracy == Approx(4.0 / 6));
  CHECK(r.accuracy[1] == Approx(2.0 / 3));
  CHECK(std::isnan(r.accuracy[2]));
  CHECK(r.mean_accuracy == Approx(2.0 / 3));
  // Over a set the pixels are added up, not the figures of images.
  m.add(Tensor::from<u8>({3}, {1}), Tensor::from<u8>({0}, {1}), "b");
  CHECK(m.result().iou[0] == Approx(2.0 / 4));
  CHECK(m.result().iou[3] == 0);
  CHECK(std::isnan(MeanIou(2).result().mean_iou));
}

TEST_CASE("mean IoU: what is no class is refused and leaves no trace", "[metrics]") {
  MeanIou m(3);
  const Tensor zero = Tensor::from<u8>({0, 0, 0, 0}, {2, 2}),
               bad = Tensor::from<u8>({0, 0, 0, 7}, {2, 2});
  CHECK(says([&] { m.add(zero, bad, "x.png"); },
             "x.png: label 7 at row 1, column 1; with 3 classes it must be 0 to 2, or 255"));
  CHECK(says([&] { m.add(bad, zero, "x.png"); }, "x.png: prediction 7 at row 1, column 1"));
  CHECK(says(
      [&] {
        m.add(Tensor::from<i64>({0, 0, -1, 0}, {2, 2}), zero, "x.png");
      },
      "prediction -1 at row 1, column 0"));
  CHECK(m.count(0, 0) == 0);
  CHECK(
      says([&] { m.add(Tensor::from<u8>({0}, {1}), zero, "x.png"); }, "x.png: the prediction is "));
  CHECK(says([&] { m.add(Tensor::zeros({2, 2}), zero, "x.png"); }, "uint8 or int64"));
  CHECK(says([] { MeanIou(0); }, "0 classes"));
}

TEST_CASE("reduce_zero_label", "[metrics]") {
  const Tensor r = reduce_zero_label(Tensor::from<u8>({0, 1, 2, 150, 255}, {5}));
  CHECK(r.to_vector<u8>() == std::vector<u8>{255, 0, 1, 149, 255});
  CHECK(says([] { reduce_zero_label(Tensor::zeros({2})); }, "must be uint8"));
}
