#pragma once
#include "ppma/core/names_begin.hpp"
// Which known word somebody meant who wrote another one, for messages.

#include <string>
#include <string_view>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// The word of `known` from which the fewest letters of `word` differ (exchanged, left out, added,
/// or two neighbours in the other order), the first of several; "" where it is a third or more.
PPMA_API std::string closest(std::string_view word, const std::vector<std::string>& known);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#include <algorithm>
#include <cstddef>

namespace ppma::inline PPMA_ABI {

namespace detail {

// Damerau's and Levenshtein's distance, without a change between two exchanged neighbours.
inline std::size_t letters_apart(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      const std::size_t other = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + other});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace detail

std::string closest(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t longest = 64;  // of a word that somebody may have misspelt
  std::string best;
  std::size_t least = (word.size() + 2) / 3;  // fewer must differ
  for (const std::string& k : known) {
    if (word.size() > longest || k.size() > longest) continue;
    const std::size_t apart = detail::letters_apart(word, k);
    if (apart < least) least = apart, best = k;
  }
  return best;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
