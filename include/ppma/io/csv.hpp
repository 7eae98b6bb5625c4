#pragma once
#include "ppma/core/names_begin.hpp"
// Comma-separated values as RFC 4180 has them: records end with a line break (LF or CRLF), fields
// with commas, quotes or line breaks stand in quotes, where a quote is written twice. Spaces belong
// to fields. Beside it: a byte order mark and empty lines are passed over.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

struct CsvRecord {
  i64 line = 0;  // that it begins in, from 1
  std::vector<std::string> fields;
};

/// The records of a file in memory, all with as many fields as the first; `name` is what errors
/// call it. Errors, with their line: a quote within a field without quotes, something behind a
/// closing quote, a quote that is not closed, another number of fields, a zero byte, a carriage
/// return alone.
PPMA_API std::vector<CsvRecord> parse_csv(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <string_view>
#include <utility>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }
  std::vector<CsvRecord> records() {
    std::vector<CsvRecord> all;
    while (at_ < text_.size()) {
      if (ends_line()) continue;  // an empty line
      CsvRecord r{line_, {}};
      do r.fields.push_back(next() == '"' ? quoted() : plain());
      while (takes(','));
      if (at_ < text_.size() && !ends_line()) stop();
      const std::size_t wanted = (all.empty() ? r : all[0]).fields.size(), got = r.fields.size();
      check(got == wanted, name_, ": line ", r.line, ": has ", got, got == 1 ? " field" : " fields",
            ", the first line ", wanted);
      all.push_back(std::move(r));
    }
    return all;
  }

 private:
  char next() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  bool takes(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  // Takes a line break.
  bool ends_line() {
    const std::size_t size = text_.substr(at_).starts_with("\r\n") ? 2 : next() == '\n' ? 1 : 0;
    at_ += size, line_ += size > 0 ? 1 : 0;
    return size > 0;
  }
  // What stands where a comma or a line's end must be.
  [[noreturn]] void stop() const {
    const char c = text_[at_];
    fail(name_, ": line ", line_, ": ",
         c == '"'    ? "a quote within a field; put the field in quotes, and write the quote twice"
         : c == '\r' ? "a carriage return without a line feed"
         : c == '\0' ? "a zero byte; is this a text?"
                     : "something stands behind a closing quote; a quote in a field is written "
                       "twice");
  }
  std::string plain() {
    const std::size_t begin = at_;
    at_ = std::min(text_.find_first_of(std::string_view(",\"\r\n\0", 5), at_), text_.size());
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string quoted() {
    const i64 begun = line_;
    std::string field;
    for (++at_;;) {
      check(at_ < text_.size(), name_, ": line ", begun, ": a quote that is not closed");
      const char c = text_[at_++];
      if (c == '"' && !takes('"')) return field;
      check(c != '\0', name_, ": line ", line_, ": a zero byte; is this a text?");
      line_ += c == '\n' ? 1 : 0;
      field += c;
    }
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  i64 line_ = 1;
};

}  // namespace detail

std::vector<CsvRecord> parse_csv(Bytes file, const std::string& name) {
  return detail::CsvReader(text_of(file), name).records();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
