#pragma once
#include "ppma/core/names_begin.hpp"
// The list of names in a YAML file, such as the data.yaml of detection sets, in the forms that such
// files have it in:
//
//   names: [cat, 'dog']     names:        names: {0: cat, 1: dog}     names:
//                             - cat                                     0: cat
//                             - "dog"                                   1: dog
//
// Other keys are passed over, with the text behind them. Anchors, tags and texts of several lines
// are refused where a name stands.

#include <map>
#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

struct YamlNames {
  std::vector<std::string> names;
  std::map<std::string, std::string> keys;  // the file's own keys, with the text in their line
};

/// Reads the names of a file in memory; `name` is what errors call it. Errors, with their line: no
/// names; a form that is not read; numbers that are not 0, 1, ... in any order; a name that is
/// empty; what is not UTF-8.
PPMA_API YamlNames yaml_names(Bytes yaml, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "ppma/core/error.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class YamlNamesReader {
 public:
  YamlNamesReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }
  YamlNames read() {
    YamlNames all;
    while (at_ < text_.size()) {
      const std::string_view line = text_.substr(at_, text_.find('\n', at_) - at_);
      const std::size_t colon = line.find(':');
      const bool key = !line.empty() && std::string_view(" \t\r#-").find(line[0]) == line.npos &&
                       colon != line.npos &&
                       (colon + 1 == line.size() ||
                        std::string_view(" \t\r").find(line[colon + 1]) != line.npos);
      if (!key) {
        next_line();
        continue;
      }
      const std::string word(line.substr(0, colon));
      need(all.keys.count(word) == 0, "the key ", printable(word), " is there twice");
      at_ += colon + 1;
      pass_blanks();
      if (word == "names") {
        all.keys[word] = "";
        take_names();
      } else {
        all.keys[word] = plain("\n");
        next_line();
      }
    }
    check(all.keys.count("names") != 0, name_,
          ": has no names; write the classes as names: [cat, dog]");
    all.names = in_order();
    return all;
  }

 private:
  template <class... Parts>
  void need(bool well, const Parts&... parts) const {
    if (well) return;
    const auto end = text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size()));
    fail(name_, ": line ", 1 + std::count(text_.begin(), end, '\n'), ": ", parts...);
  }
  char next() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  bool takes(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void next_line() {
    const std::size_t end = text_.find('\n', at_);
    at_ = end == std::string_view::npos ? text_.size() : end + 1;
  }
  // Blanks and a comment, within a line.
  void pass_blanks() {
    while (at_ < text_.size() && (next() == ' ' || next() == '\t' || next() == '\r')) ++at_;
    if (next() == '#') at_ = std::min(text_.find('\n', at_), text_.size());
  }
  void pass_lines() {
    do pass_blanks();
    while (takes('\n'));
  }
  // Up to one of `ends`, a comment or a line's end.
  std::string plain(std::string_view ends) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '\n' && ends.find(text_[at_]) == ends.npos &&
           !(text_[at_] == '#' && at_ > begin && text_[at_ - 1] == ' '))
      ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    return std::string(word.substr(0, word.find_last_not_of(" \t\r") + 1));
  }
  u32 hex_digits(std::size_t n) {
    u32 code = 0;
    for (std::size_t i = 0; i < n; ++i, ++at_) {
      const char c = next(), low = static_cast<char>(c | 32);
      const bool digit = c >= '0' && c <= '9';
      need(digit || (low >= 'a' && low <= 'f'), "an escape whose digits are not hexadecimal");
      code = code * 16 + static_cast<u32>(digit ? c - '0' : low - 'a' + 10);
    }
    return code;
  }
  std::string quoted() {
    const char quote = text_[at_++];
    std::string word;
    for (;;) {
      need(next() != '\n', "a name in quotes that does not end in its line");
      const char c = text_[at_++];
      if (c == quote && !(quote == '\'' && takes('\''))) return word;
      if (c != '\\' || quote == '\'') {
        word += c;
        continue;
      }
      const char escaped = next();
      at_ += escaped == '\n' ? 0 : 1;
      const std::size_t digits = escaped == 'x' ? 2 : escaped == 'u' ? 4 : escaped == 'U' ? 8 : 0;
      need(digits > 0 || escaped == '"' || escaped == '\\' || escaped == '/' || escaped == ' ',
           "an escape that is not read");
      const std::string character =
          digits > 0 ? utf8_of(hex_digits(digits)) : std::string(1, escaped);
      need(!character.empty(), "an escape that is no character");
      word += character;
    }
  }
  // A name, or a number before one.
  std::string scalar(std::string_view ends) {
    const bool in_quotes = next() == '"' || next() == '\'';
    need(in_quotes || std::string_view("&*!|>%@`[{").find(next()) == std::string_view::npos,
         "a name in a form that is not read; put it in quotes");
    std::string word = in_quotes ? quoted() : plain(ends);
    need(!word.empty(), "a name that is empty");
    return word;
  }
  void take(std::string key, std::string value) {
    const bool number =
        !key.empty() && key.size() <= 6 && key.find_first_not_of("0123456789") == std::string::npos;
    need(number, "the key ", printable(key), " of names is not a class's number");
    need(named_.emplace(std::stol(key), std::move(value)).second, "the class ", key,
         " is named twice");
  }
  void take_flow(bool map, char end) {
    for (pass_lines(); !takes(end); pass_lines()) {
      std::string word = scalar(map ? ":,}\n" : ",]\n");
      pass_lines();
      if (map) {
        need(takes(':'), "a class's number without its name");
        pass_lines();
        std::string value = scalar(",}\n");
        take(std::move(word), std::move(value));
        pass_lines();
      } else {
        take(str(named_.size()), std::move(word));
      }
      need(takes(',') || next() == end, "a comma is missing between names");
    }
  }
  void take_block() {
    next_line();
    for (;;) {
      const std::size_t line = at_;
      pass_blanks();
      const bool indented = at_ > line;
      if (at_ == text_.size()) return;
      if (next() == '\n') {  // nothing, or a comment
        ++at_;
        continue;
      }
      if (next() == '-' && text_.substr(at_ + 1, 1).find_first_of(" \t") == 0) {
        ++at_;
        pass_blanks();
        take(str(named_.size()), scalar("\n"));
      } else if (indented) {
        std::string key = scalar(":\n");
        pass_blanks();
        need(takes(':'), "neither - NAME nor NUMBER: NAME");
        pass_blanks();
        take(std::move(key), scalar("\n"));
      } else {
        at_ = line;
        return;
      }
      pass_blanks();
      need(next() == '\n', "something stands behind a name");
    }
  }
  void take_names() {
    if (next() == '\n') return take_block();
    const bool map = next() == '{';
    need(map || next() == '[', "names must be a list of names, or numbers with names");
    ++at_;
    take_flow(map, map ? '}' : ']');
    next_line();
  }
  std::vector<std::string> in_order() const {
    std::vector<std::string> names;
    for (const auto& [number, word] : named_) {
      check(number == static_cast<i64>(names.size()), name_, ": names has no class ", names.size(),
            "; classes are numbered from 0 without a gap");
      names.push_back(word);
    }
    check(!names.empty(), name_, ": names is empty");
    return names;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::map<i64, std::string> named_{};
};

}  // namespace detail

YamlNames yaml_names(Bytes yaml, const std::string& name) {
  check(is_utf8(yaml), name, ": is not UTF-8");
  check(text_of(yaml).find('\0') == std::string_view::npos, name, ": a zero byte; is this a text?");
  return detail::YamlNamesReader(text_of(yaml), name).read();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
