#pragma once
#include "ppma/core/names_begin.hpp"
// Communicators over TCP: every process is connected with rank 0, which adds what the others send
// in the order of their ranks and sends the sum back. So all have the same bits; a process that
// dies is noticed by rank 0, which tells the others.
// For host memory (tensors on a GPU pass through it); rank 0's traffic grows with the number of
// processes.

#include <memory>
#include <string>
#include <vector>

#include "ppma/parallel/communicator.hpp"
#include "ppma/parallel/launch.hpp"
#include "ppma/parallel/socket.hpp"

namespace ppma::inline PPMA_ABI {

class TcpGroup {
 public:
  /// peers: of rank 0 a connection to each other rank (that of itself is empty), else one, to rank
  /// 0.
  TcpGroup(const Launch& launch, std::vector<Socket> peers)
      : rank_(launch.rank), size_(launch.size), peers_(std::move(peers)) {}
  TcpGroup(const TcpGroup&) = delete;
  TcpGroup& operator=(const TcpGroup&) = delete;
  ~TcpGroup() { abort(); }

  /// Ends all connections: whoever waits for this process gets an error.
  void abort() const {
    for (const Socket& s : peers_) s.shut();
  }

  /// The sum over all processes, in every one.
  PPMA_API void all_reduce_sum(Tensor& t);

  /// What process `root` has, in every one.
  PPMA_API void broadcast(Tensor& t, i64 root);

  /// Returns when every process has called it.
  PPMA_API void barrier();

 private:
  struct Frame {
    enum What : u32 { sum = 0x70706d01, copy, failure };
    u32 what = 0, dtype = 0;
    u64 number = 0, bytes = 0;
  };
  Frame next(Frame::What what, const Tensor& t) {
    return {what, static_cast<u32>(t.dtype()), ++number_, static_cast<u64>(t.bytes())};
  }
  Socket& peer(i64 r) { return peers_[static_cast<std::size_t>(r)]; }

  template <class F>
  static void through_host(Tensor& t, F f) {
    Tensor here = t.to(Device::cpu);
    f(here);
    t.copy_from(here);
  }

  PPMA_API void tell(const Socket& to, const Frame& frame, const void* elements);

  PPMA_API void hear(const Socket& from, const Frame& want, void* elements, i64 r);

  // Until `from` has something, while nobody else goes away: one who dies is not waited for behind
  // one who computes.
  PPMA_API void wait_for(const Socket& from);

  [[noreturn]] PPMA_API void refuse(const Socket& from, const Frame& got, const Frame& want, i64 r);
  [[noreturn]] PPMA_API void lost(const Socket* s);
  // Ends the group: rank 0 tells the others why.
  [[noreturn]] PPMA_API void over(const std::string& why);

  i64 rank_, size_;
  u64 number_ = 0;
  std::vector<Socket> peers_;
};

/// The group's sums as what a Trainer takes.
PPMA_API Communicator communicator_of(const std::shared_ptr<TcpGroup>& group, const Launch& launch);

/// As many independent communicators as asked for, each for one thread at a time. All processes
/// must call it; it returns when all are there. Errors: an address that does not work, somebody
/// missing after `seconds`, two of one rank, a group that is of another size elsewhere.
PPMA_API std::vector<Communicator> connect_tcp(const Launch& launch, i64 channels = 1,
                                               double seconds = 60);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

#include <chrono>

#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI {

void TcpGroup::all_reduce_sum(Tensor& t) {
  if (t.device() != Device::cpu)
    return through_host(t, [this](Tensor& here) { all_reduce_sum(here); });
  const Frame frame = next(Frame::sum, t);
  if (rank_ != 0) {
    tell(peers_[0], frame, t.raw());
    return hear(peers_[0], frame, t.raw(), 0);
  }
  Tensor other = Tensor::empty(t.shape(), t.dtype());
  for (i64 r = 1; r < size_; ++r) {
    hear(peer(r), frame, other.raw(), r);
    if (t.dtype() == DType::int64)
      for (i64 i = 0; i < t.numel(); ++i) t.data<i64>()[i] += other.data<i64>()[i];
    else
      visit(Device::cpu, t.dtype(), "all_reduce_sum", [&](auto on, auto zero) {
        using T = decltype(zero);
        kernels::add_to(on, t.numel(), std::as_const(other).template data<T>(), t.data<T>());
      });
  }
  for (i64 r = 1; r < size_; ++r) tell(peer(r), frame, t.raw());
}

void TcpGroup::broadcast(Tensor& t, i64 root) {
  check(root == 0, "broadcast: from rank ", root, "; only rank 0 can be the root");
  if (t.device() != Device::cpu)
    return through_host(t, [this](Tensor& here) { broadcast(here, 0); });
  const Frame frame = next(Frame::copy, t);
  if (rank_ != 0) return hear(peers_[0], frame, t.raw(), 0);
  for (i64 r = 1; r < size_; ++r) tell(peer(r), frame, t.raw());
}

void TcpGroup::barrier() {
  Tensor t = Tensor::zeros({1}, DType::f64);
  all_reduce_sum(t);
}

void TcpGroup::tell(const Socket& to, const Frame& frame, const void* elements) {
  if (to.send(&frame, sizeof frame) && to.send(elements, static_cast<i64>(frame.bytes))) return;
  if (rank_ != 0) {  // why, rank 0 may have said
    Frame last;
    if (to.receive(&last, sizeof last)) refuse(to, last, frame, 0);
  }
  lost(&to);
}

void TcpGroup::hear(const Socket& from, const Frame& want, void* elements, i64 r) {
  wait_for(from);
  Frame got;
  if (!from.receive(&got, sizeof got)) lost(&from);
  if (got.what != want.what || got.dtype != want.dtype || got.number != want.number ||
      got.bytes != want.bytes)
    refuse(from, got, want, r);
  if (!from.receive(elements, static_cast<i64>(want.bytes))) lost(&from);
}

void TcpGroup::wait_for(const Socket& from) {
  const Ready ready = first_ready(peers_, from);
  if (!ready.readable) lost(&peers_[ready.which]);
}

void TcpGroup::refuse(const Socket& from, const Frame& got, const Frame& want, i64 r) {
  if (got.what == Frame::failure && got.bytes < 4096) {
    std::string text(got.bytes, ' ');
    if (!from.receive(text.data(), static_cast<i64>(text.size()))) text = "rank 0 has ended";
    abort();
    fail("parallel: rank ", rank_, ": ", text);
  }
  over(str("rank ", r, " sent message ", got.number, " of ", got.bytes, " bytes, rank ", rank_,
           " is at ", want.number, " of ", want.bytes, "; all must do the same steps"));
}

void TcpGroup::lost(const Socket* s) {
  over(str("the connection to rank ", rank_ == 0 ? s - peers_.data() : 0,
           " has ended: that process died or gave up"));
}

void TcpGroup::over(const std::string& why) {
  if (rank_ == 0)
    for (const Socket& s : peers_) {
      const Frame frame{Frame::failure, 0, 0, why.size()};
      if (s && s.send(&frame, sizeof frame)) s.send(why.data(), static_cast<i64>(why.size()));
    }
  for (const Socket& s : peers_)
    rank_ == 0 ? s.shut_sending() : s.shut();  // what was said still arrives
  fail("parallel: rank ", rank_, ": ", why);
}

Communicator communicator_of(const std::shared_ptr<TcpGroup>& group, const Launch& launch) {
  Communicator c;
  c.rank = launch.rank, c.size = launch.size;
  c.all_reduce_sum = [group](Tensor& t) { group->all_reduce_sum(t); };
  c.broadcast = [group](Tensor& t, i64 root) { group->broadcast(t, root); };
  c.barrier = [group] { group->barrier(); };
  c.abort = [group] { group->abort(); };
  return c;
}

std::vector<Communicator> connect_tcp(const Launch& launch, i64 channels, double seconds) {
  struct Hello {
    u64 magic = 0x50504d4148454c4fu;
    i64 rank = 0, size = 0, channel = 0;
  };
  std::vector<std::vector<Socket>> peers(static_cast<std::size_t>(channels));
  if (launch.rank != 0) {
    for (i64 c = 0; c < channels; ++c) {
      Socket s = connect_to(launch.host, launch.port, seconds);
      s.set_up();
      Hello hello;
      hello.rank = launch.rank, hello.size = launch.size, hello.channel = c;
      check(s.send(&hello, sizeof hello), "parallel: rank ", launch.rank,
            ": rank 0 has ended the connection");
      peers[static_cast<std::size_t>(c)].push_back(std::move(s));
    }
    for (const auto& p : peers) {
      u64 length = 0;
      check(p[0].readable(seconds + 5) && p[0].receive(&length, sizeof length) && length < 4096,
            "parallel: rank ", launch.rank,
            ": rank 0 has ended the connection, or somebody did not come");
      std::string why(length, ' ');
      if (length > 0) p[0].receive(why.data(), static_cast<i64>(length));
      check(length == 0, "parallel: rank ", launch.rank, ": ", why);
    }
  } else if (launch.size > 1) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    const Socket listening = listen_on(launch.host, launch.port);
    for (auto& p : peers)
      for (i64 r = 0; r < launch.size; ++r) p.emplace_back();
    const auto over = [&peers](const std::string& why, const Socket* last = nullptr) {
      const u64 length = why.size();
      const auto tell = [&](const Socket& s) {
        if (s && s.send(&length, sizeof length)) s.send(why.data(), static_cast<i64>(length));
      };
      for (const auto& p : peers)
        for (const Socket& s : p) tell(s);
      if (last != nullptr) tell(*last);
      fail("parallel: rank 0: ", why);
    };
    for (i64 missing = (launch.size - 1) * channels; missing > 0;) {
      const double left =
          std::chrono::duration<double>(end - std::chrono::steady_clock::now()).count();
      if (left <= 0 || !listening.readable(left)) {
        std::string ranks;
        for (std::size_t r = 1; r < peers[0].size(); ++r)
          if (!peers[0][r]) ranks += str(" ", r);
        over(str("after ", seconds, " s these ranks of ", launch.size, " had not come:", ranks));
      }
      Socket s = listening.accepted();
      if (!s) continue;
      s.set_up();
      Hello hello;
      // somebody else
      if (!s.readable(5) || !s.receive(&hello, sizeof hello) || hello.magic != Hello().magic)
        continue;
      if (hello.size != launch.size)
        over(str("rank ", hello.rank, " is of a group of ", hello.size, ", rank 0 of one of ",
                 launch.size),
             &s);
      if (hello.rank < 1 || hello.rank >= launch.size || hello.channel < 0 ||
          hello.channel >= channels)
        over("a rank outside of the group", &s);
      Socket& place =
          peers[static_cast<std::size_t>(hello.channel)][static_cast<std::size_t>(hello.rank)];
      if (place) over(str("two processes say that they are rank ", hello.rank), &s);
      place = std::move(s);
      --missing;
    }
    const u64 welcome = 0;
    for (const auto& p : peers)
      for (const Socket& s : p)
        if (s) s.send(&welcome, sizeof welcome);
  }
  std::vector<Communicator> communicators;
  for (auto& p : peers)
    communicators.push_back(
        communicator_of(std::make_shared<TcpGroup>(launch, std::move(p)), launch));
  return communicators;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
