#pragma once
// A look at every image of a set: how many of each class, which sizes, what cannot be read; as
// text, as JSON and as a sheet of samples.

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/vis/panels.hpp"

namespace tool {

/// What one image was seen to be.
struct ImageFacts {
  i64 height = 0, width = 0;
  std::vector<std::pair<i64, i64>> counts{};  // class; images (1), objects or pixels of it
  std::string wrong{};                        // why there is nothing of the above
};

/// A part of a set, not looked at yet: its images are read by see() and picture().
struct Part {
  std::string name;  // "train"; "": the set has one part
  std::vector<std::string> classes{};
  std::string unit{};  // what is counted in an image: "objects", "pixels"; "": images
  i64 size = 0;
  std::string left_out{};
  std::vector<std::string> broken{};  // that was found without looking at images
  bool all_classes = true;            // a class that does not occur is broken
  std::function<ImageFacts(i64)> see{};
  std::function<Tensor(i64)> picture{};  // with what is in it drawn into it, where unit is not ""
};

/// The least, the median and the most of some numbers; zeros of none.
struct Spread {
  i64 least = 0, median = 0, most = 0;

  explicit Spread(std::vector<i64> all) {
    if (all.empty()) return;
    std::sort(all.begin(), all.end());
    least = all.front(), median = all[all.size() / 2], most = all.back();
  }
};

/// What the images of a part were seen to be.
struct Look {
  std::vector<ImageFacts> seen;
  std::vector<i64> images, counts;  // of each class; counts by the part's unit
  i64 readable = 0;
  Spread heights{{}}, widths{{}};
  std::vector<std::string> broken;
};

/// Reads every image of a part, with all threads.
inline Look look_at(const Part& part) {
  Look look;
  look.seen.resize(static_cast<std::size_t>(part.size));
  parallel_for(part.size, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      ImageFacts& s = look.seen[static_cast<std::size_t>(i)];
      try {
        s = part.see(i);
      } catch (const std::exception& e) {
        s.wrong = e.what();
      }
    }
  });
  look.images.resize(part.classes.size()), look.counts.resize(part.classes.size());
  look.broken = part.broken;
  std::vector<i64> heights, widths;
  for (const ImageFacts& s : look.seen) {
    if (!s.wrong.empty()) {
      look.broken.push_back(s.wrong);
      continue;
    }
    heights.push_back(s.height), widths.push_back(s.width);
    for (const auto& [label, n] : s.counts) {
      ++look.images[static_cast<std::size_t>(label)];
      look.counts[static_cast<std::size_t>(label)] += n;
    }
  }
  look.readable = static_cast<i64>(heights.size());
  look.heights = Spread(std::move(heights)), look.widths = Spread(std::move(widths));
  for (const std::string& name : part.classes)
    if (!is_utf8(name))
      look.broken.push_back(
          str(part.name, part.name.empty() ? "" : ": ", "the class \"", name,
              "\" is not named in UTF-8, as a network's files name it; rename it"));
  for (std::size_t c = 0; part.all_classes && c < part.classes.size(); ++c)
    if (look.images[c] == 0)
      look.broken.push_back(str(part.name, part.name.empty() ? "" : ": ",
                                "no image has the class \"", part.classes[c], "\""));
  return look;
}

inline std::string size_text(const Look& l) {
  if (l.readable == 0) return "";
  if (l.heights.least == l.heights.most && l.widths.least == l.widths.most)
    return str(", all of ", l.widths.most, " x ", l.heights.most, " pixels");
  const auto text = [](const Spread& s) {
    return s.least == s.most ? str(s.least)
                             : str(s.least, " to ", s.most, " (median ", s.median, ")");
  };
  return str(", width ", text(l.widths), ", height ", text(l.heights), " pixels");
}

inline void print_part(const Part& part, const Look& look) {
  std::printf("%s%s%s %s%s\n", shown_name(part.name).c_str(), part.name.empty() ? "" : ": ",
              grouped_digits(part.size).c_str(), part.size == 1 ? "image" : "images",
              size_text(look).c_str());
  std::size_t width = 5;
  for (const std::string& name : part.classes) width = std::max(width, shown(name).size());
  i64 all = 0;
  for (const i64 n : look.counts) all += n;
  if (!part.classes.empty())
    std::printf("  %-*s %10s%s%s\n", static_cast<int>(width), "class", "images",
                part.unit.empty() ? "" : "    ", part.unit.c_str());
  for (std::size_t c = 0; c < part.classes.size(); ++c) {
    std::string counted;
    if (part.unit == "pixels" && all > 0) {
      char percent[32];
      std::snprintf(percent, sizeof percent, "%8.2f %%",
                    100 * static_cast<double>(look.counts[c]) / static_cast<double>(all));
      counted = percent;
    } else if (!part.unit.empty()) {
      counted = grouped_digits(look.counts[c]);
      counted.insert(0, counted.size() < 11 ? 11 - counted.size() : 0, ' ');
    }
    std::printf("  %-*s %10s%s\n", static_cast<int>(width), shown(part.classes[c]).c_str(),
                grouped_digits(look.images[c]).c_str(), counted.c_str());
  }
  if (!part.left_out.empty()) std::printf("  left out: %s\n", shown(part.left_out).c_str());
  for (const std::string& b : look.broken) std::printf("  broken: %s\n", shown(b).c_str());
}

inline Json json_of(const Part& part, const Look& look) {
  Json classes = Json::array();
  for (std::size_t c = 0; c < part.classes.size(); ++c) {
    Json one{{"name", shown_name(part.classes[c])}, {"images", look.images[c]}};
    if (!part.unit.empty()) one[part.unit] = look.counts[c];
    classes.push_back(one);
  }
  Json broken = Json::array();
  for (const std::string& b : look.broken) broken.push_back(shown(b));
  const auto spread = [](const Spread& s) {
    return Json{{"least", s.least}, {"median", s.median}, {"most", s.most}};
  };
  return {{"part", shown_name(part.name)},
          {"images", part.size},
          {"width", spread(look.widths)},
          {"height", spread(look.heights)},
          {"classes", classes},
          {"left_out", shown(part.left_out)},
          {"broken", broken}};
}

/// An image in the middle of a white square; a small one is enlarged by a whole factor.
inline Tensor in_square(const Tensor& image, i64 side) {
  const i64 H = image.dim(0), W = image.dim(1), longer = std::max(H, W), factor = side / longer;
  const auto fitted = [&](i64 n) { return std::max(i64{1}, n * side / longer); };
  const Tensor small = factor >= 2
                           ? resize_nearest(image, H * factor, W * factor)
                           : resize_antialiased(image, fitted(H), fitted(W), Filter::bicubic);
  Picture square(side, side);
  square.paste((side - small.dim(1)) / 2, (side - small.dim(0)) / 2, small);
  return square.image();
}

/// A name that is at most `width` pixels wide.
inline std::string fitting_title(const std::string& name, i64 width, double size) {
  std::string title = printable(name, 60), cut = title;
  while (text_width(title, size) > static_cast<double>(width) && !cut.empty()) {
    do cut.pop_back();
    while (!is_utf8(cut));
    title = cut + "...";
  }
  return title;
}

/// Samples with their labels: of up to ten classes six each, of more one each of up to 48; of
/// objects and pixels nine images. There must be one that can be read.
inline Tensor sample_sheet(const Part& part, const Look& look) {
  // images to choose from
  std::vector<std::vector<i64>> groups(part.unit.empty() ? part.classes.size() : 1);
  for (i64 i = 0; i < part.size; ++i)
    if (const ImageFacts& s = look.seen[static_cast<std::size_t>(i)]; s.wrong.empty())
      groups[part.unit.empty() ? static_cast<std::size_t>(s.counts[0].first) : 0].push_back(i);
  std::erase_if(groups, [](const std::vector<i64>& g) { return g.empty(); });
  const bool few = groups.size() <= 10;
  const std::size_t most_groups = std::min<std::size_t>(groups.size(), 48),
                    of_each = !part.unit.empty() ? 9
                              : few              ? 6
                                                 : 1,
                    columns = !part.unit.empty() ? 3
                              : few              ? 6
                                                 : 8;
  const i64 side = part.unit.empty() ? 112 : 320;
  std::vector<std::vector<Panel>> rows;
  for (std::size_t k = 0; k < most_groups; ++k) {
    const std::vector<i64>& g = groups[k * groups.size() / most_groups];
    const std::size_t n = std::min(of_each, g.size());
    if (few && part.unit.empty()) rows.emplace_back();  // a row for each class
    for (std::size_t i = 0; i < n; ++i) {
      const i64 index = g[i * g.size() / n];  // spread: neighbours are often alike
      const ImageFacts& s = look.seen[static_cast<std::size_t>(index)];
      std::string title;
      if (part.unit.empty()) {
        const std::string& name = part.classes[static_cast<std::size_t>(s.counts[0].first)];
        title = fitting_title(name, side, 10);
      }
      if (rows.empty() || rows.back().size() == columns) rows.emplace_back();
      rows.back().push_back(image_panel(title, in_square(part.picture(index), side)));
    }
  }
  return panels(rows, {.size = side}).image();
}

}  // namespace tool
