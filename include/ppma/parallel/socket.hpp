#pragma once
#include "ppma/core/names_begin.hpp"
// TCP connections whose end is noticed: at once where a process dies, within half a minute where
// its machine does. The one header that knows the system's sockets, POSIX's or Windows' (which has
// no notice of a closed half: there a death is noticed when it is that process's turn to speak).

#include <string>
#include <utility>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

class Socket {
 public:
  /// Owns the descriptor; -1: none.
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  PPMA_API Socket& operator=(Socket&& other) noexcept;
  PPMA_API ~Socket();
  /// The descriptor.
  int fd() const { return fd_; }
  /// Whether there is one.
  explicit operator bool() const { return fd_ >= 0; }
  /// Ends the connection; other threads that wait on it return.
  PPMA_API void shut() const;
  /// Ends one's own part of it: what was sent still arrives.
  PPMA_API void shut_sending() const;

  /// Messages leave at once; a machine that does not answer is given up after about 30 s.
  PPMA_API void set_up() const;

  /// False where the connection has ended.
  PPMA_API bool send(const void* from, i64 bytes) const;
  /// Waits for so many bytes; false: the connection ended before they were there.
  PPMA_API bool receive(void* to, i64 bytes) const;
  /// True if something can be read, or the other side has ended, within so many seconds.
  PPMA_API bool readable(double seconds) const;

  /// The next connection to a socket that listens; empty where that failed.
  PPMA_API Socket accepted() const;

 private:
  int fd_;
};

/// Which of the sockets speaks first, and whether it can be read (false: it has ended): waits for
/// words of `expected` alone, and for the end of any.
struct Ready {
  std::size_t which;
  bool readable;
};
/// See Ready.
PPMA_API Ready first_ready(const std::vector<Socket>& sockets, const Socket& expected);

/// Listens on the address that `host` has here: on 127.0.0.1, this machine alone can connect.
PPMA_API Socket listen_on(const std::string& host, i64 port);

/// Tries until the other side listens.
PPMA_API Socket connect_to(const std::string& host, i64 port, double seconds);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <winsock2.h>
#include <ws2tcpip.h>  // link ws2_32
#else
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail::net {

// What the two systems call by different names.
#if defined(_WIN32)
inline constexpr int close_on_exec = 0, no_signal = 0, sending = SD_SEND, both = SD_BOTH;
inline void start() {
  static const int started = [] {
    WSADATA data;
    return ::WSAStartup(MAKEWORD(2, 2), &data);
  }();
  check(started == 0, "parallel: Windows' sockets cannot be used (", started, ")");
}
inline void close(int fd) { ::closesocket(static_cast<SOCKET>(fd)); }
inline int poll(pollfd* all, std::size_t n, int ms) {
  return ::WSAPoll(all, static_cast<ULONG>(n), ms);
}
inline pollfd asked(int fd, short events) { return {static_cast<SOCKET>(fd), events, 0}; }
inline int last_error() { return ::WSAGetLastError(); }
inline bool interrupted() { return false; }
using Length = int;
#else
inline constexpr int close_on_exec = SOCK_CLOEXEC, no_signal = MSG_NOSIGNAL, sending = SHUT_WR,
                     both = SHUT_RDWR;
inline void start() {}
inline void close(int fd) { ::close(fd); }
inline int poll(pollfd* all, std::size_t n, int ms) { return ::poll(all, n, ms); }
inline pollfd asked(int fd, short events) { return {fd, events, 0}; }
inline int last_error() { return errno; }
inline bool interrupted() { return errno == EINTR; }
using Length = std::size_t;
#endif
#if defined(POLLRDHUP)
inline constexpr short gone = POLLRDHUP;
#else
inline constexpr short gone = 0;
#endif

inline constexpr i64 most = 1 << 30;  // bytes in a call
inline std::string reason(int error) { return std::system_category().message(error); }

}  // namespace detail::net

Socket::~Socket() {
  if (fd_ >= 0) detail::net::close(fd_);
}

void Socket::shut() const {
  if (fd_ >= 0) ::shutdown(fd_, detail::net::both);
}

void Socket::shut_sending() const {
  if (fd_ >= 0) ::shutdown(fd_, detail::net::sending);
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void Socket::set_up() const {
  const auto set = [this](int level, int name, int value) {
    ::setsockopt(fd_, level, name, reinterpret_cast<const char*>(&value), sizeof value);
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
    const auto n =
        ::send(fd_, p, static_cast<detail::net::Length>(std::min(bytes, detail::net::most)),
               detail::net::no_signal);
    if (n < 0 && detail::net::interrupted()) continue;
    if (n <= 0) return false;
    p += n, bytes -= n;
  }
  return true;
}

bool Socket::receive(void* to, i64 bytes) const {
  for (char* p = static_cast<char*>(to); bytes > 0;) {
    const auto n =
        ::recv(fd_, p, static_cast<detail::net::Length>(std::min(bytes, detail::net::most)), 0);
    if (n < 0 && detail::net::interrupted()) continue;
    if (n <= 0) return false;
    p += n, bytes -= n;
  }
  return true;
}

bool Socket::readable(double seconds) const {
  pollfd p = detail::net::asked(fd_, POLLIN);
  return detail::net::poll(&p, 1, static_cast<int>(seconds * 1000)) > 0;
}

Socket Socket::accepted() const {
  return Socket(static_cast<int>(::accept(fd_, nullptr, nullptr)));
}

Ready first_ready(const std::vector<Socket>& sockets, const Socket& expected) {
  using namespace detail::net;
  std::vector<pollfd> all;
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    if (!sockets[i]) continue;
    all.push_back(asked(sockets[i].fd(),
                        static_cast<short>(&sockets[i] == &expected ? POLLIN | gone : gone)));
    which.push_back(i);
  }
  for (;;) {
    const int n = detail::net::poll(all.data(), all.size(), -1);
    check(n >= 0 || interrupted(), "parallel: waiting failed (", reason(last_error()), ")");
    for (std::size_t i = 0; n > 0 && i < all.size(); ++i)
      if (all[i].revents != 0)
        return {which[i], &sockets[which[i]] == &expected && (all[i].revents & POLLIN) != 0};
  }
}

namespace detail {

struct Addresses {
  addrinfo* first = nullptr;
  Addresses(const std::string& host, i64 port) {
    net::start();
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

inline Socket socket_for(const addrinfo& a) {
  return Socket(
      static_cast<int>(::socket(a.ai_family, a.ai_socktype | net::close_on_exec, a.ai_protocol)));
}

}  // namespace detail

Socket listen_on(const std::string& host, i64 port) {
  const detail::Addresses addresses(host, port);
  int error = 0;
  for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
    Socket s = detail::socket_for(*a);
#if !defined(_WIN32)  // there it would let two listen on one port
    const int on = 1;
    if (s) ::setsockopt(s.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
#endif
    if (s && ::bind(s.fd(), a->ai_addr, static_cast<socklen_t>(a->ai_addrlen)) == 0 &&
        ::listen(s.fd(), 1024) == 0)
      return s;
    error = detail::net::last_error();
  }
  fail("parallel: rank 0 cannot listen on ", host, " port ", port, " (", detail::net::reason(error),
       "); MASTER_ADDR must be rank 0's own address, MASTER_PORT a free port");
}

Socket connect_to(const std::string& host, i64 port, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const detail::Addresses addresses(host, port);
  for (;;) {
    for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
      Socket s = detail::socket_for(*a);
      if (s && ::connect(s.fd(), a->ai_addr, static_cast<socklen_t>(a->ai_addrlen)) == 0) return s;
    }
    check(std::chrono::steady_clock::now() < end, "parallel: rank 0 did not listen on ", host,
          " port ", port, " within ", seconds, " s (",
          detail::net::reason(detail::net::last_error()),
          "); are MASTER_ADDR and MASTER_PORT right, and was rank 0 started?");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
