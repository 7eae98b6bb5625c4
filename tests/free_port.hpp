#pragma once
// A port of this machine on which nobody listens.

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "catch.hpp"
#include "ppma/parallel/socket.hpp"

inline ppma::i64 free_port() {
  using namespace ppma;
  const Socket s(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in a{};
  a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof a;
  REQUIRE(::bind(s.fd(), reinterpret_cast<sockaddr*>(&a), length) == 0);
  REQUIRE(::getsockname(s.fd(), reinterpret_cast<sockaddr*>(&a), &length) == 0);
  return ntohs(a.sin_port);
}
