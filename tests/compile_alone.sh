#!/usr/bin/env bash
# Every header compiles alone, without a warning, under g++; all of them together under clang++ too, with and without
# OpenMP: compile_alone.sh ROOT
set -u
cd "$1/include" || exit 1
flags="-std=c++20 -fsyntax-only -x c++ -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
export flags
if find ppma -name '*.hpp' | sort | xargs -P "$(nproc)" -I{} bash -c 'g++ $flags -include {} /dev/null || { echo "{} does not compile alone"; exit 1; }'
then good=1 bad=0; else good=0 bad=1; fi
# Every definition is inline: two sources of a program may include everything.
object=$(mktemp)
find ppma -name '*.hpp' | sort | sed 's/.*/#include "&"/' | g++ -std=c++20 -O0 -I. -x c++ -c -o "$object" -
if strong=$(nm -C "$object" | grep -E ' [TDB] '); then
  printf 'defined in a header, but not inline; is PPMA_API missing where it is declared?\n%s\n' "$strong"
  bad=$((bad + 1))
else
  good=$((good + 1))
fi
rm -f "$object"
if command -v clang++ > /dev/null; then
  for openmp in "-fopenmp" "" "-fopenmp -DPPMA_HEADER_ONLY=0"; do
    if clang++ $flags $openmp -include ppma/ppma.hpp /dev/null; then good=$((good + 1)); else bad=$((bad + 1)); fi
  done
else
  echo "skipped: no clang++ here"
fi
if [[ -x /usr/bin/time ]]; then ../benchmarks/compile_time.sh compiled; else echo "no GNU time: compile times are not printed"; fi
echo "$good passed, $bad failed"
[[ $bad -eq 0 ]]
