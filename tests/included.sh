#!/usr/bin/env bash
# The library in a stranger's program: behind macros that are everyday words, beside operators and names of its own,
# with -ffast-math and its kind, with -fno-exceptions, without f64 and gradients: included.sh ROOT
#   PPMA_BUILT      a build folder, whose library is linked where the question is what a call means (otherwise header-only)
#   PPMA_TEST_FULL  not empty: also what other compilers have seen in other tests (./run test full)
set -u
root=$1 work=$(mktemp -d) full=${PPMA_TEST_FULL:-}
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
include="-std=c++20 -I$root/include -I$root/tests"
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"

. "$root/tests/tries.sh"

compilers=(g++)
if command -v clang++ > /dev/null; then compilers+=(clang++); else skip "no clang++ here"; fi

# One program has every header, and is all of the library.
macros() { g++ $include $warnings -O0 -MMD -c "$root/tests/included/macros.cpp" && g++ macros.o -o macros && ./macros; }
every_header() {
  (cd "$root/include" && find ppma -name '*.hpp' | sort) > headers
  tr ' \\' '\n\n' < macros.d | sed -nE 's,.*/include/(ppma/.*\.hpp)$,\1,p' | sort -u | diff headers - && [[ -s headers ]]
}
# Two sources of a program may include everything.
all_inline() {
  ! nm -C macros.o | grep -E ' [TDB] ' | grep -v ' main$' ||
    { echo "defined in a header, but not inline; is PPMA_API missing where it is declared?"; return 1; }
}
try "names that are macros" macros
try "that program has every header" every_header
try "every definition is inline" all_inline
if [[ ${#compilers[@]} -gt 1 ]]; then
  syntax=(clang++ $include $warnings -fsyntax-only "$root/tests/included/macros.cpp")
  try "names that are macros, clang++ with OpenMP, without a warning" "${syntax[@]}" -fopenmp
  if [[ -n $full ]]; then try "names that are macros, clang++ without OpenMP, without a warning" "${syntax[@]}"; fi
fi
try "every header sets macros aside and gives them back" "$root/tests/names.sh" "$root"
# A kernel for the GPU has a stub of its name on the host, which two sources of a header-only program must not both define.
all_kernels_inline() {
  find "$root/include/ppma" -name '*.cuh' -exec awk '
    FNR == 1 { before = "" }
    /__global__/ && !/template|inline/ && before !~ /^ *template|>$/ { print FILENAME ":" FNR ": a kernel, but no template and not inline"; bad = 1 }
    { before = $0 }
    END { exit bad }' {} +
}
try "every kernel is a template or inline" all_kernels_inline
# The definitions have been compiled behind the program's names with the macros.
library=${PPMA_BUILT:+$PPMA_BUILT/src/libppma.a}
openmp=$([[ -n $library ]] && nm -u "$library" 2> /dev/null | grep -q GOMP_ && echo -fopenmp)
operators() {
  g++ $include -O0 ${library:+-DPPMA_HEADER_ONLY=0} "$root/tests/included/operators.cpp" $library $openmp -pthread -o operators &&
    ./operators
}
try "operators and names beside the library's" operators

# What a program leaves out is an error where it is used, and its kernels are not in the program.
opt_out() {
  "${@:2}" $include -O0 $warnings "$root/tests/included/opt_outs.cpp" -o opt_outs && ./opt_outs || return 1
  nm -C opt_outs > names
  local f64 slopes
  f64=$(grep -c 'kernels::map<double' names) slopes=$(grep -c 'kernels::map<.*Slope' names)
  [[ "$((f64 > 0)) $((slopes > 0))" == "$1" ]] || { echo "kernels for f64: $f64, for gradients: $slopes"; return 1; }
}
try "PPMA_F64=0" opt_out "0 1" g++ -DPPMA_F64=0
try "PPMA_GRADIENTS=0" opt_out "1 0" g++ -DPPMA_GRADIENTS=0
for compiler in "${compilers[@]}"; do
  if [[ $compiler == clang++ || -n $full ]]; then
    try "PPMA_F64=0 and PPMA_GRADIENTS=0, $compiler" opt_out "0 0" "$compiler" -DPPMA_F64=0 -DPPMA_GRADIENTS=0
  fi
done
if [[ -n $full ]]; then try "all of f64 and gradients" opt_out "1 1" g++; fi
compiled_is_whole() {
  for out in PPMA_F64 PPMA_GRADIENTS; do
    echo '#include <ppma/core/config.hpp>' | g++ $include -DPPMA_HEADER_ONLY=0 -D$out=0 -fsyntax-only -x c++ - > out 2>&1 && return 1
    grep -q 'the compiled library is whole' out || return 1
  done
}
try "with the compiled library they are refused" compiled_is_whole

# One line, and it says what to do.
no_exceptions() {
  for compiler in "${compilers[@]}"; do
    echo '#include <ppma/core/error.hpp>' | "$compiler" $include -fno-exceptions -fsyntax-only -x c++ - > out 2>&1 && return 1
    grep -q 'compile without -fno-exceptions' out || return 1
    [[ $(grep -c 'error:' out) -le 2 ]] || { cat out; return 1; }
  done
}
try "-fno-exceptions is refused in one line" no_exceptions

# The arithmetic under flags that allow the compiler to reorder sums and to forget NaN and infinity.
avx2="-mavx2 -mfma" avx512="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma"
has() { grep -qw "$1" /proc/cpuinfo; }
g++ $include -O1 -c "$root/tests/included/fast_math_values.cpp" -o values.o || bad=$((bad + 1))
# It goes forward only; the table of operations below goes back.
fast() { "$@" $include -DPPMA_GRADIENTS=0 "$root/tests/included/fast_math.cpp" values.o -o fast && ./fast; }
# Without full: whether the names and types are there; every kernel for AVX-512 is in the compiled library.
only_compile() { "$@" $include $([[ -n $full ]] && echo -c || echo -fsyntax-only) "$root/tests/included/fast_math.cpp" -o fast.o; }
if [[ -n $full ]] || ! has avx2; then try "g++ -O2 -ffast-math, SSE2" fast g++ -O2 -ffast-math; fi
widest=$(has avx2 && echo "$avx2")
# Two compilers share the two widths, but in full.
shared=$([[ -z $full && ${#compilers[@]} -gt 1 ]] && has avx512bw && echo yes)
for compiler in "${compilers[@]}"; do
  # Without full: g++'s -O2, where its time is two thirds.
  level=$([[ $compiler == g++ && -z $full ]] && echo "-O2 -ffast-math" || echo -Ofast)
  if ! has avx2; then skip "no AVX2 here"
  elif [[ -z $shared || $compiler == clang++ ]]; then try "$compiler $level, AVX2" fast "$compiler" $level $avx2; fi
  if ! has avx512bw; then
    try "$compiler -O0 -ffast-math, AVX-512: compiled only, it cannot run here" only_compile "$compiler" -O0 -ffast-math $avx512
  elif [[ -z $shared || $compiler == g++ ]]; then try "$compiler $level, AVX-512" fast "$compiler" $level $avx512; fi
done

# Those functions of the standard library are constants under such flags: core/float_bits.hpp has ours.
by_bits() {
  ! grep -rnE '(std::|[^_[:alnum:]])is(finite|nan|inf|normal)\(' --exclude=float_bits.hpp \
    "$root/include" "$root/examples" "$root/benchmarks"
}
try "NaN and infinity are told by their bits" by_bits

# The table of operations: gradients against differences, values against PyTorch's. Forward, kernels under such flags have been
# seen above.
for test in "$root"/tests/op_cases/*_test.cpp; do echo "#include \"$test\""; done > operations.cpp
catch_library=$([[ -e /usr/include/catch2/catch_all.hpp ]] && echo -lCatch2)
operations() {
  "$@" $include "-DPPMA_TEST_REFERENCE_DIR=\"$root/tests/reference\"" "-DPPMA_TEST_SOURCE_DIR=\"$root\"" \
    operations.cpp main.o $catch_library -pthread -o operations && ./operations
}
if [[ -n $full ]]; then
  main=${PPMA_BUILT:-}/tests/CMakeFiles/ppma_test_objects.dir/main.cpp.o  # a quarter of a minute, already spent
  if [[ -f $main ]]; then cp "$main" main.o; else g++ $include -O0 -c "$root/tests/main.cpp" -o main.o || bad=$((bad + 1)); fi
  for compiler in "${compilers[@]}"; do
    try "the table of operations, $compiler -O1 -ffast-math" operations "$compiler" -O1 -ffast-math $widest
  done
fi

finish
