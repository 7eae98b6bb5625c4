#pragma once
#include "ppma/core/names_begin.hpp"
// The paper's figure of what the mask has learnt (its Figures 7 and 12): for an image and a query
// token in a red frame, the decays alpha and beta, the attention without mask, the polyline mask,
// and the masked attention. Beside it, numbers: do the decays fall at contours, how far does the
// mask reach, does attention stay within the query's object?
//
// Legend: H W the image's pixels; h w the token grid.

#include <array>
#include <vector>

#include "ppma/vis/panels.hpp"

namespace ppma::inline PPMA_ABI {

/// What is seen from one query token, in one head or in the mean over heads. Maps are floating
/// (h,w).
struct MaskMaps {
  Tensor image;             // uint8 (H,W,3)
  Tensor alpha, beta;       // decays in (0, 1]: between horizontal and between vertical neighbours
  Tensor unmasked;          // the query's row of softmax(Q K^T)
  Tensor mask;              // the query's row of L2D
  Tensor masked;            // the query's row of the masked attention
  i64 row = 0, column = 0;  // of the query token
};

/// The figure: one row of six panels for each query. Every map has its own range, as in the paper.
PPMA_API Picture mask_picture(const std::vector<MaskMaps>& queries,
                              const PanelOptions& options = {});

/// Pearson's correlation of two equally long lists; NaN if one of them is constant.
PPMA_API double correlation(const std::vector<double>& a, const std::vector<double>& b);

/// How much the image changes across each token: |right - left| / 2 and |below - above| / 2 of the
/// image averaged over tokens, as the Euclidean norm over red, green and blue of levels 0 to 1;
/// (h,w) each, in row-major order. At the border the token itself stands for the missing neighbour.
PPMA_API std::array<std::vector<double>, 2> image_gradients(const Tensor& image, i64 h, i64 w);

/// Mean distance from (row, column), in cells, of a weight map (h,w) with a positive sum.
PPMA_API double mean_radius(const Tensor& weights, i64 row, i64 column);

/// The part of a weight map (h,w) that lies on an object, uint8 (H,W), not 0 on it; a cell counts
/// by its covered share.
PPMA_API double share_inside(const Tensor& weights, const Tensor& object);

struct MaskStatistics {
  // correlation of 1 - alpha with the horizontal change of the image
  double alpha_at_contours;
  double beta_at_contours;  // correlation of 1 - beta with the vertical change
  // mean distance from the query that the mask reaches, in tokens
  double mask_radius;
  double unmasked_radius, masked_radius;  // the same of the two attentions
  // share of the attention within the query's object; NaN without one
  double unmasked_inside, masked_inside;
};

/// The numbers that go with the figure. `object`, uint8 (H,W), is not 0 on the query's object; it
/// may be undefined.
PPMA_API MaskStatistics mask_statistics(const MaskMaps& m, const Tensor& object = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <string>

#include "ppma/io/resize.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_maps(const MaskMaps& m) {
  check_resize(m.image, 1, 1, "mask_picture");
  check(m.image.dim(2) == 3, "mask_picture: the image must be (H,W,3), got ", m.image.shape());
  check(m.alpha.defined() && m.alpha.rank() == 2, "mask_picture: alpha must be (h,w)");
  const char* const names[] = {"alpha", "beta", "unmasked", "mask", "masked"};
  const Tensor* const maps[] = {&m.alpha, &m.beta, &m.unmasked, &m.mask, &m.masked};
  for (std::size_t k = 0; k < 5; ++k)
    check(
        maps[k]->defined() && maps[k]->shape() == m.alpha.shape() && is_floating(maps[k]->dtype()),
        "mask_picture: ", names[k], " must be floating ", m.alpha.shape(), " like alpha, got ",
        maps[k]->defined() ? maps[k]->shape().str() : std::string("nothing"));
  check(m.row >= 0 && m.row < m.alpha.dim(0) && m.column >= 0 && m.column < m.alpha.dim(1),
        "mask_picture: query (", m.row, ", ", m.column, ") is outside of the grid ",
        m.alpha.shape());
}

}  // namespace detail

Picture mask_picture(const std::vector<MaskMaps>& queries, const PanelOptions& options) {
  std::vector<std::vector<Panel>> rows;
  for (const MaskMaps& m : queries) {
    detail::check_maps(m);
    const bool first = rows.empty();
    const auto title = [first](const char* words) {
      return first ? std::string(words) : std::string();
    };
    std::vector<Panel> row{image_panel(title("(a) image"), m.image),
                           map_panel(title("(b) decay \u03b1"), m.alpha),
                           map_panel(title("(c) decay \u03b2"), m.beta),
                           map_panel(title("(d) attention, no mask"), m.unmasked),
                           map_panel(title("(e) polyline mask"), m.mask),
                           map_panel(title("(f) masked attention"), m.masked)};
    for (Panel& p : row) p.marked = GridCell{m.row, m.column, m.alpha.dim(0), m.alpha.dim(1)};
    rows.push_back(std::move(row));
  }
  return panels(rows, options);
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size() && !a.empty(), "correlation: ", a.size(), " and ", b.size(),
        " values");
  const double n = static_cast<double>(a.size());
  double mean_a = 0, mean_b = 0, ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) mean_a += a[i] / n, mean_b += b[i] / n;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = a[i] - mean_a, y = b[i] - mean_b;
    ab += x * y, aa += x * x, bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : not_a_number<double>();
}

std::array<std::vector<double>, 2> image_gradients(const Tensor& image, i64 h, i64 w) {
  const i64 H = image.dim(0), W = image.dim(1);
  std::vector<double> mean(static_cast<std::size_t>(h * w * 3));  // (h,w,3)
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      const i64 y0 = i * H / h, y1 = std::max(y0 + 1, (i + 1) * H / h), x0 = j * W / w,
                x1 = std::max(x0 + 1, (j + 1) * W / w);
      for (i64 y = y0; y < y1; ++y)
        for (i64 x = x0; x < x1; ++x)
          for (i64 c = 0; c < 3; ++c)
            mean[static_cast<std::size_t>((i * w + j) * 3 + c)] +=
                image.data<u8>()[(y * W + x) * 3 + c] /
                (255.0 * static_cast<double>((y1 - y0) * (x1 - x0)));
    }
  std::array<std::vector<double>, 2> gradients;
  const auto change = [&](i64 i0, i64 j0, i64 i1, i64 j1) {
    double sum = 0;
    for (i64 c = 0; c < 3; ++c) {
      const double d = mean[static_cast<std::size_t>((i1 * w + j1) * 3 + c)] -
                       mean[static_cast<std::size_t>((i0 * w + j0) * 3 + c)];
      sum += d * d;
    }
    return std::sqrt(sum) / 2;
  };
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      gradients[0].push_back(change(i, std::max(i64{0}, j - 1), i, std::min(w - 1, j + 1)));
      gradients[1].push_back(change(std::max(i64{0}, i - 1), j, std::min(h - 1, i + 1), j));
    }
  return gradients;
}

double mean_radius(const Tensor& weights, i64 row, i64 column) {
  const std::vector<double> v = weights.to_vector<double>();
  double sum = 0, moment = 0;
  for (i64 i = 0; i < weights.dim(0); ++i)
    for (i64 j = 0; j < weights.dim(1); ++j) {
      const double x = v[static_cast<std::size_t>(i * weights.dim(1) + j)];
      sum += x;
      moment += x * std::hypot(static_cast<double>(i - row), static_cast<double>(j - column));
    }
  return moment / sum;
}

double share_inside(const Tensor& weights, const Tensor& object) {
  check(object.defined() && object.rank() == 2 && object.dtype() == DType::uint8,
        "share_inside: the object must be uint8 (H,W)");
  const std::vector<double> v = weights.to_vector<double>();
  const i64 h = weights.dim(0), w = weights.dim(1), H = object.dim(0), W = object.dim(1);
  double sum = 0, inside = 0;
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < w; ++j) {
      const i64 y0 = i * H / h, y1 = std::max(y0 + 1, (i + 1) * H / h), x0 = j * W / w,
                x1 = std::max(x0 + 1, (j + 1) * W / w);
      i64 covered = 0;
      for (i64 y = y0; y < y1; ++y)
        for (i64 x = x0; x < x1; ++x) covered += object.data<u8>()[y * W + x] != 0;
      const double x = v[static_cast<std::size_t>(i * w + j)];
      sum += x;
      inside += x * static_cast<double>(covered) / static_cast<double>((y1 - y0) * (x1 - x0));
    }
  return inside / sum;
}

MaskStatistics mask_statistics(const MaskMaps& m, const Tensor& object) {
  detail::check_maps(m);
  const auto lost = [](const Tensor& decay) {
    std::vector<double> v = decay.to_vector<double>();
    for (double& x : v) x = 1 - x;
    return v;
  };
  const auto gradients = image_gradients(m.image, m.alpha.dim(0), m.alpha.dim(1));
  MaskStatistics s;
  s.alpha_at_contours = correlation(lost(m.alpha), gradients[0]);
  s.beta_at_contours = correlation(lost(m.beta), gradients[1]);
  s.mask_radius = mean_radius(m.mask, m.row, m.column);
  s.unmasked_radius = mean_radius(m.unmasked, m.row, m.column);
  s.masked_radius = mean_radius(m.masked, m.row, m.column);
  s.unmasked_inside = object.defined() ? share_inside(m.unmasked, object) : not_a_number<double>();
  s.masked_inside = object.defined() ? share_inside(m.masked, object) : not_a_number<double>();
  return s;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
