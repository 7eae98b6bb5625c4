#pragma once
#include "ppma/core/names_begin.hpp"
// COCO's masks: run lengths down the columns, beginning with a run of zeros, and their text form
// (recipes 3.5;
// pycocotools/maskApi.c by P. Dollar and T.-Y. Lin is the definition that figures are compared by).
//
//   Rle mask = rle_from_polygon({10, 10, 50, 10, 30, 40}, 480, 640);   // x, y, x, y, ... in pixels
//   rle_area(mask); rle_box(mask); rle_string(mask); rle_decode(mask);

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// A mask of height x width pixels: pixel (y, x) is number x * height + y; counts[0] zeros,
/// counts[1] ones, ...
struct Rle {
  i64 height = 0, width = 0;
  std::vector<u32> counts;

  bool operator==(const Rle&) const = default;
};

/// x, y of the upper left corner, width, height; in pixels.
using CocoBox = std::array<double, 4>;

namespace detail {

PPMA_API void check_mask_size(i64 height, i64 width);

// A product that is rounded before it is added to anything: a compiler may fuse the two (FMA), and
// an IoU of exactly one half would then fall on the other side of the threshold.
PPMA_API double rounded_product(double a, double b);

// The mask whose pixels change at these positions, ascending, 0 to height * width. Two equal ones
// cancel.
PPMA_API Rle rle_from_changes(const std::vector<i64>& changes, i64 height, i64 width);

}  // namespace detail

/// Errors: a size that no mask has; runs that do not add up to it.
PPMA_API void check_rle(const Rle& m);

/// The mask of a uint8 tensor (H,W): what is not zero.
PPMA_API Rle rle_encode(const Tensor& mask);

/// uint8 (H,W) of 0 and 1.
PPMA_API Tensor rle_decode(const Rle& m);

/// The text form: each run (from the fourth on, its difference from the run two before) in groups
/// of five bits, low ones first, as the characters 48 to 111; 32 says that more follow, 16 in the
/// last group is the sign.
PPMA_API std::string rle_string(const Rle& m);

/// The mask of a text form. Errors: any other character, a number cut short or too large, runs of
/// another sum.
PPMA_API Rle rle_from_string(std::string_view text, i64 height, i64 width);

/// Pixels that are one.
PPMA_API i64 rle_area(const Rle& m);

/// The smallest box around the ones; all zero for an empty mask.
PPMA_API CocoBox rle_box(const Rle& m);

/// Ones of both masks, counted along their runs. Errors: different sizes.
PPMA_API i64 rle_intersection(const Rle& a, const Rle& b);

/// Intersection over union of a detection and a truth; over the detection alone where the truth is
/// a crowd.
PPMA_API double rle_iou(const Rle& detection, const Rle& truth, bool crowd = false);

/// The same for boxes. Boxes have no extra pixel: the width is x2 - x1.
PPMA_API double box_iou(const CocoBox& detection, const CocoBox& truth, bool crowd = false);

/// Ones of either mask.
PPMA_API Rle rle_union(const Rle& a, const Rle& b);

/// The mask of a polygon x, y, x, y, ... (pixels; at least three corners), pixel for pixel as
/// pycocotools draws it:
/// corners at a fifth of a pixel, each edge walked one step at a time along its longer axis, a
/// change of the mask where the walk passes the middle of a column. Errors: an odd number, fewer
/// than six, beyond 2^24, too long a way round.
PPMA_API Rle rle_from_polygon(const std::vector<double>& xy, i64 height, i64 width);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

namespace detail {

void check_mask_size(i64 height, i64 width) {
  constexpr i64 most = i64{1} << 27;
  check(height > 0 && width > 0 && height <= most && width <= most && height * width <= most,
        "mask: ", height, " x ", width, " pixels; it must have 1 to ", most);
}

double rounded_product(double a, double b) {
  const volatile double product = a * b;
  return product;
}

// Calls f(begin, end) for every run of ones that is not empty, in order.
template <class F>
void for_runs(const Rle& m, F&& f) {
  i64 at = 0;
  for (std::size_t i = 0; i < m.counts.size(); ++i) {
    const i64 end = at + m.counts[i];
    if (i % 2 == 1 && end > at) f(at, end);
    at = end;
  }
}

Rle rle_from_changes(const std::vector<i64>& changes, i64 height, i64 width) {
  Rle m{height, width, {}};
  i64 begin = 0;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i + 1 < changes.size() && changes[i] == changes[i + 1]) {
      ++i;
      continue;
    }
    if (changes[i] == height * width) break;
    m.counts.push_back(static_cast<u32>(changes[i] - begin));
    begin = changes[i];
  }
  m.counts.push_back(static_cast<u32>(height * width - begin));
  return m;
}

}  // namespace detail

void check_rle(const Rle& m) {
  detail::check_mask_size(m.height, m.width);
  i64 sum = 0;
  for (const u32 n : m.counts) sum += n;  // fewer than 2^31 runs of less than 2^32
  check(sum == m.height * m.width, "mask: its runs are ", sum, " pixels long, ", m.height, " x ",
        m.width, " are ", m.height * m.width);
}

Rle rle_encode(const Tensor& mask) {
  check(mask.defined() && mask.rank() == 2 && mask.dtype() == DType::uint8,
        "rle_encode: the mask must be uint8 (H,W)");
  const i64 height = mask.dim(0), width = mask.dim(1);
  detail::check_mask_size(height, width);
  Rle m{height, width, {}};
  const u8* p = mask.data<u8>();
  bool one = false;
  u32 run = 0;
  for (i64 x = 0; x < width; ++x)
    for (i64 y = 0; y < height; ++y, ++run)
      if ((p[y * width + x] != 0) != one) {
        m.counts.push_back(run);
        one = !one;
        run = 0;
      }
  m.counts.push_back(run);
  return m;
}

Tensor rle_decode(const Rle& m) {
  check_rle(m);
  Tensor mask = Tensor::zeros({m.height, m.width}, DType::uint8);
  u8* p = mask.data<u8>();
  detail::for_runs(m, [&](i64 begin, i64 end) {
    for (i64 x = begin / m.height, y = begin % m.height; begin < end; ++begin) {
      p[y * m.width + x] = 1;
      if (++y == m.height) y = 0, ++x;
    }
  });
  return mask;
}

std::string rle_string(const Rle& m) {
  std::string s;
  for (std::size_t i = 0; i < m.counts.size(); ++i) {
    i64 x = m.counts[i];
    if (i > 2) x -= m.counts[i - 2];
    for (bool more = true; more;) {
      i64 group = x & 31;
      x >>= 5;
      more = (group & 16) != 0 ? x != -1 : x != 0;
      if (more) group |= 32;
      s += static_cast<char>(group + 48);
    }
  }
  return s;
}

Rle rle_from_string(std::string_view text, i64 height, i64 width) {
  detail::check_mask_size(height, width);
  Rle m{height, width, {}};
  const i64 pixels = height * width;
  for (std::size_t at = 0; at < text.size();) {
    i64 x = 0;
    for (int shift = 0;; shift += 5) {
      check(at < text.size() && shift < 40,
            "mask: its text ends within a number, or a number is too long, at character ", at);
      const int group = static_cast<unsigned char>(text[at]) - 48;
      check(group >= 0 && group < 64, "mask: character ", at, " of its text has the code ",
            group + 48, "; 48 to 111 are used");
      ++at;
      x |= i64{group & 31} << shift;
      if ((group & 32) != 0) continue;
      if ((group & 16) != 0) x -= i64{1} << (shift + 5);
      break;
    }
    if (m.counts.size() > 2) x += m.counts[m.counts.size() - 2];
    check(x >= 0 && x <= pixels, "mask: a run of ", x, " pixels in ", height, " x ", width);
    m.counts.push_back(static_cast<u32>(x));
  }
  check_rle(m);
  return m;
}

i64 rle_area(const Rle& m) {
  i64 area = 0;
  for (std::size_t i = 1; i < m.counts.size(); i += 2) area += m.counts[i];
  return area;
}

CocoBox rle_box(const Rle& m) {
  i64 left = m.width, top = m.height, right = -1, bottom = -1;
  detail::for_runs(m, [&](i64 begin, i64 end) {
    const i64 x0 = begin / m.height, x1 = (end - 1) / m.height, y0 = begin % m.height,
              y1 = (end - 1) % m.height;
    left = std::min(left, x0), right = std::max(right, x1);
    top = std::min(top, x0 < x1 ? 0 : y0), bottom = std::max(bottom, x0 < x1 ? m.height - 1 : y1);
  });
  if (right < 0) return {0, 0, 0, 0};
  return {static_cast<double>(left), static_cast<double>(top),
          static_cast<double>(right - left + 1), static_cast<double>(bottom - top + 1)};
}

i64 rle_intersection(const Rle& a, const Rle& b) {
  check(a.height == b.height && a.width == b.width, "masks: one has ", a.height, " x ", a.width,
        " pixels, the other ", b.height, " x ", b.width);
  i64 both = 0, a_end = 0, b_end = 0, at = 0;
  std::size_t i = 0, j = 0;
  while (true) {
    while (a_end <= at && i < a.counts.size()) a_end += a.counts[i++];
    while (b_end <= at && j < b.counts.size()) b_end += b.counts[j++];
    const i64 end = std::min(a_end, b_end);
    if (end <= at) return both;
    if (i % 2 == 0 && j % 2 == 0) both += end - at;  // run i - 1 is one of ones
    at = end;
  }
}

double rle_iou(const Rle& detection, const Rle& truth, bool crowd) {
  const i64 both = rle_intersection(detection, truth), area = rle_area(detection);
  if (both == 0) return 0;
  return static_cast<double>(both) /
         static_cast<double>(crowd ? area : area + rle_area(truth) - both);
}

double box_iou(const CocoBox& detection, const CocoBox& truth, bool crowd) {
  const CocoBox &d = detection, &g = truth;
  const double w = std::min(d[0] + d[2], g[0] + g[2]) - std::max(d[0], g[0]);
  const double h = std::min(d[1] + d[3], g[1] + g[3]) - std::max(d[1], g[1]);
  if (!(w > 0) || !(h > 0)) return 0;
  const double both = detail::rounded_product(w, h), area = detail::rounded_product(d[2], d[3]);
  return both / (crowd ? area : area + detail::rounded_product(g[2], g[3]) - both);
}

Rle rle_union(const Rle& a, const Rle& b) {
  check(a.height == b.height && a.width == b.width, "masks: one has ", a.height, " x ", a.width,
        " pixels, the other ", b.height, " x ", b.width);
  std::vector<std::array<i64, 2>> runs;
  for (const Rle* m : {&a, &b})
    detail::for_runs(*m, [&](i64 begin, i64 end) { runs.push_back({begin, end}); });
  std::sort(runs.begin(), runs.end());
  std::vector<i64> changes;
  for (const auto& run : runs)
    if (!changes.empty() && run[0] <= changes.back())
      changes.back() = std::max(changes.back(), run[1]);
    else
      changes.insert(changes.end(), {run[0], run[1]});
  return detail::rle_from_changes(changes, a.height, a.width);
}

Rle rle_from_polygon(const std::vector<double>& xy, i64 height, i64 width) {
  detail::check_mask_size(height, width);
  check(xy.size() >= 6 && xy.size() % 2 == 0, "polygon: ", xy.size(),
        " numbers; at least three corners of two are needed");
  constexpr double farthest = 16777216;
  for (const double c : xy)
    check(std::abs(c) <= farthest, "polygon: the coordinate ", c, "; at most ", farthest,
          " pixels from 0 are drawn");
  const auto fifths = [&](std::size_t i) {
    return static_cast<i64>(detail::rounded_product(5, xy[i % xy.size()]) + 0.5);
  };
  i64 steps = 0;
  for (std::size_t i = 0; i < xy.size(); i += 2) {
    steps += std::max(std::abs(fifths(i) - fifths(i + 2)), std::abs(fifths(i + 1) - fifths(i + 3)));
    check(steps <= (i64{1} << 24), "polygon: its edges are longer than ", (i64{1} << 24) / 5,
          " pixels together");
  }
  std::vector<i64> changes;
  i64 u0 = 0, v0 = 0;  // where the walk was
  bool begun = false;
  const auto walk_to = [&](i64 u, i64 v) {
    const i64 left = std::min(u, u0);
    // (left + 0.5) / 5 - 0.5 is a column
    if (begun && u != u0 && left >= 2 && left % 5 == 2 && left / 5 < width) {
      const double y = (static_cast<double>(std::min(v, v0)) + 0.5) / 5 - 0.5;
      const i64 row = static_cast<i64>(std::ceil(std::clamp(y, 0.0, static_cast<double>(height))));
      changes.push_back(left / 5 * height + row);
    }
    begun = true, u0 = u, v0 = v;
  };
  for (std::size_t i = 0; i < xy.size(); i += 2) {
    i64 xs = fifths(i), ys = fifths(i + 1), xe = fifths(i + 2), ye = fifths(i + 3);
    const i64 dx = std::abs(xe - xs), dy = std::abs(ye - ys), length = std::max(dx, dy);
    // both directions pass the same points
    const bool flat = dx >= dy, backward = flat ? xs > xe : ys > ye;
    if (backward) std::swap(xs, xe), std::swap(ys, ye);
    const double slope =
        length == 0 ? 0
                    : static_cast<double>(flat ? ye - ys : xe - xs) / static_cast<double>(length);
    for (i64 d = 0; d <= length; ++d) {
      const i64 t = backward ? length - d : d;
      const double rise = detail::rounded_product(slope, static_cast<double>(t));
      // towards 0, as there
      const i64 across = static_cast<i64>(static_cast<double>(flat ? ys : xs) + rise + 0.5);
      flat ? walk_to(t + xs, across) : walk_to(across, t + ys);
    }
  }
  std::sort(changes.begin(), changes.end());
  return detail::rle_from_changes(changes, height, width);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
