#pragma once
// JSON of the tool's own files and of weights' metadata: members by name, with what is wrong where.

#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "ppma/core/error.hpp"

namespace tool {

using namespace ppma;
using Json = nlohmann::ordered_json;

/// JSON that is about a network or a run. Error: where it is and what is wrong with it.
inline Json parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    fail(where, ": not JSON, at byte ", static_cast<i64>(e.byte));
  } catch (const Json::out_of_range&) {
    fail(where, ": has a number that is too large");
  }
}

template <class T>
constexpr bool is_list = !std::is_arithmetic_v<T> && !std::is_same_v<T, std::string>;

/// Whether JSON holds what a T is made of; a list of fixed length has that length.
template <class T>
bool holds(const Json& j) {
  if constexpr (is_list<T>) {
    if (!j.is_array()) return false;
    for (const Json& entry : j)
      if (!holds<typename T::value_type>(entry)) return false;
    if constexpr (!std::is_same_v<T, std::vector<typename T::value_type>>)
      return j.size() == T{}.size();
    return true;
  } else {
    return std::is_same_v<T, bool> ? j.is_boolean()
           : std::is_unsigned_v<T> ? j.is_number_unsigned()
           : std::is_integral_v<T>
               ? j.is_number_integer() && (!j.is_number_unsigned() || j.get<i64>() >= 0)
           : std::is_floating_point_v<T> ? j.is_number()
                                         : j.is_string();
  }
}

/// What that is, for messages.
template <class T>
std::string kind_of() {
  if constexpr (is_list<T>)
    return (std::is_same_v<T, std::vector<typename T::value_type>>
                ? "a list of "
                : str("a list of ", T{}.size(), ", each ")) +
           kind_of<typename T::value_type>();
  else
    return std::is_same_v<T, bool>       ? "true or false"
           : std::is_unsigned_v<T>       ? "a whole number from 0"
           : std::is_integral_v<T>       ? "a whole number"
           : std::is_floating_point_v<T> ? "a number"
                                         : "text";
}

/// Reads a member of one of our own files, at `where`; one that is not there, or null, leaves
/// `into` as it is. Errors: no object; a member of another kind.
template <class T>
void read_member(const Json& j, const char* key, const std::string& where, T& into) {
  check(j.is_object(), where, ": must be a JSON object, not ", j.type_name());
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return;
  check(holds<T>(*it), where, ": \"", key, "\" must be ", kind_of<T>(), ", not ", it->dump());
  into = it->get<T>();
}

/// A member that must be there.
template <class T>
T member(const Json& j, const char* key, const std::string& where) {
  T value{};
  read_member(j, key, where, value);
  check(j.contains(key) && !j.at(key).is_null(), where, ": has no \"", key, "\"");
  return value;
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

}  // namespace tool
