#!/usr/bin/env bash
# Every header compiles alone, without a warning: compile_alone.sh ROOT COMPILER...
set -u
root=$1; shift
cd "$root/include" || exit 1
flags="-std=c++20 -fsyntax-only -x c++ -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wno-pragma-once-outside-header -Werror"
good=0 bad=0
for compiler in "$@"; do
  command -v "$compiler" > /dev/null || { echo "skipped: no $compiler here"; continue; }
  while read -r header; do
    if $compiler $flags -include "$header" /dev/null; then good=$((good + 1))
    else echo "$compiler: $header does not compile alone"; bad=$((bad + 1)); fi
  done < <(find ppma -name '*.hpp' | sort)
done
seconds() { local TIMEFORMAT=%U; { time printf '#include "%s"\n' "$1" | g++ -std=c++20 -O2 -I. -x c++ -c -o /dev/null -; } 2>&1; }
echo "compile time, CPU seconds at -O2: core and one op $(seconds ppma/ops/arithmetic.hpp), network $(seconds ppma/models/ppma.hpp), all $(seconds ppma/ppma.hpp)"
[[ $bad -eq 0 ]] && echo "1 passed, 0 failed" || { echo "0 passed, 1 failed"; exit 1; }
