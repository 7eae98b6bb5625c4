#pragma once
#include "ppma/core/names_begin.hpp"
// Names that stand for several files, as shells write them: braces, and wildcards.

#include <string>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// What a text with braces stands for, as bash has it: "{a,b}-{08..10}" is a-08, a-09, a-10, b-08
/// and so on. Braces without a comma or two dots between numbers stay. Error: more than a million.
PPMA_API std::vector<std::string> expand_braces(const std::string& pattern);

/// Whether a path has wildcards: *, ? or [.
PPMA_API bool has_wildcards(const std::string& path);

/// Whether a name (without slashes) is of a pattern: * is any text, ? any character's byte, [a-z]
/// and [!a-z] one of them, a backslash takes the next as it is. A dot at the beginning must stand
/// in the pattern.
PPMA_API bool matches_wildcards(const std::string& name, const std::string& pattern);

/// The files whose paths are of a pattern, sorted: wildcards stand within a folder's name or a
/// file's, "**" for any folders, or none. Folders that cannot be read have no files.
PPMA_API std::vector<std::string> matching_files(const std::string& pattern);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>

#include "ppma/core/error.hpp"
#include "ppma/io/folder.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// "a..b" as its numbers, padded where one of them begins with 0; nothing if it is none.
inline std::vector<std::string> number_range(std::string_view text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string_view::npos) return {};
  const std::string_view from = text.substr(0, dots), to = text.substr(dots + 2);
  const auto is_number = [](std::string_view s) {
    return !s.empty() && s.size() <= 9 &&
           s.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (!is_number(from) || !is_number(to)) return {};
  const bool padded = (from.size() > 1 && from[0] == '0') || (to.size() > 1 && to[0] == '0');
  const std::size_t width = padded ? std::max(from.size(), to.size()) : 0;
  const i64 first = std::stol(std::string(from)), last = std::stol(std::string(to));
  check(std::max(first, last) - std::min(first, last) < 1000000, "{", text,
        "} stands for more than a million names");
  std::vector<std::string> all;
  for (i64 n = first;; n += first <= last ? 1 : -1) {
    const std::string digits = str(n);
    all.push_back(std::string(width - std::min(width, digits.size()), '0') + digits);
    if (n == last) return all;
  }
}

/// The alternatives between a brace and its end, which is found; nothing if they are none.
inline std::vector<std::string> alternatives(std::string_view pattern, std::size_t open,
                                             std::size_t& close) {
  std::vector<std::string> all;
  int depth = 0;
  for (std::size_t at = open, begin = open + 1; at < pattern.size(); ++at) {
    const char c = pattern[at];
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (depth == 0 || (depth == 1 && c == ',')) {
      all.emplace_back(pattern.substr(begin, at - begin));
      begin = at + 1;
    }
    if (depth > 0) continue;
    close = at;
    return all.size() > 1 ? all : number_range(pattern.substr(open + 1, at - open - 1));
  }
  return {};
}

}  // namespace detail

std::vector<std::string> expand_braces(const std::string& pattern) {
  for (std::size_t open = 0; (open = pattern.find('{', open)) != std::string::npos; ++open) {
    std::size_t close = 0;
    const std::vector<std::string> middle = detail::alternatives(pattern, open, close);
    if (middle.empty()) continue;
    const std::string before = pattern.substr(0, open);
    const std::vector<std::string> after = expand_braces(pattern.substr(close + 1));
    std::vector<std::string> all;
    for (const std::string& m : middle)
      for (const std::string& inner : expand_braces(m)) {
        check((all.size() + after.size()) <= 1000000, pattern,
              " stands for more than a million names");
        for (const std::string& a : after) all.push_back(before + inner + a);
      }
    return all;
  }
  return {pattern};
}

bool has_wildcards(const std::string& path) {
  return path.find_first_of("*?[") != std::string::npos;
}

namespace detail {

/// Whether a byte is in the set that begins behind "[" at `at`; then `at` is behind its end, else
/// (no set: it does not end) it stays.
inline bool in_set(std::string_view pattern, std::size_t& at, char byte, bool& is_set) {
  const auto order = [](char c) { return static_cast<unsigned char>(c); };
  std::size_t i = at;
  const bool inverted = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  i += inverted ? 1 : 0;
  bool found = false;
  for (const std::size_t begin = i; i < pattern.size(); ++i) {
    if (pattern[i] == ']' && i > begin) {
      at = i + 1, is_set = true;
      return found != inverted;
    }
    const bool range = i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']';
    const char last = pattern[range ? i + 2 : i];
    found = found || (order(byte) >= order(pattern[i]) && order(byte) <= order(last));
    i += range ? 2 : 0;
  }
  is_set = false;
  return false;
}

}  // namespace detail

bool matches_wildcards(const std::string& name, const std::string& pattern) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  // After a mismatch the last * takes a byte more.
  std::size_t n = 0, p = 0, star = std::string::npos, taken = 0;
  while (n < name.size()) {
    bool fits = false;
    std::size_t next = p + 1;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, taken = n;
      continue;
    }
    if (p < pattern.size() && pattern[p] == '[') {
      bool is_set = false;
      fits = detail::in_set(pattern, next, name[n], is_set);
      if (!is_set) fits = name[n] == '[';
    } else if (p < pattern.size()) {
      const bool plain = pattern[p] == '\\' && p + 1 < pattern.size();
      next += plain ? 1 : 0;
      fits = (pattern[p] == '?' && !plain) || pattern[next - 1] == name[n];
    }
    if (fits)
      ++n, p = next;
    else if (star != std::string::npos)
      p = star + 1, n = ++taken;
    else
      return false;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

namespace detail {

/// The names in a folder, sorted; none where it cannot be read.
inline std::vector<std::string> names_of_folder(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  std::filesystem::directory_iterator it(folder.empty() ? "." : folder, failed);
  for (; !failed && it != std::filesystem::directory_iterator(); it.increment(failed))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Adds the files below `before` ("", or a folder with its slash) that are of `pattern`.
inline void add_matching(const std::string& before, std::string_view pattern,
                         std::set<std::string>& all) {
  std::error_code absent;
  const std::size_t slash = pattern.find('/');
  const std::string part(pattern.substr(0, slash));
  if (slash == std::string_view::npos) {
    if (!has_wildcards(part)) {
      if (std::filesystem::is_regular_file(before + part, absent)) all.insert(before + part);
      return;
    }
    for (const std::string& name : names_of_folder(before))
      if (matches_wildcards(name, part) && std::filesystem::is_regular_file(before + name, absent))
        all.insert(before + name);
    return;
  }
  const std::string_view rest = pattern.substr(slash + 1);
  if (part == "**") {
    add_matching(before, rest, all);
    for (const std::string& name : names_of_folder(before)) {
      const std::filesystem::path path(before + name);  // no links: they may lead round
      if (!is_hidden(path) && std::filesystem::is_directory(path, absent) &&
          !std::filesystem::is_symlink(path, absent))
        add_matching(before + name + "/", pattern, all);
    }
    return;
  }
  if (!has_wildcards(part)) return add_matching(before + part + "/", rest, all);
  for (const std::string& name : names_of_folder(before))
    if (matches_wildcards(name, part) && std::filesystem::is_directory(before + name, absent))
      add_matching(before + name + "/", rest, all);
}

}  // namespace detail

std::vector<std::string> matching_files(const std::string& pattern) {
  std::set<std::string> all;
  detail::add_matching("", pattern, all);
  return {all.begin(), all.end()};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
