#pragma once
#include "ppma/core/names_begin.hpp"
// GradientAverage: the mean over processes of the gradients of a network, sent while backward still
// computes.
//
//   GradientAverage average(communicator, parameters);
//   average.backward(loss);                // every parameter's grad() is the mean
//
// Parameters are gathered in buckets from the last to the first, the order in which backward
// completes them. A bucket is sent when its gradients are complete and the buckets before it were
// sent: so all processes send in the same order. Buckets become smaller towards the last, for which
// everybody waits. Afterwards gradients are parts of the buckets: nothing is copied back.

#include <memory>
#include <unordered_map>
#include <vector>

#include "ppma/parallel/communicator.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

class GradientAverage {
 public:
  /// The communicator must be used by nobody else. Its sums are made by a thread of this object,
  /// unless it has join. A bucket has bucket_bytes, or half of what is left where that is less, but
  /// at least a 64th of bucket_bytes.
  PPMA_API GradientAverage(Communicator among, std::vector<Tensor> parameters,
                           i64 bucket_bytes = i64{16} << 20);
  GradientAverage(const GradientAverage&) = delete;
  GradientAverage& operator=(const GradientAverage&) = delete;
  PPMA_API ~GradientAverage();

  /// Gradients of the loss, averaged: backward(), which sends each bucket as soon as it is
  /// complete, and finish().
  PPMA_API void backward(const Tensor& loss);

  /// Sends what is left, waits, and puts the means into the parameters. A gradient that nobody has
  /// stays undefined.
  PPMA_API void finish();

  /// Error: the group has ended. To be asked before a captured step is replayed, which cannot ask
  /// itself, and before its results count.
  void require_group() const {
    if (among_.join) among_.join();
  }

  /// How many buckets were sent before finish() in the last step: the overlap.
  i64 sent_early() const { return early_; }
  /// In how many pieces gradients travel.
  i64 buckets() const { return static_cast<i64>(buckets_.size()); }

 private:
  struct Bucket {
    std::vector<std::size_t> members;  // those of 16-byte words first: they are copied so
    DType flat_dtype;
    Device device;
    i64 bytes = 0, elements = 0;
    std::size_t waiting = 0;  // members whose gradient is not complete
    // (elements + members): the gradients, and how many processes have each
    Tensor flat{};
    Tensor ones{};         // (members): this process has them all, as nearly always
    bool complete = true;  // it had
  };

  PPMA_API void send();

  PPMA_API void put_back(Bucket& b);

  PPMA_API void reset();

  PPMA_API void work();

  Communicator among_;
  std::vector<Tensor> parameters_;
  std::vector<Bucket> buckets_;
  std::unordered_map<const GradInfo*, std::size_t> bucket_of_;
  i64 early_ = 0, early_now_ = 0;
  std::size_t sent_ = 0, done_ = 0;  // buckets; under the sender's mutex
  struct Sender;                     // the thread that makes the sums
  std::unique_ptr<Sender> sender_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_PARALLEL)

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI {

struct GradientAverage::Sender {
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::exception_ptr error;
  std::thread thread;
};

GradientAverage::GradientAverage(Communicator among, std::vector<Tensor> parameters,
                                 i64 bucket_bytes)
    : among_(std::move(among)),
      parameters_(std::move(parameters)),
      sender_(std::make_unique<Sender>()) {
  i64 left = 0, room = 0;  // bytes in no bucket so far; of the present bucket
  for (const Tensor& p : parameters_) left += p.bytes();
  for (std::size_t i = parameters_.size(); i-- > 0;) {
    const Tensor& p = parameters_[i];
    if (buckets_.empty() || buckets_.back().bytes >= room ||
        buckets_.back().flat_dtype != p.dtype() || buckets_.back().device != p.device()) {
      buckets_.push_back({{}, p.dtype(), p.device()});
      room = std::min(bucket_bytes, std::max(left / 2, bucket_bytes / 64));
    }
    Bucket& b = buckets_.back();
    b.members.push_back(i);
    b.bytes += p.bytes(), b.elements += p.numel(), left -= p.bytes();
    bucket_of_[p.info().get()] = buckets_.size() - 1;
  }
  for (Bucket& b : buckets_)
    std::stable_partition(b.members.begin(), b.members.end(),
                          [this](std::size_t i) { return parameters_[i].bytes() % 16 == 0; });
  reset();
  if (!among_.join) sender_->thread = std::thread([this] { work(); });
}

GradientAverage::~GradientAverage() {
  {
    const std::lock_guard lock(sender_->mutex);
    sender_->stopping = true;
  }
  if (sender_->thread.joinable()) {
    // an error is on its way up: the others must not wait either
    if (sent_ > done_) among_.abort();
    sender_->changed.notify_all();
    sender_->thread.join();
  }
}

void GradientAverage::backward(const Tensor& loss) {
  const auto next_is_complete = [this] {
    return sent_ < buckets_.size() && buckets_[sent_].waiting == 0;
  };
  const LeafListener listener{[&](const GradInfo* leaf) {
                                const auto it = bucket_of_.find(leaf);
                                if (it != bucket_of_.end()) --buckets_[it->second].waiting;
                                return next_is_complete();
                              },
                              [&] {
                                while (next_is_complete()) send();
                              }};
  ppma::backward(loss, Tensor(), &listener);
  finish();
}

void GradientAverage::finish() {
  while (sent_ < buckets_.size()) send();
  if (among_.join) {
    among_.join();
  } else {
    std::unique_lock lock(sender_->mutex);
    sender_->changed.wait(lock, [this] { return done_ == buckets_.size() || sender_->error; });
    if (sender_->error) std::rethrow_exception(sender_->error);
  }
  for (Bucket& b : buckets_) put_back(b);
  reset();
}

void GradientAverage::send() {
  Bucket& b = buckets_[sent_];
  if (b.waiting == 0) ++early_now_;
  const i64 members = static_cast<i64>(b.members.size());
  if (!b.ones.defined()) b.ones = Tensor::ones({members}, b.flat_dtype, b.device);
  b.flat = Tensor::empty({b.elements + members}, b.flat_dtype, b.device);
  std::vector<CopyPiece> copies;
  std::vector<double> has;
  char* to = static_cast<char*>(b.flat.raw());
  for (const std::size_t i : b.members) {
    const Tensor g = parameters_[i].grad();
    has.push_back(g.defined() ? 1 : 0);
    if (g.defined())
      copies.push_back({to, g.raw(), g.bytes()});
    else
      zero_bytes(to, b.device, parameters_[i].bytes());
    to += parameters_[i].bytes();
  }
  b.complete = static_cast<i64>(copies.size()) == members;
  Tensor flags = b.ones;
  if (!b.complete) {
    flags = Tensor::empty({members}, b.flat_dtype, b.device);
    flags.copy_from(Tensor::from(has, flags.shape()));
  }
  copies.push_back({to, std::as_const(flags).raw(), flags.bytes()});
  copy_many(b.device, copies);
  for (const std::size_t i : b.members) parameters_[i].zero_grad();  // its memory is of use again
  if (among_.join) {
    ++sent_;
    return among_.all_reduce_mean(b.flat);
  }
  const std::lock_guard lock(sender_->mutex);
  ++sent_;
  sender_->changed.notify_all();
}

void GradientAverage::put_back(Bucket& b) {
  if (!among_.join) detail::multiply(b.flat, b.elements, 1.0 / static_cast<double>(among_.size));
  // how many processes have a gradient: asked for only where this one has not all
  std::vector<double> has;
  const i64 members = static_cast<i64>(b.members.size());
  if (!b.complete) has = b.flat.part(b.elements, {members}).to(Device::cpu).to_vector<double>();
  i64 first = 0;
  for (std::size_t m = 0; m < b.members.size(); ++m) {
    Tensor& p = parameters_[b.members[m]];
    if (has.empty() || has[m] > 0) p.set_grad(b.flat.part(first, p.shape()));
    first += p.numel();
  }
  b.flat = Tensor();
}

void GradientAverage::reset() {
  const std::lock_guard lock(sender_->mutex);
  early_ = std::exchange(early_now_, 0);
  sent_ = done_ = 0;
  for (Bucket& b : buckets_) b.waiting = b.members.size();
}

void GradientAverage::work() {
  set_threads(1);
  std::unique_lock lock(sender_->mutex);
  for (;;) {
    sender_->changed.wait(
        lock, [this] { return sender_->stopping || (done_ < sent_ && !sender_->error); });
    if (sender_->stopping) return;
    Bucket& b = buckets_[done_];
    lock.unlock();
    std::exception_ptr error;
    try {
      among_.all_reduce_sum(b.flat);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error)
      sender_->error = error;
    else
      ++done_;
    sender_->changed.notify_all();
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
