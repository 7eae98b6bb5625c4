#!/usr/bin/env bash
# Every header compiles alone, without a warning, under g++; all of them together under clang++ too, with and without
# OpenMP: compile_alone.sh ROOT
set -u
cd "$1/include" || exit 1
flags="-std=c++20 -fsyntax-only -x c++ -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
export flags
if find ppma -name '*.hpp' | sort | xargs -P "$(nproc)" -I{} bash -c 'g++ $flags -include {} /dev/null || { echo "{} does not compile alone"; exit 1; }'
then good=1 bad=0; else good=0 bad=1; fi
if command -v clang++ > /dev/null; then
  for openmp in -fopenmp ""; do
    if clang++ $flags $openmp -include ppma/ppma.hpp /dev/null; then good=$((good + 1)); else bad=$((bad + 1)); fi
  done
else
  echo "skipped: no clang++ here"
fi
seconds() { local TIMEFORMAT=%U; { time printf '#include "%s"\n' "$1" | g++ -std=c++20 -O2 -I. -x c++ -c -o /dev/null -; } 2>&1; }
echo "CPU seconds to compile at -O2: core and one op $(seconds ppma/ops/arithmetic.hpp), network $(seconds ppma/models/ppma.hpp), everything $(seconds ppma/ppma.hpp)"
echo "$good passed, $bad failed"
[[ $bad -eq 0 ]]
