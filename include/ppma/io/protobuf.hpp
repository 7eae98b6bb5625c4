#pragma once
#include "ppma/core/names_begin.hpp"
// Writing protocol buffers (protobuf.dev, "Encoding"): a message is a row of fields, each a key
// (its number, how it is stored) and a value. There is no more to it, so no library is needed.

#include <string>
#include <string_view>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// A message that grows field by field; fields of one number make a repeated field.
class Protobuf {
 public:
  /// An int32, int64, enum or bool.
  PPMA_API Protobuf& integer(int field, i64 value);
  /// A float.
  PPMA_API Protobuf& real(int field, float value);
  /// A double.
  PPMA_API Protobuf& real64(int field, double value);
  /// A string or bytes.
  PPMA_API Protobuf& text(int field, std::string_view value);
  /// A message within this one.
  Protobuf& message(int field, const Protobuf& value) { return text(field, value.bytes_); }
  /// The key of a string, of bytes or of a message, whose so many bytes are written behind it.
  PPMA_API Protobuf& begin(int field, u64 bytes);

  /// What it is so far.
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(u64 value);
  std::string bytes_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

// Seven bits a byte, the lowest first; the eighth says that more follow.
inline void Protobuf::varint(u64 value) {
  for (; value >= 128; value >>= 7) bytes_ += static_cast<char>((value & 127) | 128);
  bytes_ += static_cast<char>(value);
}

Protobuf& Protobuf::integer(int field, i64 value) {
  varint(static_cast<u64>(field) << 3);
  varint(static_cast<u64>(value));
  return *this;
}

Protobuf& Protobuf::real(int field, float value) {
  varint((static_cast<u64>(field) << 3) | 5);
  const u32 bits = detail::bits_as<u32>(value);
  for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>((bits >> (8 * i)) & 255);
  return *this;
}

Protobuf& Protobuf::real64(int field, double value) {
  varint((static_cast<u64>(field) << 3) | 1);
  const u64 bits = detail::bits_as<u64>(value);
  for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>((bits >> (8 * i)) & 255);
  return *this;
}

Protobuf& Protobuf::text(int field, std::string_view value) {
  begin(field, value.size());
  bytes_ += value;
  return *this;
}

Protobuf& Protobuf::begin(int field, u64 bytes) {
  varint((static_cast<u64>(field) << 3) | 2);
  varint(bytes);
  return *this;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
