#pragma once
#include "ppma/core/names_begin.hpp"
// Which samples of a set an epoch sees: a share of the set, the same for a seed, and orders in
// which every class comes equally often.

#include <vector>

#include "ppma/data/dataset.hpp"

namespace ppma::inline PPMA_ABI {

/// `share` (0 to 1) of the numbers 0 .. size - 1, at least one, in their order. The same for a
/// seed, and a part of what a larger share has.
PPMA_API std::vector<i64> share_of(i64 size, double share, u64 seed);

/// The same of each class of a set, at least one sample of each that has any. Where labels are not
/// known without loading (Dataset::label), of the set as a whole.
PPMA_API std::vector<i64> share_of(const Dataset& set, double share, u64 seed);

/// The samples `which` of a set (Dataset, SegmentationSet, DetectionSet), in that order. Error: a
/// number that it does not have.
template <class Set>
Set chosen(Set set, std::vector<i64> which) {
  for (const i64 i : which)
    check(i >= 0 && i < set.size, set.name, ": sample ", i, " of ", set.size, " asked for");
  set.size = static_cast<i64>(which.size());
  if constexpr (requires { set.wide; }) {
    const std::vector<bool> all = set.wide;
    set.wide.clear();
    for (const i64 i : which) set.wide.push_back(all[static_cast<std::size_t>(i)]);
  }
  const auto map = [which = std::move(which)](auto f) {
    return [which, f = std::move(f)](i64 i) { return f(which[static_cast<std::size_t>(i)]); };
  };
  if constexpr (requires { set.label; })
    if (set.label) set.label = map(std::move(set.label));
  set.load = map(std::move(set.load));
  return set;
}

/// The class of each sample; loads all samples where they are not known otherwise.
PPMA_API std::vector<i64> labels_of(const Dataset& set);

/// As many samples as there are labels, every class equally often (up to one): a class of few
/// samples gives each of them several times, one of many gives others in the next epoch. Classes
/// without samples are left out.
PPMA_API std::vector<i64> balanced_order(const std::vector<i64>& labels, i64 epoch, u64 seed);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <map>

#include "ppma/core/parallel.hpp"
#include "ppma/core/random.hpp"
#include "ppma/data/batch_stream.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::vector<i64> shuffled(std::vector<i64> items, Rng rng) {
  for (std::size_t i = items.size(); i-- > 1;)  // Fisher and Yates
    std::swap(items[i], items[static_cast<std::size_t>(rng.below(static_cast<i64>(i) + 1))]);
  return items;
}

inline i64 share_count(i64 size, double share) {
  check(share > 0 && share <= 1, "a share of a set is more than 0 and at most 1, not ", share);
  return std::clamp<i64>(std::llround(share * static_cast<double>(size)), 1, size);
}

/// The samples of each class.
inline std::map<i64, std::vector<i64>> by_class(const std::vector<i64>& labels) {
  std::map<i64, std::vector<i64>> classes;
  for (std::size_t i = 0; i < labels.size(); ++i) classes[labels[i]].push_back(static_cast<i64>(i));
  return classes;
}

}  // namespace detail

std::vector<i64> share_of(i64 size, double share, u64 seed) {
  std::vector<i64> all = epoch_order(size, 0, seed, true);
  all.resize(static_cast<std::size_t>(detail::share_count(size, share)));
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<i64> share_of(const Dataset& set, double share, u64 seed) {
  if (!set.label) return share_of(set.size, share, seed);
  std::vector<i64> all;
  for (const auto& [label, samples] : detail::by_class(labels_of(set)))
    for (const i64 i :
         share_of(static_cast<i64>(samples.size()), share, seed + static_cast<u64>(label)))
      all.push_back(samples[static_cast<std::size_t>(i)]);
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<i64> labels_of(const Dataset& set) {
  std::vector<i64> labels(static_cast<std::size_t>(set.size));
  if (set.label) {
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = set.label(static_cast<i64>(i));
    return labels;
  }
  parallel_for(set.size, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) labels[static_cast<std::size_t>(i)] = set.get(i).label;
  });
  return labels;
}

std::vector<i64> balanced_order(const std::vector<i64>& labels, i64 epoch, u64 seed) {
  const auto classes = detail::by_class(labels);
  const auto stream = [&](u64 purpose) {
    return Rng(seed, static_cast<u64>(epoch), purpose, 0xba1a);
  };
  // Which class each place has: rounds of all classes, the last of them cut.
  std::vector<i64> kinds, order;
  for (const auto& entry : classes) kinds.push_back(entry.first);
  std::vector<i64> places;
  for (u64 round = 0; places.size() < labels.size(); ++round)
    for (const i64 kind : detail::shuffled(kinds, stream(2 * round)))
      if (places.size() < labels.size()) places.push_back(kind);
  // The next sample of each class, of which the order is drawn again when it is used up.
  struct Turn {
    std::vector<i64> left;
    u64 drawn = 0;
  };
  std::map<i64, Turn> turns;
  for (const i64 kind : places) {
    Turn& t = turns[kind];
    if (t.left.empty()) {
      const u64 which = static_cast<u64>(kind) * 0x10001 + t.drawn++;
      t.left = detail::shuffled(classes.at(kind), stream(2 * which + 1));
    }
    order.push_back(t.left.back());
    t.left.pop_back();
  }
  return order;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
