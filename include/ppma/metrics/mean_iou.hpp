#pragma once
#include "ppma/core/names_begin.hpp"
// Segmentation's figures as mmseg counts them (recipes 2.4): one table of label against prediction
// over the whole set, and what comes of it: IoU of each class, their mean, accuracy of all pixels,
// mean accuracy of the classes.

#include <string>
#include <vector>

#include "ppma/core/float_bits.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The label map of a set whose label 0 means "nothing": 1..K become 0..K-1, 0 becomes `ignore`,
/// which stays. Labels are uint8 or int64; the result is int64 where they or `ignore` need it. The
/// one place where this is done: data sets do it when they load, so that training and scoring see
/// the same labels.
PPMA_API Tensor reduce_zero_label(const Tensor& labels, i64 ignore = 255);

/// Fractions from 0 to 1; a class that is neither labelled nor predicted has none (NaN) and is left
/// out of the means.
struct SegmentationFigures {
  double mean_iou = 0, all_accuracy = 0, mean_accuracy = 0;
  std::vector<double> iou, accuracy;  // by class
};

class MeanIou {
 public:
  /// Labels and predictions are 0..classes-1; pixels labelled `ignore` do not count (-1: all do).
  PPMA_API explicit MeanIou(i64 classes, i64 ignore = 255);

  /// Adds an image: two maps of the same shape, uint8 or int64 each; `name` is what errors call it.
  /// Errors: other shapes;
  /// a label or prediction that is no class, with its value and pixel.
  PPMA_API void add(const Tensor& prediction, const Tensor& label, const std::string& name);

  /// How many there are.
  i64 classes() const { return classes_; }
  /// Pixels of class `label` that were taken for class `prediction`.
  PPMA_API i64 count(i64 label, i64 prediction) const;

  /// The figures of all that was added.
  PPMA_API SegmentationFigures result() const;

  /// All counts, label by label, for who adds up those of several processes; and what they are
  /// then.
  std::vector<double> counts() const { return {table_.begin(), table_.end()}; }
  /// What counts() gave, of one process or added up over several.
  PPMA_API void set_counts(const std::vector<double>& counts);

 private:
  template <class P, class L>
  void count(const P* prediction, const L* label, const Tensor& shape, const std::string& name) {
    const i64 n = shape.numel(), width = shape.rank() > 0 ? shape.dim(shape.rank() - 1) : 1;
    std::vector<i64> table = table_;  // an image that is refused leaves no trace
    for (i64 i = 0; i < n; ++i) {
      const i64 l = static_cast<i64>(label[i]), p = static_cast<i64>(prediction[i]);
      if (l == ignore_) continue;
      if (l < 0 || l >= classes_ || p < 0 || p >= classes_) [[unlikely]]
        fail(name, ": ", l < 0 || l >= classes_ ? "label " : "prediction ",
             l < 0 || l >= classes_ ? l : p, " at row ", i / width, ", column ", i % width,
             "; with ", classes_, " classes it must be 0 to ", classes_ - 1,
             l < 0 || l >= classes_ ? str(", or ", ignore_, " to be ignored") : "");
      ++table[static_cast<std::size_t>(l * classes_ + p)];
    }
    table_.swap(table);
  }
  static double ratio(i64 a, i64 b) {
    return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : not_a_number<double>();
  }
  PPMA_API static double mean(const std::vector<double>& v);

  i64 classes_, ignore_;
  std::vector<i64> table_;  // (label, prediction)
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_METRICS)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

Tensor reduce_zero_label(const Tensor& labels, i64 ignore) {
  const bool wide = labels.defined() && labels.dtype() == DType::int64;
  check(labels.defined() && (wide || labels.dtype() == DType::uint8),
        "reduce_zero_label: labels must be uint8 or int64");
  Tensor reduced =
      Tensor::empty(labels.shape(), wide || ignore > 255 ? DType::int64 : DType::uint8);
  for (i64 i = 0; i < labels.numel(); ++i) {
    const i64 label = wide ? labels.data<i64>()[i] : labels.data<u8>()[i];
    const i64 value = label == 0 || label == ignore ? ignore : label - 1;
    if (reduced.dtype() == DType::int64)
      reduced.data<i64>()[i] = value;
    else
      reduced.data<u8>()[i] = static_cast<u8>(value);
  }
  return reduced;
}

MeanIou::MeanIou(i64 classes, i64 ignore) : classes_(classes), ignore_(ignore) {
  check(classes > 0 && classes <= 4096, "mean IoU: ", classes, " classes; 1 to 4096 are counted");
  table_.resize(static_cast<std::size_t>(classes * classes));
}

void MeanIou::add(const Tensor& prediction, const Tensor& label, const std::string& name) {
  check(prediction.defined() && label.defined(), name, ": mean IoU of an undefined tensor");
  check(prediction.shape() == label.shape(), name, ": the prediction is ", prediction.shape(),
        ", the labels are ", label.shape());
  const auto of = [&](const Tensor& t, auto&& f) {
    if (t.dtype() == DType::uint8) return f(t.data<u8>());
    check(t.dtype() == DType::int64, name, ": mean IoU needs uint8 or int64, got ", t.dtype());
    return f(t.data<i64>());
  };
  of(prediction,
     [&](const auto* p) { of(label, [&](const auto* l) { count(p, l, label, name); }); });
}

i64 MeanIou::count(i64 label, i64 prediction) const {
  check(label >= 0 && label < classes_ && prediction >= 0 && prediction < classes_,
        "mean IoU: class ", label, " or ", prediction, " of ", classes_);
  return table_[static_cast<std::size_t>(label * classes_ + prediction)];
}

void MeanIou::set_counts(const std::vector<double>& counts) {
  check(counts.size() == table_.size(), "mean IoU: ", counts.size(), " counts for ", classes_,
        " classes");
  std::transform(counts.begin(), counts.end(), table_.begin(),
                 [](double n) { return static_cast<i64>(n); });
}

SegmentationFigures MeanIou::result() const {
  SegmentationFigures r;
  i64 right = 0, all = 0;
  for (i64 c = 0; c < classes_; ++c) {
    i64 labelled = 0, predicted = 0;
    for (i64 o = 0; o < classes_; ++o) labelled += count(c, o), predicted += count(o, c);
    const i64 both = count(c, c);
    r.iou.push_back(ratio(both, labelled + predicted - both));
    r.accuracy.push_back(ratio(both, labelled));
    right += both, all += labelled;
  }
  r.all_accuracy = ratio(right, all);
  r.mean_iou = mean(r.iou), r.mean_accuracy = mean(r.accuracy);
  return r;
}

double MeanIou::mean(const std::vector<double>& v) {
  double sum = 0;
  i64 n = 0;
  for (const double x : v)
    if (!is_nan(x)) sum += x, ++n;
  return n > 0 ? sum / static_cast<double>(n) : not_a_number<double>();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
