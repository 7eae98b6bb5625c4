// Which of the instruction sets that the library was compiled for runs: chosen once, before main()
// and before the program's own static variables. docs/instruction-sets.md tells the whole; the
// tables come from src/join_sets.sh.
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ppma/core/error.hpp"

extern "C" {
using Function = void (*)();
extern const std::size_t ppma_functions;  // how many functions differ between the sets
extern Function ppma_chosen[];            // what is called: their addresses in one of
#if PPMA_WITH_AVX512
extern const Function ppma_set_avx512[];
#endif
#if PPMA_WITH_AVX2
extern const Function ppma_set_avx2[];
#endif
#if PPMA_WITH_SSE2
extern const Function ppma_set_sse2[];
#endif
void ppma_choose();
}

namespace {

struct Set {
  const char* name;
  const Function* functions;
  bool runs_here;  // the processor has it, and the system saves its registers
};

char asked[32] = "";  // PPMA_ISA where it cannot be followed: the first call throws

// Stands in for every function then, whatever its arguments: its caller sees the exception.
[[noreturn]] void refuse();

template <class Act>
void for_each_set(
    Act act) {  // the best first; the flags that each is compiled with: CMakeLists.txt
  __builtin_cpu_init();
#if PPMA_WITH_AVX512
  act(Set{"avx512", ppma_set_avx512,
          __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
#if PPMA_WITH_AVX2
  act(Set{"avx2", ppma_set_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
#if PPMA_WITH_SSE2
  act(Set{"sse2", ppma_set_sse2, true});  // every x86-64 processor
#endif
}

void refuse() {
  std::string compiled, here;
  bool known = false;
  for_each_set([&](const Set& set) {
    compiled += (compiled.empty() ? "" : ", ") + std::string(set.name);
    if (set.runs_here) here += (here.empty() ? "" : ", ") + std::string(set.name);
    known = known || std::strcmp(asked, set.name) == 0;
  });
  if (here.empty())
    ppma::fail(
        "ppma: this processor has none of the instruction sets that the library was compiled ",
        "for: ", compiled, "; compile it with -DPPMA_ISA=sse2");
  if (known) ppma::fail("PPMA_ISA=", asked, ": this processor lacks it; it has ", here);
  ppma::fail("PPMA_ISA=", asked, ": the library was compiled for ", compiled,
             "; unset the variable to let it choose");
}

}  // namespace

// Called by the loader: what join_sets.sh makes has it among the functions to run at the start.
void ppma_choose() {
  const char* wanted = std::getenv("PPMA_ISA");
  if (wanted != nullptr && *wanted == '\0') wanted = nullptr;
  const Function* functions = nullptr;
  for_each_set([&](const Set& set) {
    const bool fits = wanted == nullptr || std::strcmp(wanted, set.name) == 0;
    if (functions == nullptr && set.runs_here && fits) functions = set.functions;
  });
  if (functions == nullptr && wanted != nullptr) std::strncpy(asked, wanted, sizeof asked - 1);
  for (std::size_t i = 0; i < ppma_functions; ++i)
    ppma_chosen[i] = functions != nullptr ? functions[i] : refuse;
}
