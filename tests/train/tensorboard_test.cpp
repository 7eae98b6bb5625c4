// Event files, read back: lengths, checksums that another way computes, and what events say.

#include "ppma/train/tensorboard.hpp"

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/protobuf.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// Bit by bit, as a division of polynomials.
u32 slow_crc32c(std::string_view bytes) {
  u32 crc = 0xffffffffu;
  for (const char c : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const u32 low = (crc ^ (static_cast<u32>(static_cast<u8>(c)) >> bit)) & 1;
      crc = crc >> 1 ^ (low != 0 ? 0x82f63b78u : 0);
    }
  return ~crc;
}

u64 number(std::string_view bytes, std::size_t at, std::size_t n) {
  REQUIRE(at + n <= bytes.size());
  u64 v = 0;
  for (std::size_t i = 0; i < n; ++i)
    v |= static_cast<u64>(static_cast<u8>(bytes[at + i])) << (8 * i);
  return v;
}

std::vector<std::string> records(const std::string& file) {
  const auto checksum = [&](std::string_view of) {
    const u32 c = slow_crc32c(of);
    return (c >> 15 | c << 17) + 0xa282ead8u;
  };
  std::vector<std::string> all;
  for (std::size_t at = 0; at < file.size();) {
    const u64 length = number(file, at, 8);
    CHECK(number(file, at + 8, 4) == checksum(std::string_view(file).substr(at, 8)));
    REQUIRE(at + 16 + length <= file.size());
    all.push_back(file.substr(at + 12, length));
    CHECK(number(file, at + 12 + length, 4) == checksum(all.back()));
    at += 16 + length;
  }
  return all;
}

// A message's fields: numbers as their bits, others as their bytes.
struct Message {
  std::map<u64, u64> numbers;
  std::map<u64, std::string> texts;

  explicit Message(std::string_view bytes) {
    std::size_t at = 0;
    const auto varint = [&] {
      u64 v = 0;
      for (int shift = 0;; shift += 7) {
        const u64 b = number(bytes, at++, 1);
        v |= (b & 127) << shift;
        if (b < 128) return v;
      }
    };
    while (at < bytes.size()) {
      const u64 key = varint(), field = key >> 3, kind = key & 7;
      if (kind == 0) numbers[field] = varint();
      if (kind == 1) numbers[field] = number(bytes, at, 8), at += 8;
      if (kind == 5) numbers[field] = number(bytes, at, 4), at += 4;
      if (kind == 2) {
        const u64 length = varint();
        REQUIRE(at + length <= bytes.size());
        texts[field] = bytes.substr(at, length), at += length;
      }
    }
  }
  Message at(u64 field) const { return Message(texts.at(field)); }
  float real(u64 field) const {
    const u32 bits = static_cast<u32>(numbers.at(field));
    float v = 0;
    std::memcpy(&v, &bits, 4);
    return v;
  }
};

std::string text_of(const std::string& path) {
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("event files: the checksum is RFC 3720's", "[train]") {
  CHECK(detail::crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(detail::crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
  CHECK(detail::crc32c("123456789") == 0xe3069283u);
  CHECK(slow_crc32c("123456789") == 0xe3069283u);
}

TEST_CASE("event files: scalars, pictures and a run that goes on", "[train]") {
  const io_test::Folder folder;
  EventFile events(folder / "");
  CHECK(events.path() == "");
  events.scalar("train/loss", 0.25, 0);
  events.scalar("train/loss", -1.5, 3000000000);
  events.scalar("test/none", std::numeric_limits<double>::quiet_NaN(), 7);
  std::vector<u8> png{0x89, 'P', 'N', 'G', '\r', '\n', 26, '\n', 0,   0, 0, 13, 'I', 'H', 'D',
                      'R',  0,   0,   1,   44,   0,    0,  0,    200, 8, 2, 0,  0,   0};
  events.image("decays", png, 7);
  events.write();
  CHECK(events.waiting() == 0);
  const auto first = records(text_of(events.path()));
  REQUIRE(first.size() == 5);
  const Message head(first[0]);
  CHECK(head.texts.at(3) == "brain.Event:2");
  double time = 0;
  std::memcpy(&time, &head.numbers.at(1), 8);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  CHECK(std::abs(time - now) < 60);
  const auto value = [](const std::string& record) { return Message(record).at(5).at(1); };
  CHECK(value(first[1]).texts.at(1) == "train/loss");
  CHECK(value(first[1]).real(2) == 0.25f);
  CHECK(!Message(first[1]).numbers.contains(2));  // step 0, which is left out
  CHECK(Message(first[2]).numbers.at(2) == 3000000000u);
  CHECK(value(first[2]).real(2) == -1.5f);
  CHECK(std::isnan(value(first[3]).real(2)));
  const Message image = value(first[4]).at(4);
  CHECK(image.numbers.at(1) == 200);  // height
  CHECK(image.numbers.at(2) == 300);
  CHECK(image.numbers.at(3) == 3);
  CHECK(image.texts.at(4) == std::string(png.begin(), png.end()));
  CHECK(says([&] { events.image("decays", {1, 2, 3}, 7); }, "image decays is no PNG file"));

  // What is added is appended; a run that goes on has a file behind it, which says from where on.
  events.scalar("train/loss", 0.1, 8);
  events.write();
  CHECK(records(text_of(events.path())).size() == 6);
  EventFile more(folder / "", 8);
  more.scalar("train/loss", 0.2, 8);
  more.write();
  CHECK(more.path() > events.path());
  const auto second = records(text_of(more.path()));
  REQUIRE(second.size() == 3);
  CHECK(Message(second[1]).numbers.at(2) == 8);
  CHECK(Message(second[1]).at(7).numbers.at(1) == 1);  // SessionLog.START
  EventFile nowhere(folder / "none");
  CHECK(says([&] { nowhere.write(); }, "cannot be written"));
}

TEST_CASE("protocol buffers: numbers of any size", "[train]") {
  // As protobuf.dev's page on the encoding has it: 150 in field 1; -1 has ten bytes.
  CHECK(Protobuf().integer(1, 150).bytes() == "\x08\x96\x01");
  CHECK(Protobuf().integer(1, -1).bytes().size() == 11);
  CHECK(Protobuf().text(2, "testing").bytes() == "\x12\x07testing");
  CHECK(Protobuf().real64(1, 1.0).bytes() == std::string("\x09\0\0\0\0\0\0\xf0\x3f", 9));
  CHECK(Protobuf().real(1, 1.0f).bytes() == std::string("\x0d\0\0\x80\x3f", 5));
}
