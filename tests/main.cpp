// Runs the test cases and ends with the line "N passed, N failed, N skipped".

#define CATCH_CONFIG_RUNNER  // Catch2 2.13: its implementation stands in this translation unit
#include "catch.hpp"

namespace {

#if PPMA_CATCH == 3
using Listener = Catch::EventListenerBase;
#else
using Listener = Catch::TestEventListenerBase;
#endif

struct Count {
  int passed = 0, failed = 0, skipped = 0;
};
Count count;

class Counter : public Listener {
 public:
  using Listener::Listener;
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    // allOk: a case tagged [!shouldfail] or [!mayfail] that fails is as expected.
    int& n = !stats.totals.assertions.allOk() && stats.totals.testCases.failed > 0 ? count.failed
             : skipped_test()                                                      ? count.skipped
                                                                                   : count.passed;
    ++n;
    skipped_test() = false;
  }
};
CATCH_REGISTER_LISTENER(Counter)

}  // namespace

int main(int argc, char** argv) {
  const int status = Catch::Session().run(argc, argv);
  const bool ran = count.passed + count.failed + count.skipped > 0;
  if (ran)
    std::printf("%d passed, %d failed, %d skipped\n", count.passed, count.failed, count.skipped);
  return status != 0 ? 1 : 0;
}
