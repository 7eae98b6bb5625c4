#include "ppma/core/random.hpp"

#include <cmath>
#include <set>
#include <vector>

#include "catch.hpp"

using namespace ppma;

TEST_CASE("Philox gives the known answers of Random123") {
  // kat_vectors of the Random123 distribution, lines "philox4x32 10": counter, key, answer.
  struct Known {
    u32 counter[4], key[2], answer[4];
  };
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known& k : known) {
    const PhiloxBlock got =
        philox({{k.counter[0], k.counter[1], k.counter[2], k.counter[3]}}, k.key[0], k.key[1]);
    for (int i = 0; i < 4; ++i) CHECK(got.word[i] == k.answer[i]);
  }
}

TEST_CASE("a stream is a function of its key and position") {
  Rng a(1, 2, 3, 4), b(1, 2, 3, 4);
  std::vector<u32> drawn;
  for (int i = 0; i < 11; ++i) drawn.push_back(a.bits());
  CHECK(a.position() == 11);
  for (const u32 w : drawn) CHECK(b.bits() == w);
  // Words of blocks, and back to any position.
  for (std::size_t i = 0; i < drawn.size(); ++i) CHECK(a.at(i / 4).word[i % 4] == drawn[i]);
  for (const u64 p : {u64{7}, u64{2}, u64{10}, u64{0}}) {
    a.seek(p);
    CHECK(a.bits() == drawn[p]);
  }
  a.seek(5);
  const double u = a.uniform();
  a.seek(5);
  CHECK(a.uniform() == u);
}

TEST_CASE("streams of different keys differ") {
  std::set<u32> first;
  for (u64 seed = 0; seed < 3; ++seed)
    for (u64 epoch = 0; epoch < 3; ++epoch)
      for (u64 sample = 0; sample < 3; ++sample)
        for (u64 purpose = 0; purpose < 3; ++purpose)
          first.insert(Rng(seed, epoch, sample, purpose).bits());
  CHECK(first.size() == 81);
  const Rng parent(5);
  Rng same = parent, fork = parent.fork(1), other = parent.fork(2);
  const u32 f = fork.bits(), o = other.bits();
  CHECK(f != o);
  CHECK(f != same.bits());
  CHECK(parent.position() == 0);
}

TEST_CASE("uniform, normal, below and flip have their distributions") {
  Rng rng(7);
  const int n = 200000;
  double sum = 0, squares = 0, largest = 0, smallest = 1;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform();
    sum += u, squares += u * u;
    largest = std::max(largest, u), smallest = std::min(smallest, u);
  }
  // Five standard deviations of the estimates.
  CHECK(std::fabs(sum / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::fabs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
  CHECK(smallest >= 0);
  CHECK(largest < 1);

  sum = squares = 0;
  double fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  CHECK(std::fabs(sum / n) < 5 / std::sqrt(n));
  CHECK(std::fabs(squares / n - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::fabs(fourth / n - 3) < 5 * std::sqrt(96.0 / n));

  int count[7] = {}, heads = 0;
  for (int i = 0; i < n; ++i) {
    ++count[rng.below(7)];
    heads += rng.flip(0.25);
  }
  for (const int c : count) CHECK(std::fabs(c - n / 7.0) < 5 * std::sqrt(n / 7.0));
  CHECK(std::fabs(heads - n * 0.25) < 5 * std::sqrt(n * 0.25 * 0.75));
}
