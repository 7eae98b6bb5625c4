#pragma once
#include "ppma/core/names_begin.hpp"
// BatchStream: the batches of an epoch, made ahead of time by worker threads and given in order.
//
//   BatchStream<Batch> train(image_batches(shapes(), {.batch = 64}));
//   Batch batch;
//   for (train.start(epoch); train.next(batch);) ...
//
// What a batch holds is a function of the epoch and its number alone (BatchPlan). So it changes
// nothing how many workers there are, how fast they are, and whether an epoch was entered in the
// middle. The plans: image_batches.hpp, segmentation_batches.hpp, detection_batches.hpp.

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// How batches come to be.
template <class Batch>
struct BatchPlan {
  i64 batches = 0;  // in an epoch
  /// Of an epoch: what makes its batches, by number, in any order and from any thread.
  std::function<std::function<Batch(i64 number)>(i64 epoch)> of_epoch;
};

struct StreamOptions {
  i64 workers = 2;  // threads; 0 makes each batch when it is asked for
  i64 ahead = 4;    // batches made ahead at most
};

/// The part of every batch that a process gets: the rank-th of so many, equal where the batch is
/// complete.
struct BatchPart {
  i64 rank = 0, ranks = 1;

  /// The first image of a batch of so many that is this process's.
  i64 begin(i64 batch) const { return batch * rank / ranks; }
  /// Behind the last one.
  i64 end(i64 batch) const { return batch * (rank + 1) / ranks; }
  /// Error: there is no such part, or a batch cannot be divided equally. `who` is what it begins
  /// with.
  PPMA_API void require(const char* who, i64 batch) const;
};

/// The samples of an epoch, in order. With repeats > 1 each sample of the shuffled set follows
/// itself, and the epoch ends after as many as the set has (rounded down to a multiple of 256 from
/// 256 on, as in the published sampler).
PPMA_API std::vector<i64> epoch_order(i64 size, i64 epoch, u64 seed, bool shuffle, i64 repeats = 1);

namespace detail {

/// What BatchStream is, whatever a batch is: things by number, made by threads.
class MadeAhead {
 public:
  using Make = std::function<std::shared_ptr<void>(i64 number)>;

  PPMA_API explicit MadeAhead(const StreamOptions& options);
  PPMA_API ~MadeAhead();
  MadeAhead(const MadeAhead&) = delete;
  MadeAhead& operator=(const MadeAhead&) = delete;

  /// Things first .. end - 1 are to come. What was being made is dropped.
  PPMA_API void start(i64 first, i64 end, Make make);
  /// The next one; null at the end. Errors: those of make, after which there are no more; it was
  /// never started.
  PPMA_API std::shared_ptr<void> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace detail

template <class Batch>
class BatchStream {
 public:
  /// Errors: fewer than 0 workers, nothing that may be made ahead.
  explicit BatchStream(BatchPlan<Batch> plan, const StreamOptions& options = {})
      : plan_(std::move(plan)), made_(options) {}

  /// Batches in an epoch.
  i64 batches() const { return plan_.batches; }

  /// Begins an epoch, or goes on with one at batch number `first`. What was being made for another
  /// epoch is dropped.
  void start(i64 epoch, i64 first = 0) {
    check(epoch >= 0 && first >= 0 && first <= batches(), "batches: cannot start at epoch ", epoch,
          ", batch ", first, " of ", batches());
    made_.start(first, batches(), [make = plan_.of_epoch(epoch)](i64 number) {
      return std::static_pointer_cast<void>(std::make_shared<Batch>(make(number)));
    });
  }

  /// The next batch of the epoch; false at its end. Errors: what happened while the batch was made;
  /// the epoch is over then. No epoch was started.
  bool next(Batch& batch) {
    const std::shared_ptr<void> made = made_.next();
    if (made != nullptr) batch = std::move(*static_cast<Batch*>(made.get()));
    return made != nullptr;
  }

 private:
  BatchPlan<Batch> plan_;
  detail::MadeAhead made_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "ppma/core/parallel.hpp"
#include "ppma/core/random.hpp"

namespace ppma::inline PPMA_ABI {

void BatchPart::require(const char* who, i64 batch) const {
  check(ranks >= 1 && rank >= 0 && rank < ranks, who, ": part ", rank, " of ", ranks);
  check(batch % ranks == 0, who, ": a batch of ", batch, " cannot be divided equally among ", ranks,
        " processes");
}

std::vector<i64> epoch_order(i64 size, i64 epoch, u64 seed, bool shuffle, i64 repeats) {
  std::vector<i64> order(static_cast<std::size_t>(size));
  for (i64 i = 0; i < size; ++i) order[static_cast<std::size_t>(i)] = i;
  if (shuffle) {
    Rng rng(seed, static_cast<u64>(epoch), 0, 0x02de2);
    for (i64 i = size - 1; i > 0; --i)  // Fisher and Yates
      std::swap(order[static_cast<std::size_t>(i)],
                order[static_cast<std::size_t>(rng.below(i + 1))]);
  }
  if (repeats > 1) {
    for (std::size_t i = order.size(); i-- > 0;)
      order[i] = order[i / static_cast<std::size_t>(repeats)];
    if (size >= 256) order.resize(order.size() / 256 * 256);
  }
  return order;
}

namespace detail {

struct MadeAhead::State {
  struct Slot {
    bool ready = false;
    std::shared_ptr<void> made;
    std::exception_ptr error;
  };

  explicit State(const StreamOptions& o) : options(o) {}

  void stop() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    room.notify_all();
    for (std::thread& t : workers) t.join();
    workers.clear();
    slots.clear();
    stopping = false;
    next_to_give = end = 0;
  }

  Slot& slot(i64 number) { return slots[static_cast<std::size_t>(number % options.ahead)]; }

  void work() {
    set_threads(1);  // the work is divided by batches already
    give_way();
    std::unique_lock lock(mutex);
    for (;;) {
      room.wait(lock, [&] {
        return stopping || next_to_make >= end || next_to_make < next_to_give + options.ahead;
      });
      if (stopping || next_to_make >= end) return;
      const i64 number = next_to_make++;
      lock.unlock();
      Slot done{true, {}, {}};
      try {
        done.made = make(number);
      } catch (...) {
        done.error = std::current_exception();
      }
      lock.lock();
      slot(number) = std::move(done);
      ready.notify_one();
    }
  }

  StreamOptions options;
  Make make;  // empty: never started
  // Written by start() and stop() while there are no workers, or under the mutex.
  i64 next_to_make = 0, next_to_give = 0, end = 0;
  std::vector<Slot> slots;  // number n waits in slot n % ahead
  bool stopping = false;
  std::mutex mutex;
  std::condition_variable ready, room;
  std::vector<std::thread> workers;
};

MadeAhead::MadeAhead(const StreamOptions& options) : state_(std::make_unique<State>(options)) {
  check(options.workers >= 0 && options.ahead > 0, "batches: ", options.workers,
        " workers that make ", options.ahead,
        " batches ahead; there must be 0 or more, and 1 or more");
}

MadeAhead::~MadeAhead() { state_->stop(); }

void MadeAhead::start(i64 first, i64 end, Make make) {
  State& s = *state_;
  s.stop();
  s.make = std::move(make);
  s.next_to_make = s.next_to_give = first, s.end = end;
  s.slots.resize(static_cast<std::size_t>(s.options.ahead));
  try {
    for (i64 w = 0; w < std::min(s.options.workers, end - first); ++w)
      s.workers.emplace_back([&s] { s.work(); });
  } catch (...) {
    s.stop();
    throw;
  }
}

std::shared_ptr<void> MadeAhead::next() {
  State& s = *state_;
  check(s.make != nullptr, "batches: start(epoch) comes before next()");
  if (s.next_to_give >= s.end) return nullptr;
  State::Slot given;
  if (s.workers.empty()) {
    try {
      given.made = s.make(s.next_to_give++);
    } catch (...) {
      given.error = std::current_exception();
    }
  } else {
    std::unique_lock lock(s.mutex);
    State::Slot& slot = s.slot(s.next_to_give);
    s.ready.wait(lock, [&] { return slot.ready; });
    given = std::exchange(slot, {});
    ++s.next_to_give;
    lock.unlock();
    s.room.notify_one();
  }
  if (given.error) {
    s.stop();
    std::rethrow_exception(given.error);
  }
  return given.made;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
