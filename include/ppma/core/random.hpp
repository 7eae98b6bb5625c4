#pragma once
#include "ppma/core/names_begin.hpp"
// Random numbers from a counter (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", 2011).
//
// A draw is a pure function of a key and a position, so any number of threads, a resumed run, and
// another device draw the same numbers. A stream is named by what it is for: Rng(seed, epoch,
// sample, purpose).

#include <cmath>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

struct PhiloxBlock {
  u32 word[4];
};

/// Block number `counter` (128 bits) of the stream `key` (64 bits).
PPMA_HD inline PhiloxBlock philox(PhiloxBlock counter, u32 key0, u32 key1) {
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = u64{0xD2511F53u} * counter.word[0];
    const u64 p1 = u64{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<u32>(p1 >> 32) ^ counter.word[1] ^ key0, static_cast<u32>(p1),
                static_cast<u32>(p0 >> 32) ^ counter.word[3] ^ key1, static_cast<u32>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// A stream of random numbers, keyed by up to four numbers that say what it is for.
class Rng {
 public:
  /// One stream of numbers for each combination.
  explicit Rng(u64 seed = 0, u64 epoch = 0, u64 sample = 0, u64 purpose = 0)
      : key_(seed), stream_(mix(mix(mix(epoch) ^ sample) ^ purpose)) {}

  /// A stream of its own for a part of the work; does not advance this one.
  PPMA_HD Rng fork(u64 purpose) const {
    Rng r = *this;
    r.stream_ = mix(stream_ ^ mix(purpose + 0x51ED270B9F3ULL));
    r.position_ = 0;
    return r;
  }

  /// 32 random bits.
  u32 bits() {
    const u64 block = position_ / 4, word = position_ % 4;
    if (word == 0 || block != cached_block_) {
      cache_ = at(block);
      cached_block_ = block;
    }
    ++position_;
    return cache_.word[word];
  }
  /// Uniform in [0, 1), 53 bits.
  double uniform() {
    const u64 hi = bits() >> 5, lo = bits() >> 6;
    return static_cast<double>(hi * 67108864 + lo) * 0x1p-53;
  }
  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform integer in [0, n), n >= 1, without bias worth speaking of (n < 2^53).
  i64 below(i64 n) { return static_cast<i64>(uniform() * static_cast<double>(n)); }
  /// True with the given probability.
  bool flip(double probability = 0.5) { return uniform() < probability; }
  /// Standard normal (Box-Muller; two uniforms a draw, so that a draw's position is known).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

  /// Block number n of this stream, for kernels that draw in parallel; does not advance.
  PPMA_HD PhiloxBlock at(u64 n) const {
    return philox({{static_cast<u32>(n), static_cast<u32>(n >> 32), static_cast<u32>(stream_),
                    static_cast<u32>(stream_ >> 32)}},
                  static_cast<u32>(key_), static_cast<u32>(key_ >> 32));
  }

  /// How many 32-bit words were drawn; with the key this is the stream's whole state.
  u64 position() const { return position_; }
  /// Goes on from what position() gave.
  void seek(u64 position) {
    position_ = position;
    cached_block_ = ~u64{0};
  }

 private:
  // The finaliser of splitmix64: spreads small numbers (epoch 3, sample 17) over all bits.
  PPMA_HD static u64 mix(u64 x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }

  u64 key_, stream_, position_ = 0, cached_block_ = ~u64{0};
  PhiloxBlock cache_{};
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
