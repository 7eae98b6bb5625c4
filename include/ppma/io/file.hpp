#pragma once
#include "ppma/core/names_begin.hpp"
// Whole files: read at once, written aside and renamed, so that a reader (or a crash) never meets
// half a file. Every error names the path and the system's reason.

#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Bytes owned by somebody else.
using Bytes = std::span<const u8>;

/// The same bytes as characters.
inline std::string_view text_of(Bytes b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

namespace detail {

// Called after the failure is known, never as an argument of check(): arguments are evaluated in
// any order.
PPMA_API std::string os_reason(int error = errno);

/// What was renamed in a folder is on the disk when this returns. Some file systems know no such
/// wish: then it is theirs when to write.
PPMA_API void sync_folder(const std::string& path);

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

}  // namespace detail

/// Error unless `path` is a regular file; its size. The message names path and reason.
PPMA_API std::size_t size_of_file(const std::string& path);

/// The bytes of a regular file.
PPMA_API std::vector<u8> read_file(const std::string& path);

/// Reads a file here and there.
class PartReader {
 public:
  /// Error: it cannot be read.
  PPMA_API explicit PartReader(std::string path);
  /// Copies `bytes` from byte `begin` on. Error: there are less.
  PPMA_API void read(std::size_t begin, std::size_t bytes, u8* to) const;

 private:
  std::string path_;
  std::unique_ptr<std::FILE, detail::CloseFile> file_;
};

/// So many bytes of a file from byte `begin` on. Error: it has less.
PPMA_API std::vector<u8> read_part(const std::string& path, std::size_t begin, std::size_t bytes);

/// Writes `path` through a temporary file in the same folder. Only commit() puts it in place;
/// without it (an exception between) the temporary file is removed and what was at `path` stays as
/// it was. A link is followed, to replace the file that it names. What is no regular file, such as
/// /dev/stdout, is written to directly; a folder is refused.
class FileWriter {
 public:
  /// Opens a file beside `path`. Error: it cannot be written.
  PPMA_API explicit FileWriter(std::string path);
  PPMA_API ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  /// Appends. Error: the disk is full, or the file cannot be written.
  PPMA_API void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(Bytes bytes) { write(bytes.data(), bytes.size()); }
  /// Bytes so far.
  std::size_t written() const { return written_; }

  /// The file takes its name; without it nothing is left. Error: it cannot.
  PPMA_API void commit();

 private:
  PPMA_API void check_opened() const;

  std::string path_, target_, temporary_;  // as given; with links followed; "" if written directly
  std::FILE* file_ = nullptr;
  std::size_t written_ = 0;
  bool committed_ = false;
};

/// Replaces the file at `path` by these bytes, whole or not at all.
PPMA_API void write_file(const std::string& path, Bytes bytes);

/// Writes a file as FileWriter does.
PPMA_API void write_file(const std::string& path, std::string_view text);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <process.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

std::string os_reason(int error) { return std::generic_category().message(error); }

#if defined(_WIN32)
inline bool reach_disk(std::FILE* f) { return ::_commit(::_fileno(f)) == 0; }
inline bool go_to(std::FILE* f, std::size_t at) {
  return ::_fseeki64(f, static_cast<i64>(at), SEEK_SET) == 0;
}
inline i64 process_number() { return ::_getpid(); }
inline constexpr const char* anew = "wb";  // its C library knows no x
#else
inline bool reach_disk(std::FILE* f) { return ::fsync(::fileno(f)) == 0; }
inline bool go_to(std::FILE* f, std::size_t at) {
  return ::fseeko(f, static_cast<off_t>(at), SEEK_SET) == 0;
}
inline i64 process_number() { return ::getpid(); }
// x: never writes into somebody else's file.
inline constexpr const char* anew = "wbx";
#endif

void sync_folder([[maybe_unused]] const std::string& path) {
#if !defined(_WIN32)  // its folders cannot be opened
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
#endif
}

}  // namespace detail

std::size_t size_of_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    fail(path, ": cannot be read (", detail::os_reason(), "); check the path and who may read it");
  check(S_ISREG(info.st_mode), path, ": cannot be read (not a regular file); ",
        S_ISDIR(info.st_mode) ? "it is a folder: give a file in it" : "copy it into a file first");
  return static_cast<std::size_t>(info.st_size);
}

std::vector<u8> read_file(const std::string& path) {
  return read_part(path, 0, size_of_file(path));
}

PartReader::PartReader(std::string path)
    : path_(std::move(path)), file_(std::fopen(path_.c_str(), "rb")) {
  if (file_ == nullptr)
    fail(path_, ": cannot be read (", detail::os_reason(), "); check who may read it");
}

void PartReader::read(std::size_t begin, std::size_t bytes, u8* to) const {
  if (!detail::go_to(file_.get(), begin))
    fail(path_, ": cannot be read (", detail::os_reason(), "); copy it into a file first");
  const std::size_t got = bytes == 0 ? 0 : std::fread(to, 1, bytes, file_.get());
  if (got != bytes)
    fail(path_, ": only ", got, " of ", bytes, " bytes could be read (",
         std::ferror(file_.get()) ? detail::os_reason() : std::string("the file shrank meanwhile"),
         "); try again");
}

std::vector<u8> read_part(const std::string& path, std::size_t begin, std::size_t bytes) {
  std::vector<u8> part(bytes);
  PartReader(path).read(begin, bytes, part.data());
  return part;
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)), target_(path_) {
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0) {
    check(!S_ISDIR(info.st_mode), path_, ": cannot be replaced (a folder); choose another name");
    if (!S_ISREG(info.st_mode)) {
      file_ = std::fopen(path_.c_str(), "wb");
      check_opened();
      return;
    }
    std::error_code unknown;
    const std::filesystem::path real = std::filesystem::canonical(path_, unknown);
    if (!unknown) target_ = real.string();
  }
  // A file that a process of the same number left behind (in containers it is often 1) is passed
  // by.
  static std::atomic<unsigned> counter{0};
  for (int tries = 0; tries < 10000 && file_ == nullptr; ++tries) {
    temporary_ = str(target_, ".tmp.", detail::process_number(), ".", counter++);
    file_ = std::fopen(temporary_.c_str(), detail::anew);
    if (file_ == nullptr && errno != EEXIST) break;
  }
  check_opened();
}

FileWriter::~FileWriter() {
  if (file_ != nullptr) std::fclose(file_);
  if (!committed_ && !temporary_.empty()) std::remove(temporary_.c_str());
}

void FileWriter::write(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  if (std::fwrite(data, 1, bytes, file_) != bytes)
    fail(path_, ": cannot be written (", detail::os_reason(),
         "); make room, or choose another place");
  written_ += bytes;
}

void FileWriter::commit() {
  bool ok = std::fflush(file_) == 0;
  int error = errno;
  if (ok && !detail::reach_disk(file_) && !temporary_.empty())
    ok = false, error = errno;  // a pipe has none
  if (std::fclose(file_) != 0 && ok) ok = false, error = errno;
  file_ = nullptr;
  check(ok, path_, ": cannot be written (", detail::os_reason(error),
        "); make room, or choose another place");
  std::error_code refused;
  if (!temporary_.empty()) std::filesystem::rename(temporary_, target_, refused);
  committed_ = !refused;
  check(committed_, path_, ": cannot be replaced (", refused.message(), "); choose another name");
}

void FileWriter::check_opened() const {
  if (file_ == nullptr)
    fail(path_, ": cannot be written (", detail::os_reason(),
         "); make its folder, or choose another place");
}

void write_file(const std::string& path, Bytes bytes) {
  FileWriter file(path);
  file.write(bytes);
  file.commit();
}

void write_file(const std::string& path, std::string_view text) {
  FileWriter file(path);
  file.write(text);
  file.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
