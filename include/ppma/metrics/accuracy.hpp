#pragma once
#include "ppma/core/names_begin.hpp"
// Top-k accuracy of a classifier.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// How many of the rows of logits (M, K) have their label (int64, M) among the k largest. Ties
/// count against: a class with an equal logit is taken to stand before the label, so that constant
/// logits score nothing. A NaN is never right.
PPMA_API i64 count_correct(const Tensor& logits, const Tensor& labels, i64 k);

/// Running counts over an evaluation, as percentages.
struct Accuracy {
  i64 images = 0, top1 = 0, top5 = 0;

  /// logits (B,K), labels int64 (B).
  PPMA_API void add(const Tensor& logits, const Tensor& labels);
  /// Percent of images whose label has the largest logit.
  double acc1() const { return percent(top1); }
  /// Percent of images whose label is among the five largest.
  double acc5() const { return percent(top5); }

 private:
  double percent(i64 n) const {
    return images > 0 ? 100.0 * static_cast<double>(n) / static_cast<double>(images) : 0.0;
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_METRICS)

namespace ppma::inline PPMA_ABI {

i64 count_correct(const Tensor& logits, const Tensor& labels, i64 k) {
  check(logits.rank() == 2, "accuracy: logits must be (M, K), got ", logits.shape());
  check(labels.dtype() == DType::int64 && labels.shape() == Shape{logits.dim(0)},
        "accuracy: labels are ", labels.dtype(), " ", labels.shape(),
        "; they must be int64 of shape ", Shape{logits.dim(0)});
  const i64 rows = logits.dim(0), classes = logits.dim(1);
  const i64* label = labels.data<i64>();
  i64 correct = 0;
  visit_cpu(logits.device(), logits.dtype(), "accuracy", [&](auto, auto t) {
    using T = decltype(t);
    const T* x = logits.data<T>();
    for (i64 r = 0; r < rows; ++r) {
      check(label[r] >= 0 && label[r] < classes, "accuracy: label ", label[r], " at index ", r,
            "; with ", classes, " classes it must be 0 to ", classes - 1);
      const T* row = x + r * classes;
      i64 before = 0;
      for (i64 c = 0; c < classes; ++c)
        before += c != label[r] && !(row[c] < row[label[r]]) ? 1 : 0;
      correct += before < k ? 1 : 0;
    }
  });
  return correct;
}

void Accuracy::add(const Tensor& logits, const Tensor& labels) {
  images += logits.dim(0);
  top1 += count_correct(logits, labels, 1);
  top5 += count_correct(logits, labels, 5);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
