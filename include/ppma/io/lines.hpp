#pragma once
#include "ppma/core/names_begin.hpp"
// Texts that are read line by line: lists of names, labels.

#include <string>
#include <string_view>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

struct TextLine {
  i64 number = 0;  // from 1
  std::string text;
};

/// The lines of a text without blanks at their ends, those that are empty then left out; a byte
/// order mark is passed over. Errors, with `name` and line: a zero byte, what is not UTF-8.
PPMA_API std::vector<TextLine> text_lines(Bytes file, const std::string& name);

/// The same of a file.
PPMA_API std::vector<TextLine> read_lines(const std::string& path);

/// The words of a line, between blanks.
PPMA_API std::vector<std::string_view> words_of(std::string_view line);

/// Takes a text that is a finite decimal number ("-1", "0.5", "1e-3") and nothing else; false where
/// it is none.
PPMA_API bool take_decimal(std::string_view text, double& into);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cstdlib>

#include "ppma/core/error.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<TextLine> text_lines(Bytes file, const std::string& name) {
  std::string_view rest = text_of(file);
  if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
  std::vector<TextLine> lines;
  for (i64 number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    check(line.find('\0') == std::string_view::npos, name, ": line ", number,
          ": a zero byte; is this a text?");
    check(is_utf8(line), name, ": line ", number, ": is not UTF-8");
    constexpr std::string_view blanks = " \t\r";
    const std::size_t begin = std::min(line.find_first_not_of(blanks), line.size());
    line = line.substr(begin, line.find_last_not_of(blanks) + 1 - begin);
    if (!line.empty()) lines.push_back({number, std::string(line)});
  }
  return lines;
}

std::vector<TextLine> read_lines(const std::string& path) {
  return text_lines(read_file(path), path);
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (;;) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    if (line.empty()) return words;
    words.push_back(line.substr(0, line.find_first_of(" \t\r")));
    line.remove_prefix(words.back().size());
  }
}

bool take_decimal(std::string_view text, double& into) {
  // No hexadecimal, no "inf", which strtod would take.
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string_view::npos)
    return false;
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (end != copy.c_str() + copy.size() || !is_finite(value)) return false;
  into = value;
  return true;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
