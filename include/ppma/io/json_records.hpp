#pragma once
#include "ppma/core/names_begin.hpp"
// JSON files that are long lists of small records, read as a stream: nlohmann's SAX events, one
// record in memory at a time. COCO's annotations are 450 MB of which a record is one kilobyte.

#include <cstdio>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// One record, and what errors call it: "gt.json: annotations[17]".
struct JsonRecord {
  const nlohmann::json& value;
  std::string list;  // "" if the file itself is the list
  std::string where;

  /// The member of this name, or null.
  PPMA_API const nlohmann::json* find(const char* name) const;
  /// The member of this name. Error: there is none.
  PPMA_API const nlohmann::json& get(const char* name) const;
  /// A whole number from -2^63 to 2^63 - 1; 3.0 is one too, as for Python's dictionaries.
  PPMA_API i64 integer(const char* name) const;
  /// A number. Error: there is none.
  PPMA_API double number(const char* name) const;
  /// A text. Error: there is none.
  PPMA_API std::string text(const char* name) const;
  /// All numbers of a list; `name` is for the message.
  PPMA_API std::vector<double> numbers(const nlohmann::json& v, const char* name) const;

  /// What kind of value it is, for messages.
  PPMA_API static std::string described(const nlohmann::json& v);
};

/// Calls take(record) for every object in the lists of these names, in the file's order; with no
/// names the file itself is the list. `name` is what errors call it. Errors: no JSON, a list that
/// is missing.
PPMA_API void read_json_records(std::FILE* from, const std::string& name,
                                const std::set<std::string>& lists,
                                std::function<void(const JsonRecord&)> take);
PPMA_API void read_json_records(Bytes from, const std::string& name,
                                const std::set<std::string>& lists,
                                std::function<void(const JsonRecord&)> take);

/// The same of a file.
PPMA_API void read_json_records(const std::string& path, const std::string&,
                                const std::set<std::string>& lists,
                                std::function<void(const JsonRecord&)> take);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "ppma/io/known_files.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

const nlohmann::json* JsonRecord::find(const char* name) const {
  const auto it = value.find(name);
  return it == value.end() || it->is_null() ? nullptr : &*it;
}

const nlohmann::json& JsonRecord::get(const char* name) const {
  const nlohmann::json* v = find(name);
  check(v != nullptr, where, ": has no \"", name, "\"");
  return *v;
}

i64 JsonRecord::integer(const char* name) const {
  const nlohmann::json& v = get(name);
  if (v.is_number_float()) {
    const double x = v.get<double>();
    if (x >= -0x1p53 && x <= 0x1p53 && x == static_cast<double>(static_cast<i64>(x)))
      return static_cast<i64>(x);
  }
  check(v.is_number_integer() && (!v.is_number_unsigned() || v.get<u64>() >> 63 == 0), where,
        ": \"", name, "\" is ", described(v), "; it must be a whole number");
  return v.get<i64>();
}

double JsonRecord::number(const char* name) const {
  const nlohmann::json& v = get(name);
  check(v.is_number(), where, ": \"", name, "\" is ", described(v), "; it must be a number");
  return v.get<double>();
}

std::string JsonRecord::text(const char* name) const {
  const nlohmann::json& v = get(name);
  check(v.is_string(), where, ": \"", name, "\" is ", described(v), "; it must be a text");
  return v.get<std::string>();
}

std::vector<double> JsonRecord::numbers(const nlohmann::json& v, const char* name) const {
  check(v.is_array(), where, ": \"", name, "\" is ", described(v),
        "; it must be a list of numbers");
  std::vector<double> all;
  all.reserve(v.size());
  for (const auto& x : v) {
    check(x.is_number(), where, ": \"", name, "\" has ", described(x),
          " in it; it must be a list of numbers");
    all.push_back(x.get<double>());
  }
  return all;
}

std::string JsonRecord::described(const nlohmann::json& v) {
  if (v.is_primitive() && !v.is_string()) return v.dump();  // null, true, 1.5
  return str(v.is_string() ? "a " : "an ", v.type_name());
}

namespace detail {

class RecordReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  using Json = nlohmann::json;

  // Without lists the file itself must be one.
  RecordReader(std::string name, std::set<std::string> lists,
               std::function<void(const JsonRecord&)> take)
      : name_(std::move(name)), lists_(std::move(lists)), take_(std::move(take)) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override { return value(v); }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override { return value(std::move(v)); }
  bool binary(binary_t&) override { return value(nullptr); }
  bool start_object(std::size_t) override { return open(Json::object(), true); }
  bool start_array(std::size_t) override { return open(Json::array(), false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    if (!open_.empty())
      key_ = v;
    else if (depth_ == 1)
      list_ = v;
    return true;
  }
  bool parse_error(std::size_t at, const std::string&,
                   const nlohmann::detail::exception& e) override;

  bool has(const std::string& list) const { return seen_.count(list) != 0; }

 private:
  // How deep the list of records lies.
  std::size_t list_depth() const { return lists_.empty() ? 1 : 2; }
  bool in_list() const { return depth_ == list_depth() && in_list_; }
  std::string where() const { return str(name_, ": ", list_, "[", index_, "]"); }

  bool open(Json empty, bool object);

  bool close();

  template <class T>
  bool value(T&& v) {
    if (!open_.empty())
      put(Json(std::forward<T>(v)));
    else if (in_list())
      fail(where(), " is ", JsonRecord::described(Json(std::forward<T>(v))),
           "; it must be an object");
    else
      check(depth_ > 0 && (depth_ > 1 || lists_.count(list_) == 0), name_,
            depth_ == 0 ? std::string() : ": \"" + list_ + "\"", " is ",
            JsonRecord::described(Json(std::forward<T>(v))), "; it must be ",
            depth_ == 0 ? "an object or a list" : "a list");
    return true;
  }

  Json& put(Json v);

  std::string name_;
  std::set<std::string> lists_, seen_;
  std::function<void(const JsonRecord&)> take_;
  std::size_t depth_ = 0, index_ = 0;
  bool in_list_ = false;
  std::string list_, key_;
  Json record_;
  std::vector<Json*> open_;  // the record and what is open in it
};

inline bool RecordReader::parse_error(std::size_t at, const std::string&,
                                      const nlohmann::detail::exception& e) {
  // "[json...] parse error at line 1, column 5: syntax error ..."
  const std::string_view reason = e.what();
  const bool cut = reason.find("unexpected end of input") != reason.npos ||
                   reason.find("missing closing quote") != reason.npos;
  const std::size_t column = reason.find(", column "),
                    begin = reason.find(": ", column == reason.npos ? 0 : column);
  fail(name_, ": not JSON, at byte ", at, cut ? ", where it is cut short" : "", ": ",
       printable(begin == reason.npos ? reason : reason.substr(begin + 2), 160), copy_again);
}

inline bool RecordReader::open(Json empty, bool object) {
  if (open_.empty() && in_list()) {
    check(object, where(), " is an array; it must be an object");
    record_ = std::move(empty);
    open_.push_back(&record_);
  } else if (!open_.empty()) {
    check(open_.size() < 32, where(), ": lists within lists, more than 32 deep");
    open_.push_back(&put(std::move(empty)));
  } else if (depth_ == 0) {
    check(
        object != lists_.empty(), name_,
        object
            ? ": an object; it must be a list of results"
            : ": a list; it must be an object with \"images\", \"annotations\" and \"categories\"");
    in_list_ = lists_.empty();
  } else if (depth_ == 1 && !lists_.empty() && lists_.count(list_) != 0) {
    check(!object, name_, ": \"", list_, "\" is an object; it must be a list");
    check(seen_.insert(list_).second, name_, ": \"", list_, "\" stands there twice");
    in_list_ = true;
    index_ = 0;
  }
  ++depth_;
  return true;
}

inline bool RecordReader::close() {
  --depth_;
  if (!open_.empty()) {
    open_.pop_back();
    if (open_.empty()) {
      take_({record_, list_, where()});
      ++index_;
    }
  } else if (depth_ + 1 == list_depth()) {
    in_list_ = false;
  }
  return true;
}

inline RecordReader::Json& RecordReader::put(Json v) {
  Json& parent = *open_.back();
  if (parent.is_object()) return parent[key_] = std::move(v);
  parent.push_back(std::move(v));
  return parent.back();
}

template <class... Range>
void read_records(const std::string& name, const std::set<std::string>& lists,
                  std::function<void(const JsonRecord&)> take, Range... from) {
  RecordReader reader(name, lists, std::move(take));
  nlohmann::json::sax_parse(from..., &reader);
  for (const std::string& list : lists) check(reader.has(list), name, ": has no \"", list, "\"");
}

}  // namespace detail

void read_json_records(std::FILE* from, const std::string& name, const std::set<std::string>& lists,
                       std::function<void(const JsonRecord&)> take) {
  detail::read_records(name, lists, std::move(take), from);
}

void read_json_records(Bytes from, const std::string& name, const std::set<std::string>& lists,
                       std::function<void(const JsonRecord&)> take) {
  // Characters: libc++ has no traits of bytes, which the parser asks for.
  const std::string_view text = text_of(from);
  detail::read_records(name, lists, std::move(take), text.begin(), text.end());
}

void read_json_records(const std::string& path, const std::string&,
                       const std::set<std::string>& lists,
                       std::function<void(const JsonRecord&)> take) {
  size_of_file(path);
  const std::unique_ptr<std::FILE, detail::CloseFile> f(std::fopen(path.c_str(), "rb"));
  if (f == nullptr)
    fail(path, ": cannot be read (", detail::os_reason(), "); check who may read it");
  read_json_records(f.get(), path, lists, std::move(take));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
