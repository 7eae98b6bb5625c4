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
// sent: so all processes send in the same order.

#include <memory>
#include <unordered_map>
#include <vector>

#include "ppma/parallel/communicator.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

class GradientAverage {
 public:
  /// The communicator must be used by nobody else. Its sums are made by a thread of this object,
  /// unless it has join.
  PPMA_API GradientAverage(Communicator among, std::vector<Tensor> parameters,
                           i64 bucket_bytes = i64{4} << 20);
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
    std::vector<std::size_t> members;
    DType flat_dtype;
    Device device;
    i64 bytes = 0, elements = 0;
    std::size_t waiting = 0;  // members whose gradient is not complete
    // (elements + members): the gradients, and how many processes have each
    Tensor flat{};
    Tensor ones{};  // (members): this process has them all, as nearly always
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
  for (std::size_t i = parameters_.size(); i-- > 0;) {
    const Tensor& p = parameters_[i];
    if (buckets_.empty() || buckets_.back().bytes >= bucket_bytes ||
        buckets_.back().flat_dtype != p.dtype() || buckets_.back().device != p.device())
      buckets_.push_back({{}, p.dtype(), p.device()});
    Bucket& b = buckets_.back();
    b.members.push_back(i);
    b.bytes += p.bytes(), b.elements += p.numel();
    bucket_of_[p.info().get()] = buckets_.size() - 1;
  }
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
  ppma::backward(loss, Tensor(), [this](const GradInfo* leaf) {
    const auto it = bucket_of_.find(leaf);
    if (it == bucket_of_.end()) return;
    --buckets_[it->second].waiting;
    while (sent_ < buckets_.size() && buckets_[sent_].waiting == 0) send();
  });
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
  const i64 item = size_of(b.flat_dtype), members = static_cast<i64>(b.members.size());
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
    to += parameters_[i].numel() * item;
  }
  Tensor flags = b.ones;
  if (static_cast<i64>(copies.size()) < members) {
    flags = Tensor::empty({members}, b.flat_dtype, b.device);
    flags.copy_from(Tensor::from(has, flags.shape()));
  }
  copies.push_back({to, std::as_const(flags).raw(), flags.bytes()});
  copy_many(b.device, copies);
  if (among_.join) {
    ++sent_;
    return among_.all_reduce_sum(b.flat);
  }
  const std::lock_guard lock(sender_->mutex);
  ++sent_;
  sender_->changed.notify_all();
}

void GradientAverage::put_back(Bucket& b) {
  const i64 item = size_of(b.flat_dtype);
  detail::multiply(b.flat, b.elements, 1.0 / static_cast<double>(among_.size));
  const char* from = static_cast<const char*>(std::as_const(b.flat).raw());
  // how many processes have a gradient: asked for only where this one has none
  std::vector<double> has;
  for (const std::size_t i : b.members)
    if (has.empty() && !parameters_[i].grad().defined()) {
      Tensor flags = Tensor::empty(b.ones.shape(), b.flat_dtype);
      copy_bytes(flags.raw(), Device::cpu, from + b.elements * item, b.device, flags.bytes());
      has = flags.to_vector<double>();
    }
  std::vector<CopyPiece> copies;
  for (std::size_t m = 0; m < b.members.size(); ++m) {
    Tensor& p = parameters_[b.members[m]];
    if (has.empty() || has[m] > 0) {
      Tensor g = p.grad();
      if (!g.defined()) g = Tensor::empty(p.shape(), p.dtype(), p.device());
      copies.push_back({g.raw(), from, g.bytes()});
      p.set_grad(g);
    }
    from += p.numel() * item;
  }
  copy_many(b.device, copies);
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
