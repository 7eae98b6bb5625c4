#pragma once
#include "ppma/core/names_begin.hpp"
// Configurations as JSON, by the fields that they name (core/limits.hpp): an object with a member a
// field. Numbers, text, true or false, lists of them; an enumeration is the text that its
// to_string() gives and from_text(text, value) takes.
//
// For any of nlohmann's types of JSON, which the caller includes.

#include <array>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ppma/core/closest.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class T>
constexpr bool is_list =
    !std::is_arithmetic_v<T> && !std::is_enum_v<T> && !std::is_same_v<T, std::string>;
template <class T>
constexpr bool is_fixed_list = false;
template <class T, std::size_t n>
constexpr bool is_fixed_list<std::array<T, n>> = true;

// What JSON must hold to be a T, for messages.
template <class T>
std::string json_kind() {
  if constexpr (is_fixed_list<T>)
    return str("a list of ", std::tuple_size_v<T>, ", each ", json_kind<typename T::value_type>());
  else if constexpr (is_list<T>)
    return "a list, each " + json_kind<typename T::value_type>();
  else
    return std::is_same_v<T, bool>       ? "true or false"
           : std::is_unsigned_v<T>       ? "a whole number from 0"
           : std::is_integral_v<T>       ? "a whole number"
           : std::is_floating_point_v<T> ? "a number"
                                         : "text";
}

template <class T, class Json>
bool holds(const Json& j) {
  if constexpr (is_fixed_list<T>)
    return j.is_array() && j.size() == std::tuple_size_v<T>;
  else if constexpr (is_list<T>)
    return j.is_array();
  else
    return std::is_same_v<T, bool> ? j.is_boolean() || (j.is_number_integer() && (j == 0 || j == 1))
           : std::is_unsigned_v<T> ? j.is_number_unsigned()
           : std::is_integral_v<T> ? j.is_number_integer()
           : std::is_floating_point_v<T> ? j.is_number()
                                         : j.is_string();
}

template <class Json>
void check_object(const Json& j, const std::string& where) {
  check(j.is_object(), where, ": must be a JSON object, not ", j.type_name());
}

}  // namespace detail

/// Reads a value that is called `name` at `where`. Errors, which say both: another kind of value, a
/// list of another length, a number that is too large.
template <class Json, class T>
void read_json_value(const Json& j, const std::string& where, const std::string& name, T& into) {
  check(detail::holds<T>(j), where, ": \"", name, "\" must be ", detail::json_kind<T>(), ", not ",
        j.dump());
  if constexpr (detail::is_list<T>) {
    if constexpr (!detail::is_fixed_list<T>) into.resize(j.size());
    for (std::size_t i = 0; i < into.size(); ++i)
      read_json_value(j[i], where, str(name, "[", i, "]"), into[i]);
  } else if constexpr (std::is_enum_v<T>) {
    from_text(j.template get<std::string>(), into);
  } else if constexpr (std::is_same_v<T, bool>) {
    into = j.is_boolean() ? j.template get<bool>() : j == 1;
  } else {
    into = j.template get<T>();
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>)
      check(!j.is_number_unsigned() || into >= 0, where, ": \"", name, "\" is too large, ",
            j.dump());
  }
}

/// Sets the fields that an object has members for, and leaves the others.
template <class Json, class Config>
void read_json_fields(const Json& j, const std::string& where, Config& c) {
  detail::check_object(j, where);
  Config::fields(c, [&](const char* key, auto& value, const auto&...) {
    if (const auto it = j.find(key); it != j.end()) read_json_value(*it, where, key, value);
  });
}

/// Error: a member that is no field of `c` and none of `others`, so that a misspelt one is no
/// silent default.
template <class Json, class Config>
void check_json_keys(const Json& j, const std::string& where, const Config& c,
                     std::initializer_list<const char*> others = {}) {
  detail::check_object(j, where);
  std::vector<std::string> known(others.begin(), others.end());
  Config::fields(c, [&](const char* key, const auto&...) { known.push_back(key); });
  std::string list;
  for (const std::string& key : known) list += (list.empty() ? "" : ", ") + key;
  for (const auto& item : j.items()) {
    bool is_known = false;
    for (const std::string& key : known) is_known = is_known || key == item.key();
    if (is_known) continue;
    const std::string meant = closest(item.key(), known);
    fail(where, ": unknown key \"", item.key(), "\"; ",
         meant.empty() ? "" : str("did you mean \"", meant, "\"? "), "there are ", list);
  }
}

/// All fields as members of an object, in their order.
template <class Config, class Json>
void write_json_fields(const Config& c, Json& j) {
  Config::fields(c, [&](const char* key, const auto& value, const auto&...) {
    if constexpr (std::is_enum_v<std::remove_cvref_t<decltype(value)>>)
      j[key] = to_string(value);
    else
      j[key] = value;
  });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
