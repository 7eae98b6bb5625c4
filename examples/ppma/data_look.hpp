#pragma once
// A look at the images of a set, as text and as JSON.

#include "common.hpp"
#include "ppma/commands/data_look.hpp"

namespace tool {

inline std::string size_text(const SetLook& l) {
  if (l.readable == 0) return "";
  if (l.heights.least == l.heights.most && l.widths.least == l.widths.most)
    return str(", all of ", l.widths.most, " x ", l.heights.most, " pixels");
  const auto text = [](const SizeSpread& s) {
    return s.least == s.most ? str(s.least)
                             : str(s.least, " to ", s.most, " (median ", s.median, ")");
  };
  return str(", width ", text(l.widths), ", height ", text(l.heights), " pixels");
}

inline void print_part(const SetPart& part, const SetLook& look) {
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

inline Json json_of(const SetPart& part, const SetLook& look) {
  Json classes = Json::array();
  for (std::size_t c = 0; c < part.classes.size(); ++c) {
    Json one{{"name", shown_name(part.classes[c])}, {"images", look.images[c]}};
    if (!part.unit.empty()) one[part.unit] = look.counts[c];
    classes.push_back(one);
  }
  Json broken = Json::array();
  for (const std::string& b : look.broken) broken.push_back(shown(b));
  const auto spread = [](const SizeSpread& s) {
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

}  // namespace tool
