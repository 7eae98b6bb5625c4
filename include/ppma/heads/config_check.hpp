#pragma once
#include "ppma/core/names_begin.hpp"
// Checks of the heads' configurations, by the keys that the values have as JSON.

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI::detail {

PPMA_API void check_positive(const char* key, double value);

/// The default for `most` is far above what any published network has.
PPMA_API void check_positive(const char* key, i64 value, i64 most = 65536);

template <class List>
void check_all_positive(const char* key, const List& values) {
  check(values.begin() != values.end(), "config: ", key, " is empty");
  for (const auto& v : values) check_positive(key, v);
}

/// A probability, an overlap, a share.
PPMA_API void check_fraction(const char* key, double value);

PPMA_API void check_dropout(const char* key, double value);
PPMA_API void check_not_negative(const char* key, double value);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI::detail {

void check_positive(const char* key, double value) {
  check(value > 0 && is_finite(value), "config: ", key, " is ", value, "; it must be positive");
}

void check_positive(const char* key, i64 value, i64 most) {
  check(value > 0, "config: ", key, " is ", value, "; it must be positive");
  check(value <= most, "config: ", key, " is ", value, "; it must be at most ", most);
}

void check_fraction(const char* key, double value) {
  check(value >= 0 && value <= 1, "config: ", key, " is ", value, "; it must be between 0 and 1");
}

void check_dropout(const char* key, double value) {
  check(value >= 0 && value < 1, "config: ", key, " is ", value,
        "; it must be at least 0 and less than 1");
}

void check_not_negative(const char* key, double value) {
  check(value >= 0, "config: ", key, " is ", value, "; it must not be negative");
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
