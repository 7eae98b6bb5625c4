#include "ppma/core/buffer.hpp"

#include <cstdint>
#include <memory>
#include <vector>

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
