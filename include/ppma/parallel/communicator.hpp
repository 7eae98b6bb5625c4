#pragma once
#include "ppma/core/names_begin.hpp"
// What processes that train one network together say to each other. Every process of the group must
// make the same calls, with tensors of the same shapes, in the same order. The transports:
// parallel/tcp.hpp, parallel/nccl.hpp.

#include <functional>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct Communicator {
  i64 rank = 0, size = 1;
  /// t becomes the sum over all processes, with the same bits in each.
  std::function<void(Tensor& t)> all_reduce_sum{};
  /// t becomes the root's t.
  std::function<void(Tensor& t, i64 root)> broadcast{};
  /// Returns when all processes have called it.
  std::function<void()> barrier{};
  /// Ends the connection: calls that wait, here and in the other processes, end with an Error. May
  /// be called from any thread.
  std::function<void()> abort{};
  /// Only where sums are made in the background of a GPU: the thread's stream waits for them.
  /// Empty: sums are there on return.
  std::function<void()> join{};
  /// Where there is join: as all_reduce_sum, the mean.
  std::function<void(Tensor& t)> all_reduce_mean{};
  /// Whether a step with these sums can be captured and replayed as a graph: they only queue work
  /// for the GPU.
  bool capturable = false;

  /// The sum of one number, and the same for several.
  double sum(double x) const { return sums({x})[0]; }
  /// The sums of several numbers, in one message.
  PPMA_API std::vector<double> sums(const std::vector<double>& x,
                                    Device device = Device::cpu) const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

namespace ppma::inline PPMA_ABI {

std::vector<double> Communicator::sums(const std::vector<double>& x, Device device) const {
  Tensor t = Tensor::from(x, {static_cast<i64>(x.size())}).to(device);
  all_reduce_sum(t);
  return t.to_vector<double>();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
