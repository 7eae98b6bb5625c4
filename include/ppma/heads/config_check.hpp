#pragma once
#include "ppma/core/names_begin.hpp"
// Checks of the heads' configurations, by the keys that the values have as JSON.

#include "ppma/core/error.hpp"
#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI::detail {

inline void check_positive(const char* key, double value) {
  check(value > 0 && is_finite(value), "config: ", key, " is ", value, "; it must be positive");
}
/// The default for `most` is far above what any published network has.
inline void check_positive(const char* key, i64 value, i64 most = 65536) {
  check(value > 0, "config: ", key, " is ", value, "; it must be positive");
  check(value <= most, "config: ", key, " is ", value, "; it must be at most ", most);
}
template <class List>
void check_all_positive(const char* key, const List& values) {
  check(values.begin() != values.end(), "config: ", key, " is empty");
  for (const auto& v : values) check_positive(key, v);
}
/// A probability, an overlap, a share.
inline void check_fraction(const char* key, double value) {
  check(value >= 0 && value <= 1, "config: ", key, " is ", value, "; it must be between 0 and 1");
}
inline void check_dropout(const char* key, double value) {
  check(value >= 0 && value < 1, "config: ", key, " is ", value, "; it must be at least 0 and less than 1");
}
inline void check_not_negative(const char* key, double value) {
  check(value >= 0, "config: ", key, " is ", value, "; it must not be negative");
}

}  // namespace ppma::inline PPMA_ABI::detail

#include "ppma/core/names_end.hpp"
