#pragma once
// Values of options: each has a range, which --help states and with which what is given is checked
// before anything begins.
//
// To add an option: ->check(in_range(least, most)) for a number, ->check(some_text()) for a name.
// One that is also kept in a file is a field of its command (core/limits.hpp), with its help:
// add_fields.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ppma/core/error.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/io/utf8.hpp"

namespace tool {

using namespace ppma;

/// A message in one line that a terminal may show; of numbers of hundreds of digits the first ones.
inline std::string shown(std::string_view text) {
  constexpr std::size_t most_digits = 40, most = 4000;
  std::string s;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    if (end - i > most_digits)
      s += str(text.substr(i, 12), "... (", end - i, " digits)"), i = end;
    else
      s += text[i++];
  }
  return printable(s, most);
}
/// A whole path or name, as printable() writes its letters.
inline std::string shown_name(std::string_view name) { return printable(name, name.size()); }

/// Something worth knowing that changes no result: on the error output, so that JSON stays JSON.
template <class... Parts>
void note(const Parts&... parts) {
  std::fprintf(stderr, "ppma: %s\n", shown(str(parts...)).c_str());
}

/// The number that all of `text` is; false where it is none, is not finite or does not fit into T.
template <class T>
bool parse_number(const std::string& text, T& into) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0])) != 0) return false;
  char* end = nullptr;
  errno = 0;
  if constexpr (std::is_floating_point_v<T>) {
    const double value = std::strtod(text.c_str(), &end);
    if (!is_finite(value)) return false;
    into = static_cast<T>(value);
  } else if constexpr (std::is_unsigned_v<T>) {
    if (text[0] == '-') return false;
    into = static_cast<T>(std::strtoull(text.c_str(), &end, 0));
  } else {
    into = static_cast<T>(std::strtoll(text.c_str(), &end, 0));
  }
  if (std::is_integral_v<T> && errno != 0) return false;
  return end == text.c_str() + text.size();
}

/// A T within limits.
template <class T>
CLI::Validator in_limits(const Limits& limits) {
  const auto fits = [limits](std::string& text) -> std::string {
    T value{};
    if (!parse_number(text, value))
      return str("\"", text, "\" is not a ", std::is_integral_v<T> ? "whole " : "",
                 "number in range ", limits.text());
    return limits.holds(static_cast<double>(value)) ? ""
                                                    : str(text, " is not in range ", limits.text());
  };
  return CLI::Validator(fits, "[" + limits.text() + "]");
}

/// A number from `least` to `most`, or `also`, which means something of its own ("0: all").
template <class T>
CLI::Validator in_range(T least, T most, std::vector<double> also = {}) {
  return in_limits<T>({static_cast<double>(least), static_cast<double>(most), std::move(also)});
}

/// A name or a path to write: not empty, and UTF-8, since it goes into JSON.
inline CLI::Validator some_text() {
  const auto fits = [](std::string& text) -> std::string {
    if (text.empty()) return "is empty";
    return is_utf8(text) ? "" : str("\"", text, "\" is not UTF-8");
  };
  return CLI::Validator(fits, "");
}

/// Text that `read` takes without an Error.
inline CLI::Validator accepted_by(std::function<void(const std::string&)> read) {
  const auto fits = [read = std::move(read)](std::string& text) -> std::string {
    try {
      read(text);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  return CLI::Validator(fits, "");
}

/// The option of a field: "--data-dir" of "data_dir".
inline std::string option_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

/// Adds an option for each field that has a help text: a number with its limits, a flag, or text.
class AddFields {
 public:
  explicit AddFields(CLI::App& app, std::string group = "") : app_(app), group_(std::move(group)) {}

  template <class T>
  void operator()(const char* key, T& value, const Limits& limits, const char* help) const {
    using Number = typename NumberOf<T>::type;
    grouped(app_.add_option(option_of(key), value, help))
        ->capture_default_str()
        ->check(in_limits<Number>(limits));
  }
  void operator()(const char* key, u64& value, const char* help) const {
    grouped(app_.add_option(option_of(key), value, help))
        ->capture_default_str()
        ->check(CLI::Validator(
            [](std::string& text) -> std::string {
              u64 number = 0;
              return parse_number(text, number) ? "" : str("\"", text, "\" is not a whole number");
            },
            str("[0 to ", ~u64{0}, "]")));
  }
  void operator()(const char* key, bool& value, const char* help) const {
    grouped(app_.add_flag(option_of(key), value, help));
  }
  void operator()(const char* key, std::string& value, const char* help) const {
    grouped(app_.add_option(option_of(key), value, help))
        ->capture_default_str()
        ->check(some_text());
  }
  template <class... NoHelp>
  void operator()(const char*, const NoHelp&...) const {}

 private:
  template <class T>
  struct NumberOf {
    using type = T;
  };
  template <class T>
  struct NumberOf<std::vector<T>> {
    using type = T;
  };
  CLI::Option* grouped(CLI::Option* option) const {
    return group_.empty() ? option : option->group(group_);
  }

  CLI::App& app_;
  std::string group_;
};

/// Sets the fields of `into` whose options were given, to what they are in `from`.
template <class Fields, class From, class To>
void take_given(const CLI::App& app, const From& from, To& into) {
  Fields::fields(from, [&](const char* key, const auto& value, const auto&...) {
    const CLI::Option* option = app.get_option_no_throw(option_of(key));
    if (option == nullptr || option->count() == 0) return;
    Fields::fields(into, [&](const char* other, auto& to, const auto&...) {
      if constexpr (std::is_same_v<decltype(value), const std::remove_reference_t<decltype(to)>&>)
        if (std::string_view(key) == other) to = value;
    });
  });
}

// Limits that several subcommands have.
constexpr i64 least_size = 32, most_size = 16384;  // pixels: five halvings of the network; memory
constexpr i64 most_batch = 65536, most_epochs = 1000000;
constexpr i64 most_images = 10000000;  // generated ones: their order is kept in memory

}  // namespace tool
