#pragma once
#include "ppma/core/names_begin.hpp"
// ppma::Error, the one exception of the library, and check(), which throws it.
//
//   check(x.rank() == 4, "conv2d: x must be (B,H,W,C), got ", x.shape(), "; use reshape");
//
// A message says which op, which argument, what it is, what it should be, what to do. While a Scope
// is alive the message also says where in the network: "... (in layers.2.blocks.0.retention)".

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Thrown for every misuse, bad file or bad configuration. The library never aborts, exits or
/// prints.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Names the module that is running, for the error message; nests, one list per thread.
class Scope {
 public:
  /// Until it dies, errors of this thread begin with this name.
  PPMA_API explicit Scope(std::string_view name);
  PPMA_API ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  /// "layers.2.blocks.0", or "" outside of every module.
  PPMA_API static std::string path();

 private:
  PPMA_API static const Scope*& innermost();
  std::string_view name_;
  const Scope* outer_;
};

namespace detail {

// One way to print each kind of argument: text, numbers, and whatever has a to_string() found by
// its namespace.
PPMA_API void append_number(std::string& s, double value);
template <class T>
void append_part(std::string& s, const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    s += std::string_view(value);
  } else if constexpr (std::is_same_v<T, bool>) {
    s += value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, char>) {
    s += value;
  } else if constexpr (std::is_floating_point_v<T>) {
    append_number(s, static_cast<double>(value));
  } else {
    using std::to_string;
    s += to_string(value);
  }
}

// A part of a message: where its value is, and how it is printed. All messages are joined by one
// function, whatever their parts are: there are hundreds of messages, and a function for each
// combination of types (every length of a literal is a type) was a third of a small program.
struct Part {
  const void* value;
  void (*append_to)(std::string&, const void*);

  Part(const char* text)  // literals of every length
      : value(text),
        append_to([](std::string& s, const void* t) { s += static_cast<const char*>(t); }) {}
  template <class T>
  Part(const T& v)
      : value(&v), append_to([](std::string& s, const void* t) {
          append_part(s, *static_cast<const T*>(t));
        }) {}
};

PPMA_API std::string join(std::initializer_list<Part> parts);

[[noreturn]] __attribute__((cold)) PPMA_API void fail_with(std::initializer_list<Part> parts);

}  // namespace detail

/// Joins its arguments into one string: str("got ", 3, " rows").
template <class... Parts>
std::string str(const Parts&... parts) {
  return detail::join({detail::Part(parts)...});
}

/// Throws Error with the joined message.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  detail::fail_with({detail::Part(parts)...});
}

/// Throws Error with the joined message unless `ok`. The parts are only turned into text on
/// failure.
template <class... Parts>
PPMA_INLINE void check(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::fail_with({detail::Part(parts)...});
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

namespace ppma::inline PPMA_ABI {

const Scope*& Scope::innermost() {
  thread_local const Scope* top = nullptr;
  return top;
}

Scope::Scope(std::string_view name) : name_(name), outer_(innermost()) { innermost() = this; }

Scope::~Scope() { innermost() = outer_; }

std::string Scope::path() {
  std::string p;
  for (const Scope* s = innermost(); s != nullptr; s = s->outer_)
    p = p.empty() ? std::string(s->name_) : std::string(s->name_) + '.' + p;
  return p;
}

namespace detail {

void append_number(std::string& s, double value) {
  char buffer[40];
  const int n = __builtin_snprintf(buffer, sizeof buffer, "%.9g", value);
  s.append(buffer, buffer + n);
}

std::string join(std::initializer_list<Part> parts) {
  std::string s;
  for (const Part& part : parts) part.append_to(s, part.value);
  return s;
}

void fail_with(std::initializer_list<Part> parts) {
  std::string message = join(parts);
  if (const std::string path = Scope::path(); !path.empty()) message += " (in " + path + ")";
  throw Error(message);
}

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
