#pragma once
// What the tests of io/ share: the stored files, a folder for files of their own, bytes put
// together by hand.

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "ppma/io/element.hpp"
#include "ppma/io/file.hpp"

namespace io_test {

using namespace ppma;

/// Matches a text that has this piece: called Contains in Catch2 2 and ContainsSubstring in 3.
inline auto Contains(const std::string& piece) {
#if PPMA_CATCH == 3
  return Catch::Matchers::ContainsSubstring(piece);
#else
  return Catch::Matchers::Contains(piece);
#endif
}

/// The path of a file in tests/reference.
inline std::string reference(const std::string& name) {
  return (std::filesystem::path(__FILE__).parent_path().parent_path() / "reference" / name)
      .string();
}

/// A fresh folder that goes away with the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ppma-test-XXXXXX").string();
    check(::mkdtemp(pattern.data()) != nullptr, "cannot make ", pattern);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::size_t files() const {
    std::size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) n += entry.exists();
    return n;
  }

 private:
  std::string path_;
};

/// Writes a file, and the folder that it is in.
inline void put(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  write_file(path, std::string_view(text));
}

/// A grey image as a PGM file has it.
inline std::string picture(i64 width, i64 height) {
  return str("P5\n", width, " ", height, "\n255\n",
             std::string(static_cast<std::size_t>(width * height), 'x'));
}

/// Bytes by hand: Bytes b; b.add("text").number<u64>(7).
struct Crafted : std::vector<u8> {
  Crafted() = default;
  Crafted(const char* text) { add(text); }  // NOLINT(google-explicit-constructor)
  Crafted& add(std::string_view text) {
    insert(end(), text.begin(), text.end());
    return *this;
  }
  template <class T>
  Crafted& number(T value) {
    u8 raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof value);
    insert(end(), raw, raw + sizeof value);
    return *this;
  }
};

inline bool same_elements(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

/// The message of the ppma::Error that f throws; "" if it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace io_test
