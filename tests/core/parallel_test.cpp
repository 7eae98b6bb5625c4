#include "ppma/core/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "ppma/core/error.hpp"
#include "thrown.hpp"

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using namespace ppma;

TEST_CASE("parallel_for visits every index once, for any number of threads") {
  const int before = threads();
  for (const int t : {1, 2, 3, 7}) {
    set_threads(t);
    for (const i64 n : {i64{0}, i64{1}, i64{2}, i64{100}, i64{1001}}) {
      for (const i64 grain : {i64{1}, i64{13}, i64{5000}}) {
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
        parallel_for(n, grain, [&](i64 begin, i64 end) {
          for (i64 i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        i64 once = 0;
        for (const auto& v : visits) once += v == 1;
        CHECK(once == n);
      }
    }
  }
  set_threads(before);
}

TEST_CASE("work below the grain stays on one thread, and nested work does too") {
  const int before = threads();
  set_threads(4);
  std::atomic<int> ranges{0};
  parallel_for(100, 100, [&](i64, i64) { ++ranges; });
  CHECK(ranges == 1);
  std::atomic<int> of_nested{0};
  parallel_for(4, 1, [&](i64, i64) { of_nested = threads(); });
  CHECK(of_nested == 1);
  std::atomic<i64> sum{0};
  parallel_for(8, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) parallel_for(10, 1, [&](i64 b, i64 e) { sum += e - b; });
  });
  CHECK(sum == 80);
  set_threads(0);  // at least one
  CHECK(threads() == 1);
  set_threads(before);
}

TEST_CASE("what a range throws reaches the caller, after all ranges have ended") {
  const int before = threads();
  for (const int t : {1, 4}) {
    set_threads(t);
    std::atomic<i64> done{0};
    const auto work = [&](i64 begin, i64 end) {
      if (end == 100) fail("range ", begin == 0 ? "all" : "last");
      done += end - begin;
    };
    CHECK(says([&] { parallel_for(100, 1, work); }, "range"));
    CHECK(done == (threads() == 1 ? 0 : 100 - 100 / threads()));
    const auto all_throw = [](i64, i64) { throw std::bad_alloc(); };
    CHECK_THROWS_AS(parallel_for(100, 1, all_throw), std::bad_alloc);
    // From inside another one.
    const auto outer = [&](i64, i64) { parallel_for(100, 1, all_throw); };
    CHECK_THROWS_AS(parallel_for(4, 1, outer), std::bad_alloc);
  }
  set_threads(before);
}

#if defined(__linux__)
TEST_CASE("a thread that gives way does so alone") {
  const auto niceness = [] {
    return getpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)));
  };
  const int before = niceness();
  int after = -100;
  std::thread([&] {
    give_way();
    after = niceness();
  }).join();
  CHECK(after == std::max(before, 10));
  CHECK(niceness() == before);
}
#endif
