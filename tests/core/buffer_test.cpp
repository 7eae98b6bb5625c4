#include "ppma/core/buffer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "ppma/core/random.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("buffers are aligned for any vector register, whatever their size") {
  for (const i64 bytes : {i64{0}, i64{1}, i64{63}, i64{65}, i64{1000}, i64{5} << 20}) {
    const Buffer b(bytes, Device::cpu);
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
    CHECK(b.bytes() == bytes);
  }
}

TEST_CASE("live and peak memory are counted") {
  const i64 before = memory_stats().live_bytes;
  reset_peak_memory();
  {
    const Buffer a(1 << 20, Device::cpu);
    CHECK(memory_stats().live_bytes >= before + (1 << 20));
    // rounding and reuse waste at most a quarter
    CHECK(memory_stats().live_bytes <= before + (1 << 20) * 5 / 4);
    const Buffer b(1 << 20, Device::cpu);
  }
  CHECK(memory_stats().live_bytes == before);
  CHECK(memory_stats().peak_bytes >= before + (2 << 20));
  reset_peak_memory();
  CHECK(memory_stats().peak_bytes == before);
}

TEST_CASE("the steady state of a loop asks the system for nothing") {
  if (sanitized()) return;  // there the memory goes back at once, so that errors show
  const auto step = [] {
    std::vector<std::unique_ptr<Buffer>> held;
    for (i64 k = 1; k <= 20; ++k) held.push_back(std::make_unique<Buffer>(k * 7001, Device::cpu));
  };
  step();
  const i64 calls = memory_stats().heap_calls;
  for (int i = 0; i < 10; ++i) step();
  CHECK(memory_stats().heap_calls == calls);
}

TEST_CASE("freed neighbours become one piece: any size finds room in what others left") {
  if (sanitized()) return;
  const auto fill = [](i64 pieces, i64 bytes) {
    std::vector<std::unique_ptr<Buffer>> held;
    for (i64 k = 0; k < pieces; ++k) held.push_back(std::make_unique<Buffer>(bytes, Device::cpu));
    // freed in an order that has neighbours on neither side, on one and on both
    for (const i64 parity : {0, 1})
      for (i64 k = parity; k < pieces; k += 2) held[static_cast<std::size_t>(k)].reset();
  };
  fill(64, 1 << 20);
  const MemoryStats before = memory_stats();
  for (const i64 pieces : {1, 3, 7, 20, 63}) fill(pieces, (i64{60} << 20) / pieces);
  const MemoryStats after = memory_stats();
  CHECK(after.heap_calls == before.heap_calls);
  CHECK(after.cached_bytes == before.cached_bytes);
  CHECK(after.live_bytes == before.live_bytes);
}

TEST_CASE("sizes that come and go at random keep little more than the most that was in use") {
  if (sanitized()) return;
  trim_memory();
  const i64 live = memory_stats().live_bytes;
  reset_peak_memory();
  Rng rng(1);
  std::vector<std::unique_ptr<Buffer>> held(40);
  i64 overlaps = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto at = static_cast<std::size_t>(rng.uniform(0, 40));
    const int mark = static_cast<int>(at) + 1;  // of all its bytes
    if (held[at] != nullptr) {
      const auto* const first = static_cast<const unsigned char*>(held[at]->data());
      overlaps += std::count(first, first + held[at]->bytes(), mark) != held[at]->bytes();
    }
    held[at].reset();
    if (rng.uniform(0, 1) < 0.2) continue;
    const double size = std::exp(rng.uniform(3, 15));  // 20 bytes to 3 MB
    held[at] = std::make_unique<Buffer>(static_cast<i64>(size), Device::cpu);
    std::memset(held[at]->data(), mark, static_cast<std::size_t>(held[at]->bytes()));
  }
  CHECK(overlaps == 0);
  const MemoryStats s = memory_stats();
  CHECK(static_cast<double>(s.cached_bytes + s.live_bytes - live) <
        1.3 * static_cast<double>(s.peak_bytes - live));
  held.clear();
  CHECK(memory_stats().live_bytes == live);
}

TEST_CASE("trim gives unused memory back") {
  { const Buffer b(3 << 20, Device::cpu); }
  trim_memory();
  CHECK(memory_stats().cached_bytes == 0);
}

TEST_CASE("impossible sizes are errors") {
  CHECK(says([] { Buffer(i64{1} << 50, Device::cpu); },
             "memory: 1125899906842624 bytes asked for in one piece"));
  CHECK(says([] { Buffer(-1, Device::cpu); }, "memory: -1 bytes"));
  if (!cuda::compiled()) CHECK(says([] { Buffer(8, Device::cuda); }, "compiled without CUDA"));
}
