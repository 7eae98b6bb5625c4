// A program's own allocator, and memory that ends at any place.
#include <cstdint>
#include <cstdlib>
#include <map>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// Counts, checks what comes back, and has no room after `most` calls.
struct Ledger {
  i64 calls = 0, most = -1, wrong = 0;
  std::map<void*, std::pair<std::size_t, std::size_t>> held{};

  static void* take(void* self, std::size_t bytes, std::size_t alignment) {
    Ledger& l = *static_cast<Ledger*>(self);
    if (l.calls++ >= l.most && l.most >= 0) return nullptr;  // and from then on
    void* p = std::aligned_alloc(alignment, bytes);
    l.held[p] = {bytes, alignment};
    return p;
  }
  static void give(void* self, void* p, std::size_t bytes, std::size_t alignment) {
    Ledger& l = *static_cast<Ledger*>(self);
    const auto it = l.held.find(p);
    if (it == l.held.end() || it->second != std::pair(bytes, alignment)) return void(++l.wrong);
    l.held.erase(it);
    std::free(p);
  }
  MemorySource source() { return {take, give, this}; }
};

PpmaConfig tiny() {
  PpmaConfig c = ppma_nano();
  c.depths = {1, 1, 1, 1};
  return c;
}

}  // namespace

TEST_CASE("memory comes from the program's own source and goes back to it") {
  Ledger ledger;
  {
    Tensor before = Tensor::ones({1000});
    set_memory_source(ledger.source());
    before = Tensor();  // goes where it came from
    const Tensor small = Tensor::ones({3}), large = Tensor::ones({3, 1000, 1000});
    CHECK(ledger.held.size() == 2);
    CHECK(says([] { set_memory_source({Ledger::take, nullptr, nullptr}); }, "take and give"));
    CHECK(sum(large).item() == 3e6);
    set_memory_source({});
    CHECK(ledger.held.size() == 2);  // these live
  }
  CHECK(ledger.held.empty());
  CHECK(ledger.wrong == 0);
  const i64 calls = ledger.calls;
  CHECK(sum(Tensor::ones({70})).item() == 70);
  CHECK(ledger.calls == calls);
}

TEST_CASE("memory that ends anywhere in a training step is an error, and nothing is lost") {
  const int before = threads();
  set_threads(2);
  const auto step = [] {
    Ppma network(tiny());
    Context training;
    training.training = true;
    sum(network.forward(Tensor::ones({2, 3, 32, 32}), training)).backward();
  };
  step();  // tables that are kept are made
  const i64 live = memory_stats().live_bytes;
  Ledger ledger;
  set_memory_source(ledger.source());
  step();
  const i64 needed = ledger.calls;
  CHECK(needed > 20);
  i64 refused = 0;
  // Each of the first blocks, then a spread.
  i64 tried = 0;
  const i64 apart = brief() ? 100 : 25;
  for (i64 most = 0; most < needed; most += most < 20 ? 1 : apart) {
    ++tried;
    trim_memory();
    ledger.calls = 0, ledger.most = most;
    refused += thrown(step).find("memory: no room for") != std::string::npos;
    CHECK(memory_stats().live_bytes == live);
  }
  // Two threads that meet in another order need a block more or less.
  CHECK(refused >= tried - 1);
  ledger.most = -1;
  step();
  set_memory_source({});
  CHECK(ledger.held.empty());
  CHECK(ledger.wrong == 0);
  set_threads(before);
}
