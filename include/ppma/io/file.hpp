#pragma once
// Whole files: read at once, written aside and renamed, so that a reader (or a crash) never meets
// half a file. Every error names the path and the system's reason.

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Bytes owned by somebody else.
using Bytes = std::span<const u8>;

namespace detail {

// Called after the failure is known, never as an argument of check(): arguments are evaluated in
// any order.
inline std::string os_reason(int error = errno) { return std::generic_category().message(error); }

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

}  // namespace detail

/// The bytes of a regular file.
inline std::vector<u8> read_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) fail(path, ": cannot be read (", detail::os_reason(), ")");
  check(S_ISREG(info.st_mode), path, ": cannot be read (not a regular file)");
  const std::unique_ptr<std::FILE, detail::CloseFile> f(std::fopen(path.c_str(), "rb"));
  if (f == nullptr) fail(path, ": cannot be read (", detail::os_reason(), ")");
  std::vector<u8> bytes(static_cast<std::size_t>(info.st_size));
  const std::size_t got = bytes.empty() ? 0 : std::fread(bytes.data(), 1, bytes.size(), f.get());
  if (got != bytes.size())
    fail(path, ": only ", got, " of ", bytes.size(), " bytes could be read (",
         std::ferror(f.get()) ? detail::os_reason() : std::string("the file shrank meanwhile"), ")");
  return bytes;
}

/// Writes `path` through a temporary file in the same folder. Only commit() puts it in place;
/// without it (an exception between) the temporary file is removed and what was at `path` stays as
/// it was.
class FileWriter {
 public:
  explicit FileWriter(std::string path) : path_(std::move(path)) {
    static std::atomic<unsigned> counter{0};
    temporary_ = str(path_, ".tmp.", static_cast<i64>(::getpid()), ".", counter++);
    file_ = std::fopen(temporary_.c_str(), "wbx");  // x: never writes into somebody else's file
    if (file_ == nullptr) fail(path_, ": cannot be written (", detail::os_reason(), ")");
  }
  ~FileWriter() {
    if (file_ != nullptr) std::fclose(file_);
    if (!committed_) std::remove(temporary_.c_str());
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    if (std::fwrite(data, 1, bytes, file_) != bytes) fail(path_, ": cannot be written (", detail::os_reason(), ")");
    written_ += bytes;
  }
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(Bytes bytes) { write(bytes.data(), bytes.size()); }
  std::size_t written() const { return written_; }

  void commit() {
    bool ok = std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
    int error = errno;
    if (std::fclose(file_) != 0 && ok) {
      ok = false;
      error = errno;
    }
    file_ = nullptr;
    check(ok, path_, ": cannot be written (", detail::os_reason(error), ")");
    committed_ = std::rename(temporary_.c_str(), path_.c_str()) == 0;
    if (!committed_) fail(path_, ": cannot be replaced (", detail::os_reason(), ")");
  }

 private:
  std::string path_, temporary_;
  std::FILE* file_ = nullptr;
  std::size_t written_ = 0;
  bool committed_ = false;
};

/// Replaces the file at `path` by these bytes, whole or not at all.
inline void write_file(const std::string& path, Bytes bytes) {
  FileWriter file(path);
  file.write(bytes);
  file.commit();
}
inline void write_file(const std::string& path, std::string_view text) {
  FileWriter file(path);
  file.write(text);
  file.commit();
}

}  // namespace ppma::inline PPMA_ABI
