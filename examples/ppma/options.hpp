#pragma once
// Values of options: each has a range, which --help states and with which what is given is checked
// before anything begins.
//
// To add an option: ->check(in_range(least, most)) for a number, ->check(some_text()) for a name.
// One that is also kept in a file is a field of its command (core/limits.hpp), with its help:
// add_fields.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ppma/commands/numbers.hpp"
#include "ppma/commands/observer.hpp"
#include "ppma/core/error.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/io/utf8.hpp"

namespace tool {

using namespace ppma;

/// The option of a field: "--data-dir" of "data_dir".
inline std::string option_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

/// Text of the library with its fields, `data_dir`, as options (ppma/commands/observer.hpp).
inline std::string with_options(std::string_view text) {
  std::string s;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t end = text[i] == '`' ? text.find('`', i + 1) : std::string::npos;
    const std::string_view key =
        end == std::string::npos ? std::string_view() : text.substr(i + 1, end - i - 1);
    if (key.empty() || key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") < key.size())
      s += text[i];
    else
      s += option_of(std::string(key)), i = end;
  }
  return s;
}

/// A message in one line that a terminal may show; of numbers of hundreds of digits the first ones.
inline std::string shown(std::string_view message) {
  const std::string text = with_options(message);
  constexpr std::size_t most_digits = 40, most = 4000;
  std::string s;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    if (end - i > most_digits)
      s += str(std::string_view(text).substr(i, 12), "... (", end - i, " digits)"), i = end;
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

/// What commands find worth knowing is shown so.
struct Notes : Observer {
  void note(const std::string& text) override { tool::note(text); }
};
inline Observer& notes() {
  static Notes all;
  return all;
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

/// Adds an option for each field that has a help text: a number with its limits, a flag, or text.
class AddFields {
 public:
  explicit AddFields(CLI::App& app, std::string group = "") : app_(app), group_(std::move(group)) {}

  template <class T>
  void operator()(const char* key, T& value, const Limits& limits, const char* help) const {
    using Number = typename NumberOf<T>::type;
    grouped(app_.add_option(option_of(key), value, with_options(help)))
        ->capture_default_str()
        ->check(in_limits<Number>(limits));
  }
  void operator()(const char* key, u64& value, const char* help) const {
    grouped(app_.add_option(option_of(key), value, with_options(help)))
        ->capture_default_str()
        ->check(CLI::Validator(
            [](std::string& text) -> std::string {
              u64 number = 0;
              return parse_number(text, number) ? "" : str("\"", text, "\" is not a whole number");
            },
            str("[0 to ", ~u64{0}, "]")));
  }
  void operator()(const char* key, bool& value, const char* help) const {
    grouped(app_.add_flag(option_of(key), value, with_options(help)));
  }
  void operator()(const char* key, std::string& value, const char* help) const {
    grouped(app_.add_option(option_of(key), value, with_options(help)))
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

}  // namespace tool
