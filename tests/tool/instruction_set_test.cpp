// PPMA_ISA chooses the instruction set of the compiled library: each that this processor has
// computes the same network, and what cannot be had is an error.

#include "ppma/kernels/instruction_set.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/tensor/tensor.hpp"
#include "tool/help.hpp"

namespace instruction_set_test {

using namespace ppma;
using namespace tool_test;

// The environment variable, for child processes, until the end of the scope.
class Ask {
 public:
  explicit Ask(const std::string& set) { ::setenv("PPMA_ISA", set.c_str(), 1); }
  ~Ask() { ::unsetenv("PPMA_ISA"); }
  Ask(const Ask&) = delete;
  Ask& operator=(const Ask&) = delete;
};

// Those that the tool's library holds and this processor runs; one says nothing of PPMA_ISA.
std::vector<std::string> available() {
  std::vector<std::string> sets;
  for (const std::string set : {"sse2", "avx2", "avx512"}) {
    const Ask ask(set);
    const Result r = run("--version");
    if (r.code == 0 && r.out.find("kernels for " + set) != std::string::npos) sets.push_back(set);
  }
  return sets;
}

// A library of one set answers the same whatever PPMA_ISA says; one of several gives what is asked
// for, or an error.
bool holds_several() {
  std::vector<std::string> answers;
  for (const std::string set : {"sse2", "avx512"}) {
    const Ask ask(set);
    answers.push_back(run("--version").out);
  }
  return answers[0] != answers[1];
}

// How far the lists of tensors are apart: the largest |a - b| / |b| of one tensor. A tensor whose
// norm is below `nothing` is a bias in front of a batch norm, which has no gradient but rounding.
struct Difference {
  double largest = 0;
  bool any = false;  // one bit
};
Difference difference(const TensorMap& a, const TensorMap& b, double nothing) {
  REQUIRE(a.size() == b.size());
  Difference result;
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].first == b[i].first);
    INFO(a[i].first);
    const auto x = a[i].second.to_vector<double>(), y = b[i].second.to_vector<double>();
    REQUIRE(x.size() == y.size());
    double d = 0, n = 0;
    for (std::size_t k = 0; k < x.size(); ++k) d += (x[k] - y[k]) * (x[k] - y[k]), n += y[k] * y[k];
    CHECK(std::isfinite(d));
    result.any = result.any || d > 0;
    if (n > nothing * nothing) result.largest = std::max(result.largest, std::sqrt(d / n));
  }
  return result;
}

TEST_CASE("tool: every instruction set computes the same network", "[tool]") {
  NEEDS_TOOL();
  const std::vector<std::string> sets = available();
  if (sets.size() < 2)
    PPMA_SKIP("the library was compiled for one instruction set, or one runs here");
  const io_test::Folder folder;
  for (const std::string dtype : {"f32", "f64"})
    for (const std::string train : {"", " --train"}) {
      std::vector<TensorMap> results;
      for (const std::string& set : sets) {
        const Ask ask(set);
        REQUIRE(run("run --weights " + io_test::reference("mini_weights.safetensors") +
                    " --input " + io_test::reference("mini_io.safetensors") + " --output " +
                    folder / set + " --dtype " + dtype + train)
                    .code == 0);
        results.push_back(read_safetensors(folder / set).tensors);
      }
      for (std::size_t i = 1; i < sets.size(); ++i) {
        INFO(sets[i] << " and " << sets[0] << ", " << dtype << train);
        const Difference d = difference(results[i], results[0], dtype == "f32" ? 1e-4 : 1e-12);
        // Sums of some hundred terms round differently; gradients that nearly cancel show it most.
        const double epsilon = dtype == "f32" ? 1.2e-7 : 2.2e-16;
        CHECK(d.largest < (train.empty() ? 20 : 1000) * epsilon);
        CHECK(d.any);  // other instructions were used: they round elsewhere
      }
    }
}

TEST_CASE("tool: an instruction set that cannot be had is an error", "[tool]") {
  NEEDS_TOOL();
  if (!holds_several()) PPMA_SKIP("the library was compiled for one instruction set");
  {
    const Ask ask("nonsense");
    for (const std::string command : {"--version", "bench --model ppma_nano --repeat 1"}) {
      INFO(command);
      const Result r = run(command);
      CHECK(r.code == 1);
      CHECK(r.out.empty());
      CHECK(r.err.find("PPMA_ISA=nonsense: the library was compiled for ") != std::string::npos);
      CHECK(r.err.find("sse2") != std::string::npos);
    }
    CHECK(run("--help").code == 0);
  }
  for (const std::string set : {"avx512", "avx2"}) {
    const Ask ask(set);
    const Result r = run("--version");
    INFO(r.err);
    if (r.code != 0)
      CHECK((r.err.find("PPMA_ISA=" + set + ": this processor lacks it") != std::string::npos ||
             r.err.find("the library was compiled for ") != std::string::npos));
  }
  const Ask nothing("");  // as if it were unset
  CHECK(run("--version").code == 0);
}

}  // namespace instruction_set_test
