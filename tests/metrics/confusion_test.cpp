// Confusion matrix, figures of classes and calibration on a case that is worked out by hand.

#include "ppma/metrics/confusion.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("confusion, precision, recall, F1 and calibration by hand", "[metrics]") {
  std::vector<double> logits{0.7,  0.2,  0.1,    // label 0, right with 0.7: bin 10
                             0.5,  0.4,  0.1,    // label 0, right with 0.5: bin 7
                             0.05, 0.9,  0.05,   // label 0, taken for 1 with 0.9: bin 13
                             0.28, 0.62, 0.1,    // label 1, right with 0.62: bin 9
                             0.2,  0.7,  0.1,    // label 2, taken for 1 with 0.7: bin 10
                             0.09, 0.09, 0.82};  // label 2, right with 0.82: bin 12
  std::vector<double> four;  // and a class that there is no image of, and that is never said
  for (std::size_t i = 0; i < logits.size(); ++i) {
    four.push_back(std::log(logits[i]));
    if (i % 3 == 2) four.push_back(-std::numeric_limits<double>::infinity());
  }
  std::vector<Prediction> said;
  add_predictions(said, Tensor::from(four, {6, 4}), Tensor::from<i64>({0, 0, 0, 1, 2, 2}, {6}), 10);
  REQUIRE(said.size() == 6);
  CHECK(said[2].sample == 12);
  CHECK(said[4].place == 3);
  CHECK(std::abs(said[4].confidence - 0.7) < 1e-12);
  CHECK(std::abs(said[4].of_label - 0.1) < 1e-12);

  const Confusion c(4, said);
  const auto near = [](double a, double b) { return std::abs(a - b) < 1e-12; };
  CHECK(c.images() == 6);
  const i64 matrix[4][4] = {{2, 1, 0, 0}, {0, 1, 0, 0}, {0, 1, 1, 0}, {0, 0, 0, 0}};
  for (i64 i = 0; i < 4; ++i)
    for (i64 j = 0; j < 4; ++j) CHECK(c.count(i, j) == matrix[i][j]);
  CHECK(c.counts().size() == 5);
  CHECK(near(c.top1(), 4.0 / 6));
  CHECK(c.top5() == 1);
  CHECK(near(c.of_class(0).recall(), 2.0 / 3));
  CHECK(near(c.of_class(1).recall(), 1));
  CHECK(near(c.of_class(2).recall(), 0.5));
  CHECK(near(c.of_class(0).precision(), 1));
  CHECK(near(c.of_class(1).precision(), 1.0 / 3));
  CHECK(near(c.of_class(2).precision(), 1));
  CHECK(near(c.of_class(0).f1(), 0.8));
  CHECK(near(c.of_class(1).f1(), 0.5));
  CHECK(near(c.of_class(2).f1(), 2.0 / 3));
  for (const double none : {c.of_class(3).recall(), c.of_class(3).precision(), c.of_class(3).f1()})
    CHECK(is_nan(none));
  CHECK(near(c.mean_recall(), 13.0 / 18));
  CHECK(near(c.mean_precision(), 7.0 / 9));
  CHECK(near(c.mean_f1(), 59.0 / 90));
  // |1 - 1.4|, |1 - 0.5|, |0 - 0.9|, |1 - 0.62|, |1 - 0.82| over six images
  CHECK(near(c.calibration_error(), (0.4 + 0.5 + 0.9 + 0.38 + 0.18) / 6));
  CHECK(c.calibration()[10].images == 2);
  CHECK(c.calibration()[10].right == 1);
  CHECK(c.worst_classes() == std::vector<i64>{2, 0, 1});
  const std::vector<Mistaken> mistaken = c.most_mistaken(1);
  REQUIRE(mistaken.size() == 1);
  CHECK(mistaken[0].label == 0);
  CHECK(mistaken[0].predicted == 1);
}

TEST_CASE("pixels are counted without what is known of predictions", "[metrics]") {
  MeanIou pixels(3);
  pixels.add(Tensor::from<i64>({0, 0, 1, 1, 1, 2}, {2, 3}),
             Tensor::from<i64>({0, 0, 0, 1, 255, 1}, {2, 3}), "a map");
  const Confusion c = confusion_of(pixels);
  CHECK(c.images() == 5);
  CHECK(c.counts().size() == 4);
  CHECK(c.count(0, 0) == 2);
  CHECK(c.count(1, 2) == 1);
  CHECK(c.top1() == 0.6);
  CHECK(c.top5() == 0.6);
  CHECK(is_nan(c.calibration_error()));
  const SegmentationFigures f = pixels.result();
  for (std::size_t k = 0; k < 3; ++k) CHECK(c.of_class(static_cast<i64>(k)).iou() == f.iou[k]);
  CHECK(c.of_class(1).iou() == 1.0 / 3);  // one of two labelled and two predicted
  CHECK(c.of_class(1).recall() == f.accuracy[1]);
  Confusion more(2);
  CHECK(says([&] { more.add(0, 2, 1); }, "class 2 of 2"));
  CHECK(says([&] { more.add(0, 1, -1); }, "a count of -1"));
}

TEST_CASE("predictions count ties and what is no number as accuracy does", "[metrics]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor logits = Tensor::from<float>({3, 2,   1,   0, -1, -2,  // label 0
                                             3, 2,   1,   0, -1, -2,  // label 5: the sixth
                                             1, 1,   0,   0, 0,  0,   // label 1: shares the first
                                             0, 0,   nan, 0, 0,  0,   // label 2: not a number
                                             0, nan, 0,   0, 0,  0},  // label 0: another is not
                                            {5, 6});
  const Tensor labels = Tensor::from<i64>({0, 5, 1, 2, 0}, {5});
  std::vector<Prediction> said;
  add_predictions(said, logits, labels, 0, {4, 3, 2, 1, 0});
  const Confusion c(6, said);
  CHECK(said[0].sample == 4);
  CHECK(said[2].predicted == 0);
  for (const i64 k : {1, 2, 5}) {
    i64 among = 0;
    for (const Prediction& p : said) among += p.place <= k ? 1 : 0;
    CHECK(among == count_correct(logits, labels, k));
  }
  i64 diagonal = 0;
  for (i64 k = 0; k < 6; ++k) diagonal += c.count(k, k);
  CHECK(diagonal == count_correct(logits, labels, 1));
  CHECK(is_nan(c.calibration_error()));
  CHECK(is_nan(Confusion(2).top1()));
  CHECK(is_nan(Confusion(2).mean_f1()));
  CHECK(says([&] { Confusion(5, said); }, "class 5 of 5"));
  CHECK(says(
      [&] {
        add_predictions(said, logits, Tensor::from<i64>({0, 1}, {2}));
      },
      "must be int64"));
  CHECK(says(
      [&] {
        add_predictions(said, logits, Tensor::from<i64>({0, 1, 2, 3, 6}, {5}));
      },
      "label 6 at index 4"));
}
