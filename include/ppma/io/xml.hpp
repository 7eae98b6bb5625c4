#pragma once
#include "ppma/core/names_begin.hpp"
// XML as annotation tools write it: elements within elements, text in them. Attributes, comments
// and processing instructions are checked and passed over; a DOCTYPE, and with it entities of the
// file's own, is refused.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

struct XmlElement {
  std::string name;
  std::string text;  // its own, in one, without blanks at the ends
  i64 line = 0;      // that it begins in, from 1
  std::vector<XmlElement> children{};

  /// The first child of a name, or nullptr.
  const XmlElement* find(std::string_view child) const {
    for (const XmlElement& c : children)
      if (c.name == child) return &c;
    return nullptr;
  }
};

/// The document's one element; `name` is what errors call the file. Errors, with their line: what
/// is not well-formed or not UTF-8; a DOCTYPE; entities but XML's five; elements in more than 64
/// others.
PPMA_API XmlElement parse_xml(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <string_view>
#include <utility>

#include "ppma/core/error.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class XmlReader {
 public:
  XmlReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }
  XmlElement document() {
    pass_between();
    need(takes("<"), "an element must begin here; is this XML?");
    XmlElement root = element(0);
    pass_between();
    need(at_ == text_.size(), "something stands behind the document's element");
    return root;
  }

 private:
  static constexpr std::string_view blanks = " \t\r\n";

  i64 line() const {
    for (; counted_ < std::min(at_, text_.size()); ++counted_) line_ += text_[counted_] == '\n';
    return line_;
  }
  template <class... Parts>
  void need(bool well, const Parts&... parts) const {
    if (!well) fail(name_, ": line ", line(), ": ", parts...);
  }
  bool takes(std::string_view what) {
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  void pass_blanks() { at_ = std::min(text_.find_first_not_of(blanks, at_), text_.size()); }
  // To behind `end`.
  std::string_view take_until(std::string_view end, const char* what) {
    const std::size_t found = text_.find(end, at_);
    need(found != std::string_view::npos, what, " that does not end");
    const std::string_view inside = text_.substr(at_, found - at_);
    at_ = found + end.size();
    return inside;
  }
  // A comment or a processing instruction, of which the declaration is one.
  bool pass_aside() {
    if (takes("<!--"))
      take_until("-->", "a comment");
    else if (takes("<?"))
      take_until("?>", "a processing instruction");
    else
      return false;
    return true;
  }
  void pass_between() {
    do pass_blanks();
    while (pass_aside());
    need(!text_.substr(at_).starts_with("<!DOCTYPE"), "a DOCTYPE is not read; remove it");
  }
  std::string take_name() {
    const std::size_t begin = at_;
    at_ = std::min(text_.find_first_of(" \t\r\n/>=<&\"'", at_), text_.size());
    const char first = at_ > begin ? text_[begin] : ' ';
    need(((first | 32) >= 'a' && (first | 32) <= 'z') || first == '_' || first == ':' ||
             static_cast<u8>(first) >= 0x80,
         "a name is missing");
    return std::string(text_.substr(begin, at_ - begin));
  }
  // Behind "&".
  std::string take_entity() {
    const std::size_t end = text_.find(';', at_);
    need(end != std::string_view::npos && end - at_ <= 10,
         "an & that begins no entity; write &amp;");
    const std::string_view entity = text_.substr(at_, end - at_);
    std::string found;
    for (const auto& [key, value] :
         {std::pair{"lt", "<"}, {"gt", ">"}, {"amp", "&"}, {"apos", "'"}, {"quot", "\""}})
      if (entity == key) found = value;
    if (entity.starts_with('#') && entity.size() > 1) {
      const bool hex = entity[1] == 'x';
      u32 code = 0;
      for (const char c : entity.substr(hex ? 2 : 1)) {
        const u32 digit = c >= '0' && c <= '9'          ? static_cast<u32>(c - '0')
                          : hex && c >= 'a' && c <= 'f' ? static_cast<u32>(c - 'a') + 10
                          : hex && c >= 'A' && c <= 'F' ? static_cast<u32>(c - 'A') + 10
                                                        : 99;
        code = digit == 99 || code > 0x10ffff ? 0x110000 : code * (hex ? 16 : 10) + digit;
      }
      found = utf8_of(code);
    }
    need(!found.empty(), "the entity &", printable(entity), "; is not known");
    at_ = end + 1;
    return found;
  }
  void pass_attributes() {
    for (;;) {
      const std::size_t before = at_;
      pass_blanks();
      const std::string_view rest = text_.substr(at_);
      if (rest.empty() || rest[0] == '>' || rest[0] == '/') return;
      need(at_ > before, "a blank is missing between attributes");
      take_name(), pass_blanks();
      need(takes("="), "an attribute without a value");
      pass_blanks();
      const char* const quote = takes("\"") ? "\"" : "'";
      need(*quote == '"' || takes("'"), "an attribute's value that is not in quotes");
      need(take_until(quote, "an attribute").find('<') == std::string_view::npos,
           "a < in an attribute; write &lt;");
    }
  }
  // Behind "<".
  XmlElement element(int depth) {
    need(depth < 64, "elements within more than 64 others are not read");
    XmlElement e;
    e.line = line(), e.name = take_name();
    pass_attributes();
    if (takes("/>")) return e;
    need(takes(">"), "the element ", printable(e.name), " does not end with >");
    for (;;) {
      const std::size_t next = std::min(text_.find_first_of("<&", at_), text_.size());
      e.text += text_.substr(at_, next - at_);
      at_ = next;
      need(at_ < text_.size(), "the file ends within the element ", printable(e.name),
           ", which begins in line ", e.line);
      if (takes("&")) {
        e.text += take_entity();
      } else if (takes("</")) {
        const std::string end = take_name();
        need(end == e.name, "</", printable(end), "> ends the element ", printable(e.name),
             " of line ", e.line);
        pass_blanks();
        need(takes(">"), "</", printable(end), " does not end with >");
        break;
      } else if (takes("<![CDATA[")) {
        e.text += take_until("]]>", "a CDATA section");
      } else if (!pass_aside()) {
        at_ += 1;  // "<"
        e.children.push_back(element(depth + 1));
      }
    }
    const std::size_t begin = std::min(e.text.find_first_not_of(blanks), e.text.size());
    e.text = e.text.substr(begin, e.text.find_last_not_of(blanks) + 1 - begin);
    return e;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  mutable std::size_t counted_ = 0;  // characters whose lines are in line_
  mutable i64 line_ = 1;
};

}  // namespace detail

XmlElement parse_xml(Bytes file, const std::string& name) {
  const std::string_view text = text_of(file);
  check(is_utf8(text), name, ": is not UTF-8; convert it");
  check(text.find('\0') == std::string_view::npos, name, ": a zero byte; is this XML?");
  return detail::XmlReader(text, name).document();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
