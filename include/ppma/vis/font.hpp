#pragma once
#include "ppma/core/names_begin.hpp"
// A typeface of our own, drawn with strokes: any size is sharp and anti-aliased, and a letter is a
// line of text below.
//
// Units: capitals are 14 high, small letters 10, descenders reach -4; y points up from the
// baseline. A glyph is its width and its strokes, separated by ';'. A stroke is a list of points
// x,y joined by straight lines; after '~' the inner points are control points of a smooth curve
// between the ends (quadratic, through the middles, as in TrueType), and after 'o' of a closed one.
// To add a glyph: one line in detail::glyph_sources.

#include <string_view>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// clang-format on

struct Stroke {
  double x0, y0, x1, y1;
};

struct Glyph {
  double width = 8;
  std::vector<Stroke> strokes;
};

/// The glyph of a code point; a question mark's for one that the typeface lacks.
PPMA_API const Glyph& glyph(u32 code);

// The code points of UTF-8 text; a byte that is no part of a character becomes U+FFFD.
PPMA_API std::vector<u32> code_points(std::string_view text);

}  // namespace detail

inline constexpr double font_gap = 3.8;    // between glyphs, in font units
inline constexpr double font_height = 14;  // of capitals

/// Width of text in pixels whose capitals are `height` pixels high.
PPMA_API double text_width(std::string_view text, double height);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <cstdlib>
#include <map>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

struct GlyphSource {
  u32 code;
  double width;
  const char* strokes;
};

// clang-format off
inline constexpr GlyphSource glyph_sources[] = {
    {' ', 3, ""}, {'!', 0, "0,14 0,4.5;0,0 0,0.1"}, {'"', 3.6, "0,14 0,10.4;3.6,14 3.6,10.4"},
    {'#', 9, "3.4,14 1.4,0;7.8,14 5.8,0;0.4,9.5 9.2,9.5;0,4.5 8.8,4.5"},
    {'$', 8.6, "~8.2,11.2 7.2,13 0.4,13 0.4,7.3 8.8,6.7 8.8,1 1,1 0,3.2;4.4,15.4 4.4,-1.4"},
    {'%', 12, "o0,14 4.8,14 4.8,7.6 0,7.6;o7.2,6.4 12,6.4 12,0 7.2,0;10.6,14 1.4,0"},
    {'&', 10.4, "~10.4,0 7,3.6 0.4,10 1.6,14 6.8,14 7.6,9.4 0,7.4 0,0 8.6,0 9.8,6.6"},
    {'\'', 0, "0,14 0,10.4"}, {'(', 3, "~3,16 0,12 0,0 3,-3"}, {')', 3, "~0,16 3,12 3,0 0,-3"},
    {'*', 6, "3,14 3,7.4;0.2,12.4 5.8,9;5.8,12.4 0.2,9"}, {'+', 8, "0,6 8,6;4,10 4,2"},
    {',', 0.8, "0.8,0.4 0,-2.6"}, {'-', 4.6, "0,5.6 4.6,5.6"}, {'.', 0, "0,0 0,0.1"}, {'/', 5.6, "0,-1.6 5.6,15"},
    {'0', 8, "o0,14 8,14 8,0 0,0"}, {'1', 8, "1.4,11.2 4.8,14 4.8,0"},
    {'2', 8, "~0.4,10.8 0.8,14 7.6,14 7.8,9 0.2,0;0.2,0 8,0"},
    {'3', 8, "~0.4,11.8 1.2,14 7.4,14 7.4,7.6 3,7.5;~3,7.5 8,7.6 8,0 1,0 0,2.6"},
    {'4', 8, "6.2,0 6.2,14 0,4 8.4,4"}, {'5', 8, "7.2,14 1.2,14 0.6,7.4;~0.6,7.4 2,9 8,9.4 8,0 1,0 0,2.4"},
    {'6', 8, "o0,8.8 8,8.8 8,0 0,0;~6.8,14 0.2,11.4 0,4.4"}, {'7', 8, "0,14 8,14 2.8,0"},
    {'8', 8, "o0.6,14 7.4,14 7.4,7.4 0.6,7.4;o0,7.4 8,7.4 8,0 0,0"},
    {'9', 8, "o0,14 8,14 8,5.2 0,5.2;~1.2,0 7.8,2.6 8,9.6"},
    {':', 0, "0,8.4 0,8.5;0,0 0,0.1"}, {';', 0.8, "0.8,8.4 0.8,8.5;0.8,0.4 0,-2.6"},
    {'<', 7.6, "7.6,10.4 0,6 7.6,1.6"}, {'=', 8, "0,8 8,8;0,4 8,4"}, {'>', 7.6, "0,10.4 7.6,6 0,1.6"},
    {'?', 7, "~0,11.2 0.6,14 7,14 7,8.6 3.4,8 3.4,4.5;3.4,0 3.4,0.1"},
    {'@', 13, "o3.6,9 8.6,9 8.6,2 3.6,2;~8.8,9 8.2,1.6 13,1.2 13,12.4 0,12.4 0,-3 8.6,-3 10.6,-1.6"},
    {'A', 10.4, "0,0 5.2,14 10.4,0;1.8,4.8 8.6,4.8"},
    {'B', 8.6, "0,0 0,14;~0,14 4,14 8.2,14 8.2,7.4 4,7.4 0,7.4;~0,7.4 4.4,7.4 9,7.4 9,0 4.4,0 0,0"},
    {'C', 10, "~10,11 8.6,14 0,14 0,0 8.6,0 10,3"}, {'D', 9.8, "0,0 0,14;~0,14 3,14 10,14 10,0 3,0 0,0"},
    {'E', 7.6, "7.6,14 0,14 0,0 7.8,0;0,7.3 6.8,7.3"}, {'F', 7.2, "7.4,14 0,14 0,0;0,7 6.4,7"},
    {'G', 10.2, "~10,11.2 8.6,14 0,14 0,0 10.2,0 10.2,4 10.2,6.6;10.2,6.6 6,6.6"},
    {'H', 9.4, "0,14 0,0;9.4,14 9.4,0;0,7.2 9.4,7.2"}, {'I', 0, "0,14 0,0"}, {'J', 6, "~6,14 6,4.4 6,0 0.6,0 0,3"},
    {'K', 8.8, "0,14 0,0;8.6,14 0,5.4;3.2,8.6 9,0"}, {'L', 7.2, "0,14 0,0 7.2,0"},
    {'M', 11.6, "0,0 0,14 5.8,4.4 11.6,14 11.6,0"}, {'N', 9.6, "0,0 0,14 9.6,0 9.6,14"},
    {'O', 11.2, "o0,14 11.2,14 11.2,0 0,0"}, {'P', 8.4, "0,0 0,14;~0,14 4.4,14 8.6,14 8.6,6.4 4.4,6.4 0,6.4"},
    {'Q', 11.2, "o0,14 11.2,14 11.2,0 0,0;7,3.4 11.4,-1"},
    {'R', 8.8, "0,0 0,14;~0,14 4.4,14 8.6,14 8.6,6.6 4.4,6.6 0,6.6;4.8,6.6 9,0"},
    {'S', 8.6, "~8.2,11.6 7.2,14 0.4,14 0.4,7.6 8.8,7 8.8,0 1,0 0,2.6"}, {'T', 9.4, "0,14 9.4,14;4.7,14 4.7,0"},
    {'U', 9.2, "~0,14 0,5 0,0 9.2,0 9.2,5 9.2,14"}, {'V', 10, "0,14 5,0 10,14"},
    {'W', 14, "0,14 3.6,0 7,13 10.4,0 14,14"}, {'X', 9.2, "0,14 9.2,0;9.2,14 0,0"},
    {'Y', 9.4, "0,14 4.7,6.6 9.4,14;4.7,6.6 4.7,0"}, {'Z', 8.8, "0.2,14 8.6,14 0,0 8.8,0"},
    {'[', 2.8, "2.8,16 0,16 0,-3 2.8,-3"}, {'\\', 5.6, "0,15 5.6,-1.6"}, {']', 2.8, "0,16 2.8,16 2.8,-3 0,-3"},
    {'^', 6.4, "0,9 3.2,14 6.4,9"}, {'_', 7, "0,-2 7,-2"}, {'`', 2, "0,14 2,11.6"},
    {'a', 7.6, "~0.8,8.4 1.6,10 7.6,10 7.6,6 7.6,0;~7.6,5.8 4,5.8 0,5.8 0,0 6,0 7.6,3.4"},
    {'b', 8, "0,14 0,0;o0,10 8,10 8,0 0,0"}, {'c', 7.2, "~7.4,8.2 6.2,10 0,10 0,0 6.2,0 7.4,1.8"},
    {'d', 8, "8,14 8,0;o0,10 8,10 8,0 0,0"}, {'e', 8, "0.1,5.2 8,5.2;~8,5.2 8,10 0,10 0,0 6.6,0 7.6,1.9"},
    {'f', 4.6, "~5.2,13.9 1.8,14.8 1.8,10 1.8,0;0,9.7 4.8,9.7"},
    {'g', 8, "o0,10 8,10 8,0 0,0;~8,10 8,0 8,-4.4 2,-4.4 0.8,-2.8"},
    {'h', 7.6, "0,14 0,0;~0,5.4 0,10 7.6,10 7.6,6 7.6,0"}, {'i', 0, "0,10 0,0;0,13.8 0,13.9"},
    {'j', 2.4, "~2.4,10 2.4,0 2.4,-4.4 0,-3.9;2.4,13.8 2.4,13.9"}, {'k', 7.2, "0,14 0,0;7,10 0,4;2.8,6.3 7.4,0"},
    {'l', 1.8, "~0,14 0,3 0,0 2.2,0.1"}, {'m', 12, "0,10 0,0;~0,5.4 0,10 6,10 6,6 6,0;~6,5.4 6,10 12,10 12,6 12,0"},
    {'n', 7.6, "0,10 0,0;~0,5.4 0,10 7.6,10 7.6,6 7.6,0"}, {'o', 8.2, "o0,10 8.2,10 8.2,0 0,0"},
    {'p', 8, "0,10 0,-4;o0,10 8,10 8,0 0,0"}, {'q', 8, "8,10 8,-4;o0,10 8,10 8,0 0,0"},
    {'r', 4.4, "0,10 0,0;~0,4.8 0,10 4.6,9.8"},
    {'s', 6.6, "~6.4,8.4 5.6,10 0.2,10 0.2,5.4 6.8,5 6.8,0 1,0 0,1.8"},
    {'t', 4.8, "~1.9,13 1.9,3.5 1.9,0 5,0.2;0,9.7 4.8,9.7"},
    {'u', 7.6, "~0,10 0,4 0,0 7.6,0 7.6,4.6;7.6,10 7.6,0"}, {'v', 7.8, "0,10 3.9,0 7.8,10"},
    {'w', 11.8, "0,10 2.9,0 5.9,9.4 8.9,0 11.8,10"}, {'x', 7.2, "0,10 7.2,0;7.2,10 0,0"},
    {'y', 7.8, "0,10 3.9,0.3;~7.8,10 3.9,0.3 2.4,-4.4 0,-3.9"}, {'z', 7, "0.2,10 6.8,10 0,0 7,0"},
    {'{', 4, "~4,16 1.6,16 1.6,6.5 0,6.5;~4,-3 1.6,-3 1.6,6.5 0,6.5"}, {'|', 0, "0,16 0,-3"},
    {'}', 4, "~0,16 2.4,16 2.4,6.5 4,6.5;~0,-3 2.4,-3 2.4,6.5 4,6.5"}, {'~', 8, "~0,5 1.4,8.4 6.6,3.6 8,7"},
    // plus or minus
    {0xb1, 8, "0,7.4 8,7.4;4,11.4 4,3.4;0,0.4 8,0.4"},
    // centred dot
    {0xb7, 0, "0,6 0,6.1"},
    // times
    {0xd7, 6.4, "0,9 6.4,2.6;0,2.6 6.4,9"},
    // alpha
    {0x3b1, 8.6, "~8.4,10 6.8,0 0,0 0,10 6.8,10 8.8,0"},
    // beta
    {0x3b2, 8, "~0,-4 0,8 0,14 7,14 7,7.6 2.8,7.6;~2.8,7.6 8,7.6 8,0 4,0 0,1.4"},
    // lambda
    {0x3bb, 8, "~0.6,14 3,13.6 8,0;4.4,8 0,0"},
    // dash, minus
    {0x2013, 7.6, "0,5.6 7.6,5.6"}, {0x2212, 8, "0,6 8,6"},
    // nabla
    {0x2207, 10.4, "0,14 10.4,14 5.2,0 0,14"},
};

inline Glyph make_glyph(const GlyphSource& source) {
  Glyph g;
  g.width = source.width;
  std::vector<double> x, y;
  char kind = ' ';
  const auto finish = [&] {
    const std::size_t n = x.size();
    const auto line = [&](double ax, double ay, double bx, double by) { g.strokes.push_back({ax, ay, bx, by}); };
    const auto curve = [&](double ax, double ay, double cx, double cy, double bx, double by) {
      constexpr int pieces = 8;
      double px = ax, py = ay;
      for (int i = 1; i <= pieces; ++i) {
        const double t = static_cast<double>(i) / pieces, s = 1 - t;
        const double qx = s * s * ax + 2 * s * t * cx + t * t * bx, qy = s * s * ay + 2 * s * t * cy + t * t * by;
        line(px, py, qx, qy);
        px = qx, py = qy;
      }
    };
    if (kind == 'o') {
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t a = (i + n - 1) % n, b = (i + 1) % n;
        curve((x[a] + x[i]) / 2, (y[a] + y[i]) / 2, x[i], y[i], (x[i] + x[b]) / 2, (y[i] + y[b]) / 2);
      }
    } else if (kind == '~') {
      for (std::size_t i = 1; i + 1 < n; ++i) {
        const bool first = i == 1, last = i + 2 == n;
        curve(first ? x[0] : (x[i - 1] + x[i]) / 2, first ? y[0] : (y[i - 1] + y[i]) / 2, x[i], y[i],
              last ? x[n - 1] : (x[i] + x[i + 1]) / 2, last ? y[n - 1] : (y[i] + y[i + 1]) / 2);
      }
    } else {
      for (std::size_t i = 0; i + 1 < n; ++i) line(x[i], y[i], x[i + 1], y[i + 1]);
    }
    x.clear(), y.clear();
    kind = ' ';
  };
  for (const char* s = source.strokes; *s != '\0';) {
    if (*s == ';') finish(), ++s;
    else if (*s == 'o' || *s == '~') kind = *s++;
    else if (*s == ' ') ++s;
    else {
      char* next = nullptr;
      x.push_back(std::strtod(s, &next));
      y.push_back(std::strtod(next + 1, &next));
      s = next;
    }
  }
  finish();
  return g;
}

const Glyph& glyph(u32 code) {
  static const std::map<u32, Glyph> glyphs = [] {
    std::map<u32, Glyph> all;
    for (const GlyphSource& s : glyph_sources) all[s.code] = make_glyph(s);
    return all;
  }();
  const auto it = glyphs.find(code);
  return it != glyphs.end() ? it->second : glyphs.find('?')->second;
}

std::vector<u32> code_points(std::string_view text) {
  std::vector<u32> codes;
  for (std::size_t i = 0; i < text.size();) {
    const u8 first = static_cast<u8>(text[i++]);
    const std::size_t more = first < 0x80   ? 0
                             : first < 0xc2 ? 9
                             : first < 0xe0 ? 1
                             : first < 0xf0 ? 2
                             : first < 0xf5 ? 3
                                            : 9;
    u32 code = more == 0 ? first : first & (0x3fu >> more);
    if (more == 9 || more > text.size() - i) code = 0xfffd;
    for (std::size_t k = 0; k < more && code != 0xfffd; ++k) {
      const u8 next = static_cast<u8>(text[i + k]);
      code = (next & 0xc0) == 0x80 ? code << 6 | (next & 0x3fu) : 0xfffd;
    }
    if (code != 0xfffd) i += more;
    codes.push_back(code);
  }
  return codes;
}

}  // namespace detail

double text_width(std::string_view text, double height) {
  double units = 0;
  for (const u32 code : detail::code_points(text)) units += detail::glyph(code).width + font_gap;
  return units > 0 ? (units - font_gap) * height / font_height : 0;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
