#pragma once
// Reads a protocol buffer back, from the definition of its encoding.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "ppma/core/config.hpp"

namespace onnx_test {

using namespace ppma;

struct Message {
  std::multimap<int, u64> numbers;
  std::multimap<int, std::string> texts;

  explicit Message(std::string_view bytes) {
    const auto varint = [&bytes] {
      u64 value = 0;
      for (int shift = 0;; shift += 7) {
        REQUIRE((!bytes.empty() && shift < 64));
        const u8 byte = static_cast<u8>(bytes[0]);
        bytes.remove_prefix(1);
        value |= static_cast<u64>(byte & 127) << shift;
        if (byte < 128) return value;
      }
    };
    const auto take = [&bytes](u64 n) {
      REQUIRE(n <= bytes.size());
      const std::string_view taken = bytes.substr(0, n);
      bytes.remove_prefix(n);
      return taken;
    };
    while (!bytes.empty()) {
      const u64 key = varint();
      const int field = static_cast<int>(key >> 3);
      if ((key & 7) == 0)
        numbers.emplace(field, varint());
      else
        texts.emplace(field, take((key & 7) == 5 ? 4 : varint()));
    }
  }
  i64 number(int field) const {
    REQUIRE(numbers.count(field) == 1);
    return static_cast<i64>(numbers.find(field)->second);
  }
  std::string text(int field) const {
    REQUIRE(texts.count(field) == 1);
    return texts.find(field)->second;
  }
  std::vector<std::string> all(int field) const {
    std::vector<std::string> v;
    for (auto [at, end] = texts.equal_range(field); at != end; ++at) v.emplace_back(at->second);
    return v;
  }
  std::vector<Message> messages(int field) const {
    std::vector<Message> v;
    for (auto [at, end] = texts.equal_range(field); at != end; ++at) v.emplace_back(at->second);
    return v;
  }
};

// "images (batch,3,32,32) f32"
inline std::string described(const Message& value) {
  const Message type = Message(value.text(2)).messages(1).at(0);
  std::string s = value.text(1) + " (";
  for (const Message& size : Message(type.text(2)).messages(1))
    s += (s.back() == '(' ? "" : ",") +
         (size.numbers.empty() ? size.text(2) : std::to_string(size.number(1)));
  return s + (type.number(1) == 1   ? ") f32"
              : type.number(1) == 7 ? ") int64"
                                    : ") of another type");
}

// The metadata of a model.
inline std::map<std::string, std::string> metadata_of(const Message& model) {
  std::map<std::string, std::string> all;
  for (const Message& entry : model.messages(14)) all[entry.text(1)] = entry.text(2);
  return all;
}

}  // namespace onnx_test
