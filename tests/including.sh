#!/usr/bin/env bash
# Every program in docs/including.md compiles and ends with 0: including.sh ROOT
#   PPMA_BUILT    a build folder, whose library is linked
set -u
root=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
awk '$0 == "```cpp" { out = ++n ".cpp"; next } /^```/ { out = "" } out { print > out }' "$root/docs/including.md"
openmp=$(nm -u "$PPMA_BUILT/src/libppma.a" 2> /dev/null | grep -q GOMP_ && echo -fopenmp)
good=0 bad=0
for program in ./[0-9]*.cpp; do
  if g++ -std=c++20 -O1 -Wall -Wextra -Werror -DPPMA_HEADER_ONLY=0 -I"$root/include" "$program" \
    "$PPMA_BUILT/src/libppma.a" $openmp -pthread -o program > log 2>&1 && ./program >> log 2>&1; then
    good=$((good + 1))
  else
    echo "FAILED: program $program of docs/including.md"; head -40 log; bad=$((bad + 1))
  fi
done
# What -fno-rtti says there.
if echo '#include <ppma/ppma.hpp>' | g++ -std=c++20 -fno-rtti -fsyntax-only -DPPMA_HEADER_ONLY=0 -I"$root/include" -x c++ -; then
  good=$((good + 1))
else
  echo "FAILED: -fno-rtti"; bad=$((bad + 1))
fi
echo "$good passed, $bad failed"
[[ $bad -eq 0 && $good -gt 1 ]]
