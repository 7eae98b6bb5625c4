#!/usr/bin/env bash
# Every header compiles alone, without a warning, under g++, declarations and its folder's definitions; all of them
# together header-only under g++ and clang++, with and without OpenMP: compile_alone.sh ROOT
#   PPMA_BUILT   a build folder, where it is kept which headers were right: one is compiled again when it or what it
#                includes has changed
set -u
cd "$1/include" || exit 1
flags="-std=c++20 -fsyntax-only -x c++ -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
[[ -n ${PPMA_BUILT:-} ]] && right="$PPMA_BUILT/headers_compiled_alone" || right="$kept/right"
mkdir -p "$right"

# A line for each header: its name, and the checksums of all that it includes, itself among them.
with_sums() {
  { g++ --version | head -1; echo "$flags"; cat "$1/tests/compile_alone.sh"; } | sha1sum | sed 's/ .*/ compiler/'
  find ppma -name '*.hpp' | sort | xargs sha1sum
  find ppma -name '*.hpp' | sort | xargs grep -H '^#include "ppma/' | sed -E 's/^([^:]*):#include "([^"]*)".*/\1 \2 includes/'
}
closures() {
  awk '$2 == "compiler" { compiler = $1; next } $3 == "includes" { to[$1] = to[$1] " " $2; next } { sum[$2] = $1; name[++n] = $2 }
    function visit(h,   list, i, k) {
      if (h in seen) return
      seen[h] = 1; all = all sum[h]
      k = split(to[h], list, " ")
      for (i = 1; i <= k; ++i) visit(list[i])
    }
    END { for (i = 1; i <= n; ++i) { delete seen; all = compiler; visit(name[i]); print name[i], all } }'
}
# The definitions of other folders are left out: with them each header would compile most of the library.
one() {  # header, checksums
  local folder=${1#ppma/} file=${1//\//_} mode=""
  [[ $folder == */* ]] && folder=${folder%%/*} mode="-DPPMA_HEADER_ONLY=0 -DPPMA_DEFINES_${folder^^}"
  [[ -f $right/$file && $(< "$right/$file") == "$2" ]] && return
  g++ $flags $mode -include "$1" /dev/null || { echo "$1 does not compile alone"; return 1; }
  echo "$2" > "$right/$file"
  echo > "$kept/compiled_$file"
}
export -f one; export flags right kept
if with_sums "$1" | closures | xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one
then good=1 bad=0; else good=0 bad=1; fi
echo "$(find ppma -name '*.hpp' | wc -l) headers, of which $(find "$kept" -name 'compiled_*' | wc -l) had to be compiled"

# Every definition is inline: two sources of a program may include everything.
object=$kept/all.o
find ppma -name '*.hpp' | sort | sed 's/.*/#include "&"/' > "$kept/all.cpp"
g++ -std=c++20 -O0 -I. -c -o "$object" "$kept/all.cpp"
if strong=$(nm -C "$object" | grep -E ' [TDB] '); then
  printf 'defined in a header, but not inline; is PPMA_API missing where it is declared?\n%s\n' "$strong"
  bad=$((bad + 1))
else
  good=$((good + 1))
fi
if command -v clang++ > /dev/null; then
  for openmp in "-fopenmp" "" "-fopenmp -DPPMA_HEADER_ONLY=0"; do
    if clang++ $flags $openmp "$kept/all.cpp"; then good=$((good + 1)); else bad=$((bad + 1)); fi
  done
else
  echo "skipped: no clang++ here"
fi
if ../benchmarks/compile_time.sh budget; then good=$((good + 1)); else bad=$((bad + 1)); fi
echo "$good passed, $bad failed"
[[ $bad -eq 0 ]]
