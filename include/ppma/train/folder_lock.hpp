#pragma once
#include "ppma/core/names_begin.hpp"
// The lock of a folder that one process at a time may write to.

#include <string>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The lock of a folder: its file `lock`, locked with flock (on Windows: opened for one). The
/// system gives it up when the process ends, however it ends; what a dead process leaves is an
/// unlocked file.
class FolderLock {
 public:
  FolderLock() = default;
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() { release(); }

  bool held() const { return fd_ >= 0; }
  PPMA_API void release();

  /// Error: another process holds it. False, where the file system has no locks.
  PPMA_API bool take(const std::string& folder);

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <share.h>
#else
#include <sys/file.h>
#include <unistd.h>
#endif

#include <cerrno>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

#if defined(_WIN32)

void FolderLock::release() {
  if (fd_ < 0) return;
  ::_close(fd_);
  ::_unlink(path_.c_str());  // refused where another has opened it meanwhile
  fd_ = -1;
}

bool FolderLock::take(const std::string& folder) {
  path_ = folder + "/lock";
  fd_ =
      ::_sopen(path_.c_str(), _O_RDWR | _O_CREAT | _O_NOINHERIT, _SH_DENYRW, _S_IREAD | _S_IWRITE);
  if (fd_ >= 0) return true;
  check(errno != EACCES, folder,
        ": another process trains in this run folder, or nobody may write ",
        "to it; wait until it has ended, or choose another folder");
  fail(path_, ": cannot be written (", os_reason(), "); check who may write to the folder");
}

#else

void FolderLock::release() {
  if (fd_ < 0) return;
  ::unlink(path_.c_str());  // while it is held: who opened it meanwhile looks again
  ::close(fd_);
  fd_ = -1;
}

bool FolderLock::take(const std::string& folder) {
  path_ = folder + "/lock";
  for (;;) {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
      fail(path_, ": cannot be written (", os_reason(), "); check who may write to the folder");
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      char owner[24] = "";
      const ssize_t n = ::pread(fd, owner, sizeof owner - 1, 0);
      ::close(fd);
      if (error == EINTR) continue;
      const std::string digits = n > 0 ? std::string(owner, static_cast<std::size_t>(n)) : "";
      check(error != EWOULDBLOCK, folder, ": another process",
            digits.find_first_not_of("0123456789") == std::string::npos && !digits.empty()
                ? " (number " + digits + ")"
                : std::string(),
            " trains in this run folder; wait until it has ended, or choose another folder");
      ::unlink(path_.c_str());
      return false;
    }
    struct stat mine {
    }, there{};
    if (::fstat(fd, &mine) == 0 && ::stat(path_.c_str(), &there) == 0 &&
        mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) {
      fd_ = fd;
      break;
    }
    ::close(fd);  // its owner removed it between our two calls
  }
  const std::string number = std::to_string(::getpid());  // for the message alone
  if (::ftruncate(fd_, 0) == 0) static_cast<void>(!::pwrite(fd_, number.data(), number.size(), 0));
  return true;
}

#endif

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
