#pragma once
#include "ppma/core/names_begin.hpp"
// JSON of a run's files and of weights' metadata: members by name, with what is wrong where.

#include <nlohmann/json.hpp>
#include <string>

#include "ppma/core/error.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/io/json_fields.hpp"

namespace ppma::inline PPMA_ABI {

/// Members keep their order.
using Json = nlohmann::ordered_json;

/// JSON that is about a network or a run. Error: where it is and what is wrong with it.
PPMA_API Json parse_json(const std::string& text, const std::string& where);

/// Reads a member of one of our own files, at `where`; one that is not there, or null, leaves
/// `into` as it is. Errors: no object; a member of another kind.
template <class T>
void read_member(const Json& j, const char* key, const std::string& where, T& into) {
  detail::check_object(j, where);
  const auto it = j.find(key);
  if (it != j.end() && !it->is_null()) read_json_value(*it, where, key, into);
}

/// A member that must be there.
template <class T>
T member(const Json& j, const char* key, const std::string& where) {
  T value{};
  read_member(j, key, where, value);
  check(j.contains(key) && !j.at(key).is_null(), where, ": has no \"", key, "\"");
  return value;
}

/// The fields that one of our own files has, which others leave as they are. Errors: a member of
/// another kind, or outside of its limits.
template <class Options>
void read_kept(const Json& j, const std::string& where, Options& o) {
  read_json_fields(j, where, o);
  check_fields(o, where);
}

/// All options as they are kept in a file.
template <class Options>
Json options_of(const Options& o) {
  Json j;
  write_json_fields(o, j);
  return j;
}

/// f(), whose errors say where it was.
template <class F>
auto naming(const std::string& where, F f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(str(where, ": ", e.what()));
  }
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

Json parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    fail(where, ": not JSON, at byte ", static_cast<i64>(e.byte));
  } catch (const Json::out_of_range&) {
    fail(where, ": has a number that is too large");
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
