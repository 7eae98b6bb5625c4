#pragma once
// thrown(f): the message of the ppma::Error that f throws, or "nothing". Tests look for a piece of
// it:
//   CHECK(says([] { gelu(Tensor()); }, "gelu: the argument is an undefined tensor"));

#include <string>

#include "catch.hpp"
#include "ppma/core/error.hpp"

template <class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const ppma::Error& e) {
    return e.what();
  }
  return "nothing";
}

/// True if f throws an Error whose message contains `piece`; otherwise the message is shown.
template <class F>
bool says(F&& f, const std::string& piece) {
  const std::string message = thrown(f);
  if (message.find(piece) != std::string::npos) return true;
  FAIL_CHECK("expected a message with: " << piece << "\n                     got: " << message);
  return false;
}
