#pragma once
#include "ppma/core/names_begin.hpp"
// Numbers of commands: their limits, as text, rounded; names as text.

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

// Limits that several commands have.
constexpr i64 least_size = 32, most_size = 16384;  // pixels: five halvings of the network; memory
constexpr i64 most_batch = 65536, most_epochs = 1000000;
constexpr i64 most_images = 10000000;  // generated ones: their order is kept in memory

/// The number that all of `text` is; false where it is none, is not finite or does not fit into T.
template <class T>
bool parse_number(const std::string& text, T& into) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0])) != 0) return false;
  char* end = nullptr;
  errno = 0;
  if constexpr (std::is_floating_point_v<T>) {
    const double value = std::strtod(text.c_str(), &end);
    if (!is_finite(value)) return false;
    into = static_cast<T>(value);
  } else if constexpr (std::is_unsigned_v<T>) {
    if (text[0] == '-') return false;
    into = static_cast<T>(std::strtoull(text.c_str(), &end, 0));
  } else {
    into = static_cast<T>(std::strtoll(text.c_str(), &end, 0));
  }
  if (std::is_integral_v<T> && errno != 0) return false;
  return end == text.c_str() + text.size();
}

/// 3.14159265 -> 3.142: figures for people and for JSON.
inline double rounded(double x, double step) { return std::round(x / step) * step; }

/// Bytes in MiB.
inline double mib(i64 bytes) { return static_cast<double>(bytes) / 1048576.0; }

namespace detail {

/// 0.41234 -> "0.41".
inline std::string decimal(double value, int decimals) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

/// 0.94123 -> "94.1"; NaN -> "-".
inline std::string percent(double share, int decimals) {
  return is_nan(share) ? "-" : decimal(100 * share, decimals);
}

/// 75 -> "1:15", 3725 -> "1:02:05".
inline std::string clock_text(double seconds) {
  const i64 s = static_cast<i64>(seconds + 0.5);
  char text[40];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(s / 3600),
                  static_cast<long long>(s / 60 % 60), static_cast<long long>(s % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(s / 60),
                  static_cast<long long>(s % 60));
  return text;
}

/// Names as a terminal may show them.
inline std::vector<std::string> printable_names(std::vector<std::string> names) {
  for (std::string& name : names) name = printable(name, name.size());
  return names;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
