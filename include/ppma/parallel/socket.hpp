#pragma once
#include "ppma/core/names_begin.hpp"
// TCP connections (POSIX) whose end is noticed: at once where a process dies, within half a minute
// where its machine does.

#include <string>
#include <utility>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  PPMA_API Socket& operator=(Socket&& other) noexcept;
  PPMA_API ~Socket();
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  /// Ends the connection; other threads that wait on it return.
  PPMA_API void shut() const;

  /// Messages leave at once; a machine that does not answer is given up after about 30 s.
  PPMA_API void set_up() const;

  /// False where the connection has ended.
  PPMA_API bool send(const void* from, i64 bytes) const;
  PPMA_API bool receive(void* to, i64 bytes) const;
  /// True if something can be read, or the other side has ended, within so many seconds.
  PPMA_API bool readable(double seconds) const;

 private:
  int fd_;
};

/// Listens on the address that `host` has here: on 127.0.0.1, this machine alone can connect.
PPMA_API Socket listen_on(const std::string& host, i64 port);

/// Tries until the other side listens.
PPMA_API Socket connect_to(const std::string& host, i64 port, double seconds);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

void Socket::shut() const {
  if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void Socket::set_up() const {
  const auto set = [this](int level, int name, int value) {
    ::setsockopt(fd_, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
  set(IPPROTO_TCP, TCP_KEEPIDLE, 15), set(IPPROTO_TCP, TCP_KEEPINTVL, 5),
      set(IPPROTO_TCP, TCP_KEEPCNT, 3);
#endif
#ifdef TCP_USER_TIMEOUT
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
#endif
}

bool Socket::send(const void* from, i64 bytes) const {
  for (const char* p = static_cast<const char*>(from); bytes > 0;) {
    const auto n = ::send(fd_, p, static_cast<std::size_t>(bytes), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n, bytes -= n;
  }
  return true;
}

bool Socket::receive(void* to, i64 bytes) const {
  for (char* p = static_cast<char*>(to); bytes > 0;) {
    const auto n = ::recv(fd_, p, static_cast<std::size_t>(bytes), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n, bytes -= n;
  }
  return true;
}

bool Socket::readable(double seconds) const {
  pollfd p{fd_, POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(seconds * 1000)) > 0;
}

namespace detail {

struct Addresses {
  addrinfo* first = nullptr;
  Addresses(const std::string& host, i64 port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC, hints.ai_socktype = SOCK_STREAM;
    const int status = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &first);
    check(status == 0, "parallel: MASTER_ADDR ", host, " is not known here (",
          ::gai_strerror(status), ")");
  }
  ~Addresses() { ::freeaddrinfo(first); }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;
};

}  // namespace detail

Socket listen_on(const std::string& host, i64 port) {
  const detail::Addresses addresses(host, port);
  int error = 0;
  for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
    Socket s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int on = 1;
    if (s) ::setsockopt(s.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (s && ::bind(s.fd(), a->ai_addr, a->ai_addrlen) == 0 && ::listen(s.fd(), 1024) == 0)
      return s;
    error = errno;
  }
  fail("parallel: rank 0 cannot listen on ", host, " port ", port, " (", std::strerror(error),
       "); MASTER_ADDR must be rank 0's own address, MASTER_PORT a free port");
}

Socket connect_to(const std::string& host, i64 port, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const detail::Addresses addresses(host, port);
  for (;;) {
    for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
      Socket s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
      if (s && ::connect(s.fd(), a->ai_addr, a->ai_addrlen) == 0) return s;
    }
    check(std::chrono::steady_clock::now() < end, "parallel: rank 0 did not listen on ", host,
          " port ", port, " within ", seconds, " s (", std::strerror(errno),
          "); are MASTER_ADDR and MASTER_PORT right, and was rank 0 started?");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
