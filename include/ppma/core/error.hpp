#pragma once
// ppma::Error, the one exception of the library, and check(), which throws it.
//
//   check(x.rank() == 4, "conv2d: x must be (B,H,W,C), got ", x.shape(), "; add the batch axis with reshape");
//
// A message says which op, which argument, what it is, what it should be, what to do. While a Scope is alive the
// message also says where in the network: "... (in layers.2.blocks.0.retention)".

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Thrown for every misuse, bad file or bad configuration. The library never aborts, exits or prints.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Names the module that is running, for the error message; nests, one list per thread.
class Scope {
 public:
  explicit Scope(std::string_view name) : name_(name), outer_(innermost()) { innermost() = this; }
  ~Scope() { innermost() = outer_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  /// "layers.2.blocks.0", or "" outside of every module.
  static std::string path() {
    std::string p;
    for (const Scope* s = innermost(); s != nullptr; s = s->outer_)
      p = p.empty() ? std::string(s->name_) : std::string(s->name_) + '.' + p;
    return p;
  }

 private:
  static const Scope*& innermost() {
    thread_local const Scope* top = nullptr;
    return top;
  }
  std::string_view name_;
  const Scope* outer_;
};

namespace detail {

// One way to print each kind of argument: text, numbers, and whatever has a to_string() found by its namespace.
inline std::string text(std::string_view s) { return std::string(s); }
template <class T>
std::string text(const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return std::string(std::string_view(value));
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, char>) {
    return std::string(1, value);
  } else if constexpr (std::is_floating_point_v<T>) {
    char buffer[40];
    const int n = __builtin_snprintf(buffer, sizeof buffer, "%.9g", static_cast<double>(value));
    return std::string(buffer, buffer + n);
  } else {
    using std::to_string;
    return to_string(value);
  }
}

}  // namespace detail

/// Joins its arguments into one string: str("got ", 3, " rows").
template <class... Parts>
std::string str(const Parts&... parts) {
  std::string s;
  ((s += detail::text(parts)), ...);
  return s;
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string message = str(parts...);
  if (const std::string path = Scope::path(); !path.empty()) message += " (in " + path + ")";
  throw Error(message);
}

/// Throws Error with the joined message unless `ok`. The parts are only turned into text on failure.
template <class... Parts>
PPMA_INLINE void check(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(parts...);
}

}  // namespace ppma::inline PPMA_ABI
