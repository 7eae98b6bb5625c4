#pragma once
#include "ppma/core/names_begin.hpp"
// Batches in order, the next one made by a thread of its own while one is used.

#include <future>

#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI {

template <class Batch>
class OneAhead {
 public:
  OneAhead() = default;
  OneAhead(const OneAhead&) = delete;
  OneAhead& operator=(const OneAhead&) = delete;
  ~OneAhead() { restart(); }

  /// Forgets what is being made, after its end, and counts from 0 again.
  void restart() {
    if (coming_.valid()) coming_.wait();
    coming_ = {}, given_ = 0;
  }
  /// The next of `count` batches: make(its number), whose errors come out here. False: there are no
  /// more.
  template <class Make>
  bool next(Batch& batch, i64 count, Make make) {
    if (given_ >= count) return false;
    batch = coming_.valid() ? coming_.get() : make(given_);
    if (++given_ < count)
      coming_ = std::async(std::launch::async, [make, n = given_] {
        set_threads(1);
        return make(n);
      });
    return true;
  }

 private:
  i64 given_ = 0;
  std::future<Batch> coming_;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
