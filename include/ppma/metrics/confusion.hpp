#pragma once
#include "ppma/core/names_begin.hpp"
// What a classifier takes for what, and whether it is as sure as it is right: predictions, image
// by image, and what is counted of them. Only pairs of classes that occur take memory.
//
//   std::vector<Prediction> said;
//   for each batch: add_predictions(said, logits, labels);
//   const Confusion confusion(classes, said);
//   confusion.of_class(3).recall(), confusion.count(3, 5), confusion.calibration_error()

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "ppma/metrics/mean_iou.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// What a classifier says of one image.
struct Prediction {
  i64 sample = 0;         // its number in the set
  i64 label = 0;          // its class
  i64 predicted = 0;      // the class of largest logit
  i64 place = 1;          // of the label among all classes: 1 where it is predicted
  double confidence = 0;  // probability of the predicted class
  double of_label = 0;    // probability of the label
  /// Whether that is its class.
  bool right() const { return predicted == label; }
};

/// Appends what logits (B,K) say of images with labels int64 (B). Their samples are numbered from
/// `first`, or as `samples` has them, where it has any. Ties count against the label as in
/// count_correct(): `predicted` then is another class, and `place` the last one. Errors: labels of
/// another shape, or not 0 to K - 1.
PPMA_API void add_predictions(std::vector<Prediction>& to, const Tensor& logits,
                              const Tensor& labels, i64 first = 0,
                              const std::vector<i64>& samples = {});

/// Counts of a class, and figures from 0 to 1; NaN where they are of nothing.
struct ClassFigures {
  i64 images = 0, predicted = 0, right = 0;  // of this class, taken for it, both
  /// Share of its images that are recognised: the accuracy on this class.
  double recall() const { return share(right, images); }
  /// Share of what is taken for it that is it.
  double precision() const { return share(right, predicted); }
  /// Harmonic mean of the two; 0 where nothing was right.
  double f1() const { return share(2 * right, images + predicted); }
  /// What is of it and was taken for it, of what is either: the IoU of a class of pixels.
  double iou() const { return share(right, images + predicted - right); }

 private:
  PPMA_API static double share(i64 part, i64 all);
};

/// Images of `label` that were taken for another class.
struct Mistaken {
  i64 label = 0, predicted = 0, images = 0;
};

class Confusion {
 public:
  /// Bins of equal width that confidences are counted in.
  static constexpr std::size_t bins = 15;
  struct Bin {
    i64 images = 0, right = 0;
    double confidence = 0;  // sum
  };

  /// Of so many classes. Error: a prediction's class is none of them.
  PPMA_API explicit Confusion(i64 classes, const std::vector<Prediction>& said = {});
  /// See the constructor.
  PPMA_API void add(const Prediction& p);
  /// So many of class `label` that were taken for `predicted`, as pixels are counted: nothing else
  /// is known of them. top5() then counts the right ones, and the calibration none. Errors: a class
  /// that is none; a negative count.
  PPMA_API void add(i64 label, i64 predicted, i64 count);

  /// How many there are.
  i64 classes() const { return static_cast<i64>(figures_.size()); }
  /// Of all classes.
  i64 images() const { return images_; }
  /// Images of class `label` that were taken for `predicted`: an element of the confusion matrix.
  PPMA_API i64 count(i64 label, i64 predicted) const;
  /// The elements that are not 0, row by row: label, predicted.
  const std::map<std::pair<i64, i64>, i64>& counts() const { return counts_; }
  /// Of one class.
  const ClassFigures& of_class(i64 k) const { return figures_[static_cast<std::size_t>(k)]; }

  /// Shares of images whose label is predicted, and is among the five best.
  double top1() const { return share(right_); }
  /// See top1().
  double top5() const { return share(among5_); }
  /// Mean recall of the classes that have images (balanced accuracy); NaN: none has.
  PPMA_API double mean_recall() const;
  /// Mean precision of the classes that something was taken for; NaN: there is none.
  PPMA_API double mean_precision() const;
  /// Mean F1 of the classes that have images or that something was taken for; NaN: there is none.
  PPMA_API double mean_f1() const;

  /// How far confidence and accuracy are apart, from 0 to 1: the expected calibration error over
  /// `bins` (Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017,
  /// equation 3). NaN without predictions, or where a probability was none.
  PPMA_API double calibration_error() const;
  /// Bin m has the confidences above m / bins, up to (m + 1) / bins.
  const std::array<Bin, bins>& calibration() const { return bins_; }

  /// Classes by rising recall, then by falling number of images; those without images are left out.
  PPMA_API std::vector<i64> worst_classes() const;
  /// The pairs that are most often mistaken, most first, at most so many.
  PPMA_API std::vector<Mistaken> most_mistaken(std::size_t most) const;

 private:
  PPMA_API double share(i64 n) const;
  template <class Figure>
  double mean(Figure figure) const;

  std::vector<ClassFigures> figures_;
  std::map<std::pair<i64, i64>, i64> counts_;
  std::array<Bin, bins> bins_{};
  i64 images_ = 0, right_ = 0, among5_ = 0;
};

/// The pixels that were counted for mean IoU.
PPMA_API Confusion confusion_of(const MeanIou& pixels);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_METRICS)

#include <algorithm>
#include <cmath>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

void add_predictions(std::vector<Prediction>& to, const Tensor& logits, const Tensor& labels,
                     i64 first, const std::vector<i64>& samples) {
  check(logits.rank() == 2 && logits.dim(1) > 0, "predictions: logits must be (B,K), got ",
        logits.shape());
  const i64 rows = logits.dim(0), classes = logits.dim(1);
  check(labels.dtype() == DType::int64 && labels.shape() == Shape{rows}, "predictions: labels are ",
        labels.dtype(), " ", labels.shape(), "; they must be int64 of shape ", Shape{rows});
  check(samples.empty() || static_cast<i64>(samples.size()) == rows,
        "predictions: ", samples.size(), " samples have ", rows, " rows of logits");
  const i64* label = labels.data<i64>();
  visit_cpu(logits.device(), logits.dtype(), "predictions", [&](auto, auto t) {
    using T = decltype(t);
    for (i64 r = 0; r < rows; ++r) {
      check(label[r] >= 0 && label[r] < classes, "predictions: label ", label[r], " at index ", r,
            "; with ", classes, " classes it must be 0 to ", classes - 1);
      const T* row = logits.data<T>() + r * classes;
      Prediction p;
      p.sample = samples.empty() ? first + r : samples[static_cast<std::size_t>(r)];
      p.label = p.predicted = label[r];
      for (i64 c = 0; c < classes; ++c) {
        if (c == label[r] || row[c] < row[label[r]]) continue;
        ++p.place;
        if (p.predicted == label[r] || row[c] > row[p.predicted]) p.predicted = c;
      }
      const double best = static_cast<double>(row[p.predicted]);
      double sum = 0;
      for (i64 c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(row[c]) - best);
      p.confidence = 1 / sum;
      p.of_label = std::exp(static_cast<double>(row[label[r]]) - best) / sum;
      to.push_back(p);
    }
  });
}

double ClassFigures::share(i64 part, i64 all) {
  return all > 0 ? static_cast<double>(part) / static_cast<double>(all) : not_a_number<double>();
}

Confusion::Confusion(i64 classes, const std::vector<Prediction>& said) {
  check(classes > 0, "confusion: ", classes, " classes");
  figures_.resize(static_cast<std::size_t>(classes));
  for (const Prediction& p : said) add(p);
}

void Confusion::add(i64 label, i64 predicted, i64 count) {
  for (const i64 c : {label, predicted})
    check(c >= 0 && c < classes(), "confusion: class ", c, " of ", classes());
  check(count >= 0, "confusion: a count of ", count);
  if (count == 0) return;
  const i64 right = label == predicted ? count : 0;
  images_ += count, right_ += right, among5_ += right;
  ClassFigures& own = figures_[static_cast<std::size_t>(label)];
  own.images += count, own.right += right;
  figures_[static_cast<std::size_t>(predicted)].predicted += count;
  counts_[{label, predicted}] += count;
}

void Confusion::add(const Prediction& p) {
  add(p.label, p.predicted, 1);
  among5_ += !p.right() && p.place <= 5 ? 1 : 0;
  const double at = std::ceil(p.confidence * static_cast<double>(bins)) - 1;
  // one that is none stays one in the sum
  Bin& bin = bins_[at > 0 ? std::min(static_cast<std::size_t>(at), bins - 1) : 0];
  ++bin.images, bin.right += p.right() ? 1 : 0, bin.confidence += p.confidence;
}

i64 Confusion::count(i64 label, i64 predicted) const {
  const auto it = counts_.find({label, predicted});
  return it == counts_.end() ? 0 : it->second;
}

double Confusion::share(i64 n) const {
  return images_ > 0 ? static_cast<double>(n) / static_cast<double>(images_)
                     : not_a_number<double>();
}

template <class Figure>
double Confusion::mean(Figure figure) const {
  double sum = 0, n = 0;
  for (const ClassFigures& c : figures_)
    if (const double value = figure(c); is_finite(value)) sum += value, ++n;
  return n > 0 ? sum / n : not_a_number<double>();
}

double Confusion::mean_recall() const {
  return mean([](const ClassFigures& c) { return c.recall(); });
}
double Confusion::mean_precision() const {
  return mean([](const ClassFigures& c) { return c.precision(); });
}
double Confusion::mean_f1() const {
  return mean([](const ClassFigures& c) { return c.f1(); });
}

double Confusion::calibration_error() const {
  double apart = 0;
  i64 images = 0;
  for (const Bin& b : bins_)
    apart += std::abs(static_cast<double>(b.right) - b.confidence), images += b.images;
  return images > 0 ? apart / static_cast<double>(images) : not_a_number<double>();
}

Confusion confusion_of(const MeanIou& pixels) {
  Confusion c(pixels.classes());
  for (i64 label = 0; label < pixels.classes(); ++label)
    for (i64 predicted = 0; predicted < pixels.classes(); ++predicted)
      c.add(label, predicted, pixels.count(label, predicted));
  return c;
}

std::vector<i64> Confusion::worst_classes() const {
  std::vector<i64> order;
  for (i64 k = 0; k < classes(); ++k)
    if (of_class(k).images > 0) order.push_back(k);
  std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
    const ClassFigures &x = of_class(a), &y = of_class(b);
    return x.recall() != y.recall() ? x.recall() < y.recall() : x.images > y.images;
  });
  return order;
}

std::vector<Mistaken> Confusion::most_mistaken(std::size_t most) const {
  std::vector<Mistaken> pairs;
  for (const auto& [pair, images] : counts_)
    if (pair.first != pair.second) pairs.push_back({pair.first, pair.second, images});
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Mistaken& a, const Mistaken& b) { return a.images > b.images; });
  pairs.resize(std::min(pairs.size(), most));
  return pairs;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
