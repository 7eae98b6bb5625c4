#pragma once
#include "ppma/core/names_begin.hpp"
// A configuration names each of its values once, with the numbers that it may be:
//
//   struct FcnConfig {
//     i64 channels = 256;
//     double dropout_ratio = 0.1;
//     template <class Config, class F>
//     static void fields(Config& c, F f) {
//       f("channels", c.channels, counts());
//       f("dropout_ratio", c.dropout_ratio, Limits::below(1));
//     }
//   };
//
// and has from it checks (check_fields), JSON (io/json_fields.hpp) and, with a fourth argument of
// help, a program's options (examples/ppma/options.hpp). What is no number has no limits; of a list
// the limits are for each entry.

#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// The finite numbers from `least` to `most`, and those of `also`, which mean something of their
/// own.
struct Limits {
  static constexpr double endless = std::numeric_limits<double>::infinity();

  double least, most;
  std::vector<double> also{};
  bool without_least = false, without_most = false;
  bool or_none = false;  // a list may be empty

  /// Above 0, up to `most`.
  static Limits positive(double most = endless) { return {0, most, {}, true, false}; }
  /// From `least` on.
  static Limits at_least(double least) { return {least, endless}; }
  /// From 0, without `most`.
  static Limits below(double most) { return {0, most, {}, false, true}; }

  /// Whether the value lies within, or is one of those allowed besides.
  PPMA_API bool holds(double value) const;
  /// What a value must be: "1 to 100", "0, or 32 to 512", "positive", "at least 0 and less than 1".
  PPMA_API std::string text() const;
};

/// Whole numbers of something that is there. The default is far above what any published network
/// has.
inline Limits counts(i64 most = 65536) { return {1, static_cast<double>(most)}; }
/// A probability, an overlap, a share.
inline Limits fraction() { return {0, 1}; }

namespace detail {

PPMA_API void check_value(const std::string& where, const std::string& key, double value,
                          const Limits& limits);

template <class T>
constexpr bool is_number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

struct CheckFields {
  const std::string& where;

  template <class T, class... Help>
  void operator()(const char* key, const T& value, const Limits& limits, const Help&...) const {
    if constexpr (is_number<T>) {
      check_value(where, key, static_cast<double>(value), limits);
    } else {
      check(limits.or_none || value.begin() != value.end(), where, ": ", key, " is empty");
      std::size_t i = 0;
      for (const auto& entry : value)
        check_value(where, str(key, "[", i++, "]"), static_cast<double>(entry), limits);
    }
  }
  template <class... Other>
  void operator()(const char*, const Other&...) const {}  // no limits
};

}  // namespace detail

/// Error: the first value of a configuration outside of its limits, by its name.
template <class Config>
void check_fields(const Config& c, const std::string& where = "config") {
  Config::fields(c, detail::CheckFields{where});
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#include <algorithm>
#include <cmath>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

bool Limits::holds(double value) const {
  if (!is_finite(value)) return false;
  if (std::find(also.begin(), also.end(), value) != also.end()) return true;
  return (without_least ? value > least : value >= least) &&
         (without_most ? value < most : value <= most);
}

std::string Limits::text() const {
  const auto number = [](double x) {
    const bool whole = std::fabs(x) < 1e15 && x == std::floor(x);
    return whole ? str(static_cast<i64>(x)) : str(x);
  };
  std::string s;
  for (const double other : also) s += number(other) + ", or ";
  if (is_finite(most) && !without_least && !without_most)
    return s + number(least) + " to " + number(most);
  s += !without_least ? "at least " + number(least)
       : least == 0   ? "positive"
                      : "above " + number(least);
  if (!is_finite(most)) return s;
  return s + (without_most ? " and less than " : " and at most ") + number(most);
}

void detail::check_value(const std::string& where, const std::string& key, double value,
                         const Limits& limits) {
  check(limits.holds(value), where, ": ", key, " is ", value, "; it must be ", limits.text());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
