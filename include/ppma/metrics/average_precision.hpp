#pragma once
#include "ppma/core/names_begin.hpp"
// COCO's average precision, as pycocotools' COCOeval counts it (recipes 3.4): ten IoU thresholds,
// 101 recall points, four area ranges, three limits on detections. Overlaps are the caller's (boxes
// or masks: data/coco_evaluation.hpp), so that this header knows nothing of files or shapes.
//
//   AveragePrecision ap(classes);
//   for each image in ascending id, for each class c:
//     ap.add(c, truths, detections, [&](size_t d, size_t g) { return iou(d, g); });
//   ap.result().figures[0];   // AP

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// An annotated object. A crowd is neither to be found nor a mistake. Area in pixels, as annotated.
struct TruthInstance {
  double area = 0;
  bool crowd = false;
  i64 id = 1;  // pycocotools takes a match with annotation 0 for none
};

struct DetectedInstance {
  double area = 0, score = 0;
};

/// COCO's limits are 1, 10, 100. mmdet 2 reports with 100, 300, 1000: the first figure then still
/// is at 100, all others of precision are at the last limit.
struct ApOptions {
  std::array<i64, 3> max_detections{1, 10, 100};
};

inline constexpr ApOptions mmdet2_ap{{100, 300, 1000}};

inline constexpr std::array<const char*, 12> coco_figure_names{
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"};

/// Fractions from 0 to 1; -1 where there is nothing to find.
struct CocoFigures {
  std::array<double, 12> figures{};            // coco_figure_names
  std::vector<double> class_ap;                // all thresholds, all areas, last limit
  std::vector<double> class_ap50, class_ap75;  // the same at one threshold
  // truths with id 0: a detection matched with one counts as a mistake
  i64 zero_ids = 0;
};

class AveragePrecision {
 public:
  /// Of so many classes.
  PPMA_API explicit AveragePrecision(i64 classes, ApOptions options = {});

  /// One class of one image; images come in ascending id, as equal scores keep their order. iou(d,
  /// g) is asked for detections and truths by number, over the detection's area alone where the
  /// truth is a crowd.
  template <class F>
  void add(i64 label, const std::vector<TruthInstance>& truths,
           const std::vector<DetectedInstance>& detections, F&& iou) {
    check(label >= 0 && label < static_cast<i64>(classes_.size()), "average precision: class ",
          label, " of ", classes_.size());
    Class& c = classes_[static_cast<std::size_t>(label)];
    for (const TruthInstance& t : truths) zero_ids_ += t.id == 0 ? 1 : 0;
    std::vector<std::size_t> order(detections.size());  // best score first
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return detections[a].score > detections[b].score;
    });
    order.resize(std::min(order.size(), static_cast<std::size_t>(options_.max_detections[2])));
    std::vector<double> overlaps;  // (detections in order, truths)
    overlaps.reserve(order.size() * truths.size());
    for (const std::size_t d : order)
      for (std::size_t g = 0; g < truths.size(); ++g) overlaps.push_back(iou(d, g));
    const std::size_t first = c.found.size();
    for (std::size_t d = 0; d < order.size(); ++d)
      c.found.push_back({detections[order[d]].score, static_cast<i64>(d), {}, {}});
    for (std::size_t a = 0; a < areas; ++a) match(c, a, first, truths, detections, order, overlaps);
  }

  /// The figures of all that was added.
  PPMA_API CocoFigures result() const;

 private:
  static constexpr std::size_t thresholds = 10, areas = 4, recalls = 101;

  // numpy's linspace(0.5, 0.95, 10) to the bit: an overlap may lie on a threshold.
  static constexpr std::array<double, thresholds> threshold{
      0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95};
  static constexpr std::array<std::array<double, 2>, areas> area_range{
      {{0, 1e10}, {0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}}};  // both ends belong to it

  struct Found {
    double score;
    i64 rank;                                           // in its image
    std::array<std::uint16_t, areas> matched, ignored;  // a bit for each threshold
  };
  struct Class {
    std::vector<Found> found;          // by image, then score
    std::array<i64, areas> to_find{};  // truths that are not ignored
  };

  static bool outside(double area, std::size_t a) {
    return area < area_range[a][0] || area > area_range[a][1];
  }

  // Best detection first, each takes the free truth that it overlaps most (the later one of two
  // equals); one that counts goes before one that is ignored, and a crowd is never taken.
  PPMA_API static void match(Class& c, std::size_t a, std::size_t first,
                             const std::vector<TruthInstance>& truths,
                             const std::vector<DetectedInstance>& detections,
                             const std::vector<std::size_t>& order,
                             const std::vector<double>& overlaps);

  PPMA_API static std::vector<const Found*> by_score(const Class& c, i64 limit);

  // Mean of the precision at 101 recalls, and the recall reached.
  PPMA_API static void curve(const std::vector<const Found*>& best, std::size_t a, std::size_t t,
                             i64 to_find, double& precision, double& recall);

  ApOptions options_;
  std::vector<Class> classes_;
  i64 zero_ids_ = 0;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_METRICS)

namespace ppma::inline PPMA_ABI {

AveragePrecision::AveragePrecision(i64 classes, ApOptions options) : options_(options) {
  check(classes >= 0, "average precision: ", classes, " classes");
  const auto& m = options.max_detections;
  check(m[0] > 0 && m[0] <= m[1] && m[1] <= m[2], "average precision: the limits ", m[0], ", ",
        m[1], ", ", m[2], " must ascend from 1");
  classes_.resize(static_cast<std::size_t>(classes));
}

CocoFigures AveragePrecision::result() const {
  CocoFigures r;
  r.zero_ids = zero_ids_;
  const std::size_t n = classes_.size();
  // Precision over recall and recall by class, threshold, area, limit; -1 where there is nothing to
  // find.
  std::vector<double> precision(n * thresholds * areas * 3, -1), recall = precision;
  const auto at = [](std::size_t k, std::size_t t, std::size_t a, std::size_t m) {
    return ((k * thresholds + t) * areas + a) * 3 + m;
  };
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t m = 0; m < 3; ++m) {
      if (m > 0 && options_.max_detections[m] == options_.max_detections[m - 1]) {
        for (std::size_t t = 0; t < thresholds; ++t)
          for (std::size_t a = 0; a < areas; ++a)
            precision[at(k, t, a, m)] = precision[at(k, t, a, m - 1)],
                                  recall[at(k, t, a, m)] = recall[at(k, t, a, m - 1)];
        continue;
      }
      const std::vector<const Found*> best = by_score(classes_[k], options_.max_detections[m]);
      for (std::size_t a = 0; a < areas; ++a)
        for (std::size_t t = 0; t < thresholds && classes_[k].to_find[a] > 0; ++t)
          curve(best, a, t, classes_[k].to_find[a], precision[at(k, t, a, m)],
                recall[at(k, t, a, m)]);
    }
  }
  // One threshold, or all; one class, or all. Figures are means over what there is to find.
  const auto mean = [&](const std::vector<double>& v, std::size_t a, std::size_t m, std::size_t t0,
                        std::size_t t1, std::size_t k0, std::size_t k1) {
    double sum = 0;
    i64 count = 0;
    for (std::size_t k = k0; k < k1; ++k)
      for (std::size_t t = t0; t < t1; ++t)
        if (v[at(k, t, a, m)] > -1) sum += v[at(k, t, a, m)], ++count;
    return count > 0 ? sum / static_cast<double>(count) : -1;
  };
  const auto& limits = options_.max_detections;
  const auto hundred =
      static_cast<std::size_t>(std::find(limits.begin(), limits.end(), 100) - limits.begin());
  const std::size_t all = thresholds;
  r.figures = {hundred < 3 ? mean(precision, 0, hundred, 0, all, 0, n) : -1,
               mean(precision, 0, 2, 0, 1, 0, n),
               mean(precision, 0, 2, 5, 6, 0, n),
               mean(precision, 1, 2, 0, all, 0, n),
               mean(precision, 2, 2, 0, all, 0, n),
               mean(precision, 3, 2, 0, all, 0, n),
               mean(recall, 0, 0, 0, all, 0, n),
               mean(recall, 0, 1, 0, all, 0, n),
               mean(recall, 0, 2, 0, all, 0, n),
               mean(recall, 1, 2, 0, all, 0, n),
               mean(recall, 2, 2, 0, all, 0, n),
               mean(recall, 3, 2, 0, all, 0, n)};
  for (std::size_t k = 0; k < n; ++k) {
    r.class_ap.push_back(mean(precision, 0, 2, 0, all, k, k + 1));
    r.class_ap50.push_back(mean(precision, 0, 2, 0, 1, k, k + 1));
    r.class_ap75.push_back(mean(precision, 0, 2, 5, 6, k, k + 1));
  }
  return r;
}

void AveragePrecision::match(Class& c, std::size_t a, std::size_t first,
                             const std::vector<TruthInstance>& truths,
                             const std::vector<DetectedInstance>& detections,
                             const std::vector<std::size_t>& order,
                             const std::vector<double>& overlaps) {
  std::vector<std::size_t> sorted;  // truths, ignored ones last
  const auto ignored = [&](std::size_t g) { return truths[g].crowd || outside(truths[g].area, a); };
  for (const bool last : {false, true})
    for (std::size_t g = 0; g < truths.size(); ++g)
      if (ignored(g) == last) sorted.push_back(g);
  std::size_t counting = 0;
  while (counting < sorted.size() && !ignored(sorted[counting])) ++counting;
  c.to_find[a] += static_cast<i64>(counting);
  std::vector<bool> taken;
  for (std::size_t t = 0; t < thresholds; ++t) {
    const auto bit = static_cast<std::uint16_t>(1u << t);
    taken.assign(truths.size(), false);
    for (std::size_t d = 0; d < order.size(); ++d) {
      Found& f = c.found[first + d];
      double best = threshold[t];
      std::size_t mine = sorted.size();
      for (std::size_t s = 0; s < sorted.size(); ++s) {
        const std::size_t g = sorted[s];
        if (taken[g] && !truths[g].crowd) continue;
        if (mine < counting && s >= counting) break;
        const double overlap = overlaps[d * truths.size() + g];
        if (overlap < best) continue;
        best = overlap;
        mine = s;
      }
      const bool got = mine < sorted.size();
      if (got) taken[sorted[mine]] = true;
      const bool matched = got && truths[sorted[mine]].id != 0;
      if (matched) f.matched[a] |= bit;
      if ((got && mine >= counting) || (!matched && outside(detections[order[d]].area, a)))
        f.ignored[a] |= bit;
    }
  }
}

std::vector<const AveragePrecision::Found*> AveragePrecision::by_score(const Class& c, i64 limit) {
  std::vector<const Found*> best;
  for (const Found& f : c.found)
    if (f.rank < limit) best.push_back(&f);
  std::stable_sort(best.begin(), best.end(),
                   [](const Found* x, const Found* y) { return x->score > y->score; });
  return best;
}

void AveragePrecision::curve(const std::vector<const Found*>& best, std::size_t a, std::size_t t,
                             i64 to_find, double& precision, double& recall) {
  std::vector<double> p, r;
  double right = 0, wrong = 0;
  for (const Found* f : best) {
    const bool matched = (f->matched[a] >> t & 1) != 0, ignored = (f->ignored[a] >> t & 1) != 0;
    right += matched && !ignored ? 1 : 0;
    wrong += !matched && !ignored ? 1 : 0;
    // an ignored one at the top is no 0 / 0
    p.push_back(right / (right + wrong + 2.220446049250313e-16));
    r.push_back(right / static_cast<double>(to_find));
  }
  recall = r.empty() ? 0 : r.back();
  for (std::size_t i = p.size(); i > 1; --i) p[i - 2] = std::max(p[i - 2], p[i - 1]);
  precision = 0;
  for (std::size_t i = 0; i < recalls; ++i) {
    // linspace(0, 1, 101)
    const double wanted = i + 1 == recalls ? 1 : 0.01 * static_cast<double>(i);
    const auto reached = std::lower_bound(r.begin(), r.end(), wanted);
    if (reached == r.end()) break;
    precision += p[static_cast<std::size_t>(reached - r.begin())] / static_cast<double>(recalls);
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
