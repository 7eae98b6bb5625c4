#pragma once
#include "ppma/core/names_begin.hpp"
// Event files, which TensorBoard shows: TFRecords, each an Event as protocol buffer (tensorflow's
// core/lib/io/record_writer.h, core/util/event.proto, core/framework/summary.proto).
//
//   EventFile events("runs/train");
//   events.scalar("train/loss", 0.31, 100);
//   events.image("decays", png, 100);
//   events.write();

#include <string>
#include <string_view>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

class EventFile {
 public:
  /// Into a new file of the folder, behind those that are there: its name begins with
  /// events.out.tfevents. It is made by the first write(). A run that goes on says with which step:
  /// what other files have from it on is not shown, so that no step is there twice. -1: it is new.
  PPMA_API explicit EventFile(std::string folder, i64 first_step = -1);

  /// A point of a curve; one that is not finite is shown as such.
  PPMA_API void scalar(const std::string& tag, double value, i64 step);
  /// The bytes of a PNG file. Error: they are none.
  PPMA_API void image(const std::string& tag, const std::vector<u8>& png, i64 step);
  /// Appends what is not yet in the file. A process that dies within leaves a last record that is
  /// cut off, which is not shown. Error: the file cannot be written.
  PPMA_API void write();

  /// Bytes that are not yet in the file.
  std::size_t waiting() const { return records_.size(); }
  /// Where it is; "" before the first write().
  const std::string& path() const { return path_; }

 private:
  std::string folder_, path_, records_;
};

namespace detail {

/// CRC-32C (Castagnoli), as RFC 3720 has it.
PPMA_API u32 crc32c(std::string_view bytes);

/// A record: length and its masked checksum, the bytes and theirs.
PPMA_API std::string tf_record(std::string_view bytes);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "ppma/core/error.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/protobuf.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

u32 crc32c(std::string_view bytes) {
  static const std::array<u32, 256> table = [] {
    std::array<u32, 256> t{};
    for (u32 n = 0; n < 256; ++n) {
      u32 c = n;
      for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? c >> 1 ^ 0x82f63b78u : c >> 1;
      t[n] = c;
    }
    return t;
  }();
  u32 crc = 0xffffffffu;
  for (const char c : bytes) crc = table[(crc ^ static_cast<u8>(c)) & 255] ^ crc >> 8;
  return ~crc;
}

std::string tf_record(std::string_view bytes) {
  std::string record;
  const auto put = [&](u64 value, int n) {
    for (int i = 0; i < n; ++i) record += static_cast<char>(value >> (8 * i) & 255);
  };
  const auto put_checksum = [&](std::string_view of) {
    const u32 crc = crc32c(of);
    put((crc >> 15 | crc << 17) + 0xa282ead8u, 4);
  };
  put(bytes.size(), 8);
  put_checksum(std::string(record));
  record += bytes;
  put_checksum(bytes);
  return record;
}

/// An event of now at a step.
inline Protobuf event_at(i64 step) {
  Protobuf event;
  event.real64(
      1,
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  return step == 0 ? event : event.integer(2, step);
}

inline constexpr std::string_view event_prefix = "events.out.tfevents.";

}  // namespace detail

EventFile::EventFile(std::string folder, i64 first_step) : folder_(std::move(folder)) {
  using namespace detail;
  records_ = tf_record(event_at(0).text(3, "brain.Event:2").bytes());
  constexpr i64 start = 1;  // SessionLog's status: what was from this step on is void
  if (first_step >= 0)
    records_ += tf_record(event_at(first_step).message(7, Protobuf().integer(1, start)).bytes());
}

void EventFile::scalar(const std::string& tag, double value, i64 step) {
  const Protobuf one = Protobuf().text(1, tag).real(2, static_cast<float>(value));
  records_ +=
      detail::tf_record(detail::event_at(step).message(5, Protobuf().message(1, one)).bytes());
}

void EventFile::image(const std::string& tag, const std::vector<u8>& png, i64 step) {
  // Its header comes first: 8 bytes that say what it is, 8 of the header's, width and height.
  check(png.size() > 26 && png[0] == 0x89 && png[1] == 'P', "event file: image ", tag,
        " is no PNG file");
  const auto number = [&](std::size_t at) {
    i64 n = 0;
    for (std::size_t i = at; i < at + 4; ++i) n = n << 8 | png[i];
    return n;
  };
  constexpr i64 channels[] = {1, 1, 3, 3, 2, 1, 4};  // by the colour type
  const i64 colors = channels[std::min<u8>(png[25], 6)];
  const Protobuf picture =
      Protobuf()
          .integer(1, number(20))
          .integer(2, number(16))
          .integer(3, colors)
          .text(4, std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
  const Protobuf one = Protobuf().text(1, tag).message(4, picture);
  records_ +=
      detail::tf_record(detail::event_at(step).message(5, Protobuf().message(1, one)).bytes());
}

void EventFile::write() {
  namespace fs = std::filesystem;
  if (path_.empty()) {
    // TensorBoard reads files in the order of their names, which are those of their seconds.
    i64 second = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
    std::error_code absent;
    for (fs::directory_iterator it(folder_, absent), end; !absent && it != end;
         it.increment(absent)) {
      const std::string name = it->path().filename().string();
      if (name.starts_with(detail::event_prefix))
        second = std::max(
            second, static_cast<i64>(
                        1 + std::strtoll(name.c_str() + detail::event_prefix.size(), nullptr, 10)));
    }
    char digits[32];
    std::snprintf(digits, sizeof digits, "%010lld", static_cast<long long>(second));
    path_ = folder_ + "/" + std::string(detail::event_prefix) + digits + ".ppma";
  }
  std::ofstream out(path_, std::ios::binary | std::ios::app);
  out.write(records_.data(), static_cast<std::streamsize>(records_.size()));
  out.close();
  check(!out.fail(), path_, ": cannot be written (", detail::os_reason(),
        "); is the disk full, or the folder read-only?");
  records_.clear();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
