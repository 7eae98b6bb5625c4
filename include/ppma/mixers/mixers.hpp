#pragma once
#include "ppma/core/names_begin.hpp"
// The table of token mixers beside polyline path masked attention. Its lines are in mixers/all.hpp,
// which the compiled library has; a header-only program that wants them includes it, and the others
// need not read it.

#include <string>
#include <vector>

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

/// A row of the table.
struct MixerKind {
  const char* name;    // in configurations and options
  const char* source;  // the paper
  Mixer (*make)(const MixerConfig& c, Rng& rng);
};

/// All of them; none in a header-only program without mixers/all.hpp.
PPMA_API const std::vector<MixerKind>& mixers();

/// A row by name. Error: there is none, and which there are.
PPMA_API const MixerKind& mixer_of(const std::string& name);

namespace detail {

PPMA_API std::vector<MixerKind>& mixer_table();

// "there are" and the names, behind what somebody may have meant by `name`.
PPMA_API std::string other_mixers(const std::string& name, const std::vector<std::string>& known);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/core/closest.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<MixerKind>& detail::mixer_table() {
  static std::vector<MixerKind> table;
  return table;
}

const std::vector<MixerKind>& mixers() { return detail::mixer_table(); }

std::string detail::other_mixers(const std::string& name, const std::vector<std::string>& known) {
  std::string list;
  for (const std::string& other : known) list += (list.empty() ? "" : ", ") + other;
  const std::string meant = closest(name, known);
  return str(meant.empty() ? "" : str("did you mean \"", meant, "\"? "), "there are ", list,
             mixers().empty() ? " (header-only, a program includes ppma/mixers/all.hpp)" : "");
}

const MixerKind& mixer_of(const std::string& name) {
  std::vector<std::string> known;
  for (const MixerKind& kind : mixers()) {
    if (name == kind.name) return kind;
    known.push_back(kind.name);
  }
  fail("mixer: there is no \"", name, "\"; ", detail::other_mixers(name, known));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
