// Runs the tests and ends with the line "N passed, N failed, N skipped".

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include <cstdio>

int& skipped_tests() {
  static int count = 0;
  return count;
}

namespace {

struct Counts {
  long passed = 0, failed = 0;
};
Counts& counts() {
  static Counts c;
  return c;
}

#if __has_include(<catch2/catch_all.hpp>)
class Counter : public Catch::EventListenerBase {
 public:
  using Catch::EventListenerBase::EventListenerBase;
#else
class Counter : public Catch::TestEventListenerBase {
 public:
  using Catch::TestEventListenerBase::TestEventListenerBase;
#endif
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    (stats.totals.assertions.allOk() ? counts().passed : counts().failed) += 1;
  }
};
CATCH_REGISTER_LISTENER(Counter)

}  // namespace

int main(int argc, char** argv) {
  const int status = Catch::Session().run(argc, argv);
  const long passed = counts().passed - skipped_tests();
  if (passed + counts().failed + skipped_tests() > 0)
    std::printf("%ld passed, %ld failed, %d skipped\n", passed, counts().failed, skipped_tests());
  return status;
}
