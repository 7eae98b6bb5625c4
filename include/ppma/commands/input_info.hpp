#pragma once
#include "ppma/core/names_begin.hpp"
// What a trained network expects of an image, and what its outputs mean: written into its weights
// by training, and what counts wherever the weights are used. Classes are matched by name: a set
// that numbers them otherwise is brought to the network's numbers, what does not fit is named.

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ppma/commands/json.hpp"
#include "ppma/commands/observer.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/data/augment.hpp"

namespace ppma::inline PPMA_ABI {

/// "a", "b", "c" and 7 more.
PPMA_API std::string listed(const std::vector<std::string>& names);

/// How the classes `now` differ from what they were, in words; "" where they do not.
PPMA_API std::string class_difference(const std::vector<std::string>& was,
                                      const std::vector<std::string>& now);

/// What a network expects of an image, and what its outputs mean.
struct InputInfo {
  i64 size = 224;               // classifier: pixels of a side; 0: of another task
  double crop = 0.875;          // classifier: share of the shorter side that is kept
  i64 longer = 0, shorter = 0;  // segmentor, detector: sides with the aspect kept
  Normalization normalization{};
  std::vector<std::string> classes;  // of the outputs, in their order; none: not said
  std::vector<i64> category_ids{};   // detector: the classes' numbers in results
  bool numbered = false;             // whether it has them

  /// Of a segmentor or detector.
  static InputInfo dense(std::vector<std::string> classes, i64 longer, i64 shorter,
                         const Normalization& normalization, std::vector<i64> ids = {}) {
    const bool numbered = !ids.empty();
    return {0, 1, longer, shorter, normalization, std::move(classes), std::move(ids), numbered};
  }

  /// As the weights' metadata have it, under "input".
  PPMA_API Json to_json() const;
  /// What to_json() gave. Errors: a member that is missing or wrong, at `where`.
  PPMA_API static InputInfo from_json(const Json& j, const std::string& where);
  /// The same, of the metadata of the weights at `path`; nothing where they do not say.
  PPMA_API static std::optional<InputInfo> of(const std::map<std::string, std::string>& metadata,
                                              const std::string& path);

  /// "class 7" where it has no name.
  std::string class_name(i64 c) const {
    return c < static_cast<i64>(classes.size()) ? classes[static_cast<std::size_t>(c)]
                                                : str("class ", c);
  }
  /// Error: other than one name, and one number in results, for each output of a network. A
  /// classifier may have no names.
  PPMA_API void check_outputs(i64 outputs, const std::string& where) const;
};

/// The classes of a set as a network numbers them.
struct ClassMatch {
  // of each class of the set; -1: the network has none of its name
  std::vector<i64> numbers;
  std::vector<std::string> unknown;  // the names of those
  bool same = true;                  // the numbers are those of the set
};

/// Matches by name. Error: one name for two classes, unless both lists are the same.
PPMA_API ClassMatch match_classes(const std::vector<std::string>& network, const std::string& where,
                                  const std::vector<std::string>& set, const std::string& set_name);

/// Error: a run in `folder` goes on with other classes than it had, or in another order.
PPMA_API void check_classes_of_run(const std::string& folder, const InputInfo& had,
                                   const InputInfo& now);

/// `input` with images of `size` pixels where that is given (not 0); other pixels than the weights
/// say are noted.
PPMA_API InputInfo with_size(InputInfo input, i64 size, bool said, Observer& observer);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

namespace detail {

/// mean and deviation, a number a channel. Error: colours cannot be divided by such a deviation.
inline Normalization read_normalization(const Json& j, const std::string& where) {
  Normalization n;
  read_member(j, "mean", where, n.mean), read_member(j, "deviation", where, n.deviation);
  for (const float m : n.mean) check(is_finite(m), where, ": \"mean\" must be finite, not ", m);
  for (const float d : n.deviation)
    check(d > 0 && is_finite(d), where, ": \"deviation\" must be positive, not ", d);
  return n;
}

/// The names of `a` that `b` does not have.
inline std::vector<std::string> beyond(const std::vector<std::string>& a,
                                       const std::vector<std::string>& b) {
  const std::set<std::string> known(b.begin(), b.end());
  std::vector<std::string> rest;
  for (const std::string& name : a)
    if (!known.contains(name)) rest.push_back(name);
  return rest;
}

}  // namespace detail

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 8;
  std::string s;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i)
    s += str(i > 0 ? ", " : "", "\"", names[i], "\"");
  if (names.size() > most) s += str(" and ", names.size() - most, " more");
  return s;
}

std::string class_difference(const std::vector<std::string>& was,
                             const std::vector<std::string>& now) {
  if (was == now) return "";
  const std::vector<std::string> missing = detail::beyond(was, now),
                                 added = detail::beyond(now, was);
  std::string s;
  if (!missing.empty()) s += listed(missing) + (missing.size() > 1 ? " are" : " is") + " missing";
  if (!added.empty())
    s += (s.empty() ? "" : ", ") + listed(added) + (added.size() > 1 ? " are" : " is") + " new";
  if (s.empty() && was.size() != now.size())
    s = str("there are ", now.size(), " instead of ", was.size());
  return s.empty() ? "they are in another order" : s;
}

Json InputInfo::to_json() const {
  Json j;
  if (size > 0)
    j["size"] = size, j["crop"] = crop;
  else
    j["longer"] = longer, j["shorter"] = shorter;
  j["mean"] = normalization.mean, j["deviation"] = normalization.deviation;
  j["classes"] = classes;
  if (numbered) j["category_ids"] = category_ids;
  return j;
}

InputInfo InputInfo::from_json(const Json& j, const std::string& where) {
  InputInfo info;
  check(j.is_object(), where, ": must be a JSON object, not ", j.type_name());
  if (j.contains("longer") || j.contains("shorter")) {
    info.size = 0, info.crop = 1;
    for (const auto& [key, into] :
         {std::pair{"longer", &info.longer}, {"shorter", &info.shorter}}) {
      *into = member<i64>(j, key, where);
      check(*into > 0, where, ": \"", key, "\" must be at least 1, not ", *into);
    }
    info.classes = member<std::vector<std::string>>(j, "classes", where);
    info.numbered = j.contains("category_ids") && !j.at("category_ids").is_null();
  } else {
    read_member(j, "size", where, info.size), read_member(j, "crop", where, info.crop);
    check(info.size > 0 && info.crop > 0 && info.crop <= 1, where, ": images of ", info.size,
          " pixels, ", info.crop, " of their side");
  }
  read_member(j, "classes", where, info.classes);
  read_member(j, "category_ids", where, info.category_ids);
  info.normalization = detail::read_normalization(j, where);
  return info;
}

std::optional<InputInfo> InputInfo::of(const std::map<std::string, std::string>& metadata,
                                       const std::string& path) {
  const auto it = metadata.find("input");
  if (it == metadata.end()) return std::nullopt;
  return from_json(parse_json(it->second, path + ": input"), path + ": input");
}

void InputInfo::check_outputs(i64 outputs, const std::string& where) const {
  const auto one_each = [&](const char* key, std::size_t entries, bool there) {
    check(!there || static_cast<i64>(entries) == outputs, where, ": \"", key, "\" has ", entries,
          " entries, the network tells ", outputs, " classes apart");
  };
  one_each("classes", classes.size(), size == 0 || !classes.empty());
  one_each("category_ids", category_ids.size(), numbered);
}

ClassMatch match_classes(const std::vector<std::string>& network, const std::string& where,
                         const std::vector<std::string>& set, const std::string& set_name) {
  ClassMatch match;
  match.same = network == set;
  std::map<std::string, i64> number;
  for (const std::string& name : network) {
    const bool is_new = number.emplace(name, static_cast<i64>(number.size())).second;
    check(is_new || match.same, where, ": has two classes \"", name, "\", so those of ", set_name,
          " cannot be matched by name");
  }
  std::set<std::string> seen;
  for (std::size_t c = 0; c < set.size(); ++c) {
    check(seen.insert(set[c]).second || match.same, set_name, ": has two classes \"", set[c], "\"");
    const auto it = number.find(set[c]);
    if (match.same)
      match.numbers.push_back(static_cast<i64>(c));
    else
      match.numbers.push_back(it == number.end() ? -1 : it->second);
    if (it == number.end()) match.unknown.push_back(set[c]);
  }
  return match;
}

void check_classes_of_run(const std::string& folder, const InputInfo& had, const InputInfo& now) {
  const std::string remedy = str("; put them back, or begin a new run with `weights` ", folder,
                                 "/best.safetensors, which keeps what fits");
  const std::string difference = class_difference(had.classes, now.classes);
  check(difference.empty(), folder,
        ": the classes of the data have changed since the run began: ", difference, remedy);
  check(had.category_ids == now.category_ids, folder,
        ": the categories of the data have other ids than when the run began", remedy);
}

InputInfo with_size(InputInfo input, i64 size, bool said, Observer& observer) {
  if (size > 0 && size != input.size && said)
    detail::note(observer, "`size` ", size, " instead of the ", input.size,
                 " pixels that the weights say");
  if (size > 0) input.size = size;
  return input;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
