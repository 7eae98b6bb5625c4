#pragma once
#include "ppma/core/names_begin.hpp"
// A confusion matrix as a picture: a row for each class, what its images are taken for in columns.
// Right ones are green, mistakes red, the stronger the larger their share of the row; the scale is
// a square root, so that few mistakes are seen too.

#include <string>
#include <vector>

#include "ppma/metrics/confusion.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

struct ConfusionOptions {
  std::string title{};
  i64 size = 760;       // pixels of the matrix's side, about: cells are whole pixels
  bool pixels = false;  // what was counted are pixels: cells say percents of their row
};

/// Names of the classes in their order; of many classes as many names as there is room for. Counts
/// are written where there is room too, with recall at the right and precision below. Errors: not a
/// name for each class; more than 4000 classes.
PPMA_API Picture confusion_picture(const Confusion& confusion,
                                   const std::vector<std::string>& names,
                                   const ConfusionOptions& options = {});

namespace detail {

/// "a very long nam..": at most so many letters.
PPMA_API std::string shortened(const std::string& name, std::size_t most);

/// What a cell says: its count, or its percents of the row; "" where that is 0.
PPMA_API std::string cell_text(i64 count, double share, bool pixels);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace ppma::inline PPMA_ABI {

namespace detail {

std::string shortened(const std::string& name, std::size_t most) {
  if (code_points(name).size() <= most) return name;
  std::size_t bytes = 0;
  for (std::size_t letters = 0; bytes < name.size(); ++bytes)
    if ((static_cast<u8>(name[bytes]) & 0xc0) != 0x80 && letters++ == most - 2) break;
  return name.substr(0, bytes) + "..";
}

/// 0.9412 -> "94", NaN -> "-".
inline std::string percent_text(double share) {
  return is_nan(share) ? "-" : std::to_string(static_cast<i64>(std::lround(100 * share)));
}

std::string cell_text(i64 count, double share, bool pixels) {
  if (!pixels) return std::to_string(count);
  const std::string percent = percent_text(share);
  return percent == "0" ? "" : percent;
}

inline Color confusion_color(double share, bool right) {
  const double strength = std::sqrt(share);
  return right ? color_of(ColorMap::greens, 0.05 + 0.8 * strength)
               : color_of(ColorMap::red_blue, 0.44 - 0.36 * strength);
}

}  // namespace detail

Picture confusion_picture(const Confusion& confusion, const std::vector<std::string>& names,
                          const ConfusionOptions& options) {
  const i64 n = confusion.classes();
  check(static_cast<i64>(names.size()) == n, "confusion_picture: ", names.size(), " names for ", n,
        " classes");
  check(n <= 4000, "confusion_picture: ", n, " classes are too many to be seen; at most 4000");
  const i64 cell = std::clamp(options.size / n, i64{1}, i64{64}), side = n * cell;
  const double size = static_cast<double>(cell);
  const bool counted = cell >= 26;
  const double label_size = std::clamp(size * 0.36, 6.5, 10.0), number_size = label_size * 0.85;
  // A name needs a line of its own.
  const i64 every = std::max(i64{1}, static_cast<i64>(std::ceil(1.9 * label_size / size)));
  std::vector<std::string> shown;
  double longest = 0;
  for (const std::string& name : names) {
    shown.push_back(detail::shortened(name, 22));
    longest = std::max(longest, text_width(shown.back(), label_size));
  }
  const double left = 52 + longest, head = options.title.empty() ? 34 : 70,
               top = head + longest + 22, right = left + static_cast<double>(side),
               bottom = top + static_cast<double>(side);
  const double figures = counted ? 58 : 24, scale_top = bottom + (counted ? 46 : 24),
               height = scale_top + 44;
  Picture sheet(static_cast<i64>(std::max(right + figures, left + 380)), static_cast<i64>(height));
  if (!options.title.empty()) sheet.text(24, 34, options.title, 12);
  sheet.text(left, head, "taken for", label_size, pale_ink);
  sheet.text_upwards(24, (top + bottom) / 2,
                     options.pixels ? "class of the pixels" : "class of the image", label_size,
                     pale_ink);

  const auto at = [&](i64 k) { return static_cast<double>(k) * size; };
  sheet.fill(left, top, right, bottom, {247, 247, 245});
  for (const auto& [pair, images] : confusion.counts()) {
    const auto [label, predicted] = pair;
    const double share =
        static_cast<double>(images) / static_cast<double>(confusion.of_class(label).images);
    const double x = left + at(predicted), y = top + at(label);
    const Color color = detail::confusion_color(share, label == predicted);
    const double gap = cell >= 10 ? 0.5 : 0;
    sheet.fill(x + gap, y + gap, x + size - gap, y + size - gap, color);
    if (const std::string count = detail::cell_text(images, share, options.pixels);
        counted && text_width(count, number_size) < size - 4)
      sheet.text(x + size / 2, y + (size + number_size) / 2, count, number_size,
                 color[0] + color[1] + color[2] < 360 ? paper_white : ink, Align::center);
  }
  for (i64 k = 0; k < n; k += every) {
    const auto i = static_cast<std::size_t>(k);
    const double y = top + at(k) + size / 2, x = left + at(k) + size / 2;
    sheet.text(left - 10, y + label_size / 2, shown[i], label_size, ink, Align::right);
    sheet.text_upwards(x + label_size / 2, top - 10 - text_width(shown[i], label_size) / 2,
                       shown[i], label_size);
    if (every > 1) {  // which of the rows it is
      sheet.fill(left - 6, y - 0.5, left - 1, y + 0.5, pale_ink);
      sheet.fill(x - 0.5, top - 6, x + 0.5, top - 1, pale_ink);
    }
  }
  if (counted) {
    for (i64 k = 0; k < n; ++k) {
      const ClassFigures& c = confusion.of_class(k);
      sheet.text(right + 30, top + at(k) + (size + number_size) / 2,
                 detail::percent_text(c.recall()), number_size, pale_ink, Align::right);
      sheet.text(left + at(k) + size / 2, bottom + 10 + number_size,
                 detail::percent_text(c.precision()), number_size, pale_ink, Align::center);
    }
    sheet.text(right + 8, top - 10, "recall %", number_size, pale_ink);
    sheet.text(left - 10, bottom + 10 + number_size, "precision %", number_size, pale_ink,
               Align::right);
  }
  // What the colours say.
  double x = left;
  for (const bool good : {true, false}) {
    const char* const word = good ? "right" : "mistaken";
    sheet.text(x, scale_top + 14, word, number_size, pale_ink);
    x += text_width(word, number_size) + 8;
    for (const double share : {0.01, 0.1, 0.5, 1.0}) {
      sheet.fill(x, scale_top, x + 22, scale_top + 16, detail::confusion_color(share, good));
      sheet.text(x + 11, scale_top + 31, detail::percent_text(share), 7, pale_ink, Align::center);
      x += 23;
    }
    sheet.text(x + 5, scale_top + 31, "%", 7, pale_ink);
    x += 26;
  }
  return sheet;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
