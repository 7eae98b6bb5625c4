#!/usr/bin/env bash
# Every header compiles alone, without a warning, declarations and its unit's definitions, under clang++ or, where there is
# none, g++; all of them together under g++, declarations alone: compile_alone.sh ROOT
#   PPMA_BUILT   a build folder, where it is kept which headers were right: one is compiled again when it or what it
#                includes has changed
# That everything together compiles header-only, under g++ and clang++ with OpenMP, tests/included.sh tries.
set -u
cd "$1/include" || exit 1
flags="-std=c++20 -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
# What is missing in a header both miss. clang++ takes two thirds of the time: what a precompiled header instantiates is kept in
# it, where g++ has templates of the standard library and of JSON to instantiate in each process.
if command -v clang++ > /dev/null; then
  cxx=clang++ making="-fpch-instantiate-templates" made=pch using=-include-pch
  flags+=" -Wno-ignored-pragmas"  # names_end.hpp alone
else
  cxx=g++ making="" made=gch using=-include
  flags+=" -Winvalid-pch"
fi
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
[[ -n ${PPMA_BUILT:-} ]] && right="$PPMA_BUILT/headers_compiled_alone" || right="$kept/right"
mkdir -p "$right"

# Fewer processes see as much:
# - What most headers include, the bases, is compiled beforehand. A header is compiled behind the first base that its own
#   declarations include anyway, and which has nothing of its own unit, whose definitions are to be seen.
# - All of the standard library and nlohmann's JSON come before them: that a header includes what it needs of those,
#   std_names.sh has looked up.
# - A process has a chain of headers. Each is included by the next: it is compiled behind what it would have seen alone. The
#   first one's base is the chain's.
bases="ppma/nn/layers.hpp ppma/tensor/tensor.hpp"
precompile() {
  mkdir -p "$kept/$(dirname "$1")"
  { cat "$kept/standard"; [[ $1 == std ]] || echo "#include \"$1\""; } > "$kept/$1"
  $cxx $flags $making -DPPMA_HEADER_ONLY=0 -x c++-header "$kept/$1" -o "$kept/$1.$made" || rm -f "$kept/$1.$made"
}

# A line for each header, those of a chain in order: the chain's number; the header; the checksums of all that it
# includes, itself among them; its base, or -.
plan() {
  { { $cxx --version | head -1; echo "$flags"; cat "$1"/tests/compile_alone.sh "$1"/tests/std_names.txt; } | sha1sum | sed 's/ .*/ compiler/'
    find ppma -name '*.hpp' | sort | xargs sha1sum
    find ppma -name '*.hpp' | sort | xargs awk 'FNR == 1 { part = "declares" } /^#if PPMA_HEADER_ONLY/ { part = "defines" }
      match($0, /defined\(PPMA_DEFINES_[A-Z_]+/) { print FILENAME, substr($0, RSTART + 8, RLENGTH - 8), "unit" }
      /^#include "ppma\// { split($2, quoted, "\""); print FILENAME, quoted[2], part }'
  } | awk -v bases="$bases" '
    $2 == "compiler" { compiler = $1; next }
    $3 == "unit" { unit[$1] = unit[$1] " -D" $2; next }
    $3 { all[$1] = all[$1] " " $2; if ($3 == "declares") declares[$1] = declares[$1] " " $2; next }
    { sum[$2] = $1; name[++n] = $2 }
    # The others are compiled with all definitions; of the umbrella these are what included.sh compiles.
    function in_folder(header,   part) { return split(header, part, "/") > 2 || header == "ppma/ppma.hpp" }
    # Adds to seen and sums what a header includes; definitions of one unit, or of "every".
    function visit(header, defined,   list, i, k) {
      if (header in seen) return
      seen[header] = 1; sums = sums sum[header]
      k = split(defined == "every" || defined == unit[header] ? all[header] : declares[header], list, " ")
      for (i = 1; i <= k; ++i) visit(list[i], defined)
    }
    function base_of(header,   i, chosen) {
      if (!in_folder(header)) return "-"
      delete seen; visit(header, "none"); chosen = "std"
      for (i = k; i >= 1; --i) if (base[i] in seen && !((base[i], unit[header]) in has)) chosen = base[i]
      return chosen
    }
    END {
      k = split(bases, base, " ")
      for (i = 1; i <= k; ++i) { delete seen; visit(base[i], "none"); for (h in seen) if (unit[h] != "") has[base[i], unit[h]] = 1 }
      for (i = 1; i <= n; ++i) {
        h = name[i]; behind[h] = base_of(h)
        delete seen; visit(h, unit[h]); size[h] = 0
        for (other in seen) { includes[h, other] = 1; ++size[h] }
        if (size[h] > most) most = size[h]
      }
      for (s = 1; s <= most; ++s) for (i = 1; i <= n; ++i) if (size[name[i]] == s) {
        h = name[i]; mine = 0
        for (c = 1; c <= chains && in_folder(h); ++c) {
          last = end[c]
          if ((h, last) in includes && in_folder(last) &&
              (!mine || size[last] > size[end[mine]])) mine = c
        }
        if (!mine) mine = ++chains
        end[mine] = h
        delete seen; sums = compiler; visit(h, "every"); print mine, h, sums, behind[h]
      }
    }' | sort -s -n -k 1,1
}
# A chain's definitions are switched on in copies, so that those of all other headers stay away: to compile them with each
# chain would be most of the library. Where one calls what another has among its definitions, those of its own folder that it
# includes are there; where that is not enough, those of all units of the chain.
copied() {  # folder, headers: into the folder, their definitions switched on
  local header
  for header in "${@:2}"; do
    mkdir -p "$1/$(dirname "$header")"
    sed 's/^#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_.*/#if 1/' "$header" > "$1/$header"
  done
}
units_of() { grep -ho 'defined(PPMA_DEFINES_[A-Z_]*' "$@" | sed 's/.*(/ -D/' | sort -u | tr -d '\n'; }
beside() {  # headers: they and what they include of their own folder, through these
  local header todo=("$@")
  local -A seen
  while [[ ${#todo[@]} -gt 0 ]]; do
    header=${todo[0]} todo=("${todo[@]:1}")
    [[ -z ${seen[$header]:-} ]] || continue
    seen[$header]=1 todo+=($(sed -nE "s,^#include \"(${header%/*}/.*)\",\1,p" "$header"))
  done
  echo "${!seen[@]}"
}
together() {  # base, then header and checksums for each of a chain
  local base=$1 alone="" all="" headers=() header copy i
  copy=$(mktemp -d "$kept/copy.XXXXXX")
  for ((i = 2; i < $#; i += 2)); do header=${!i} headers+=("$header") alone+=" -include $copy/$header" all+=" -include $header"; done
  if [[ $base == - ]]; then $cxx $flags -fsyntax-only -x c++ $all /dev/null
  else
    local suffix=$([[ $cxx == g++ ]] || echo ".$made")
    behind() { $cxx -I"$copy" $flags -fsyntax-only -x c++ -DPPMA_HEADER_ONLY=0 $using "$kept/$1$suffix" $alone /dev/null 2> /dev/null; }
    copied "$copy" "${headers[@]}"
    behind "$base" || { copied "$copy" $(beside "${headers[@]}"); behind std; } ||
      $cxx $flags -fsyntax-only -x c++ -DPPMA_HEADER_ONLY=0$(units_of "${headers[@]}") $using "$kept/std$suffix" $all /dev/null
  fi || { echo "one of these does not compile alone:${all//-include/}"; return 1; }
  for ((i = 2; i < $#; i += 2)); do header=${!i} sums=$((i + 1)); echo "${!sums}" > "$right/${header//\//_}"; done
}
export -f together copied units_of beside precompile; export flags right kept cxx making made using
awk '{ print $1 }' "$1/tests/std_names.txt" | sort -u | sed 's/.*/#if __has_include(<&>)\n#include <&>\n#endif/' > "$kept/standard"
# The parser behind JSON's literal, which nothing here has, would be instantiated anew by each process.
json=$(echo '#include <nlohmann/json.hpp>' | g++ -M -x c++ - 2> /dev/null | grep -o '/[^ ]*/nlohmann/json\.hpp')
if [[ -n $json ]]; then
  { echo '#pragma GCC system_header'; sed 's/^ *return nlohmann::json::parse(s, s + n);/return {};/' "$json"; } > "$kept/json.hpp"
  sed -i "s,#include <nlohmann/json.hpp>,#include \"$kept/json.hpp\"," "$kept/standard"
fi
plan "$1" | while read -r chain header sums base; do
  file=$right/${header//\//_}
  [[ -f $file && $(< "$file") == "$sums" ]] || echo "$chain $header $sums $base"
done > "$kept/to_do"
{ awk '$4 != "-" { print $4 }' "$kept/to_do"; echo std; } | sort -u | xargs -r -P "$(nproc)" -L 1 bash -c 'precompile "$@"' precompile
awk '$1 != chain { if (NR > 1) print line; chain = $1; line = $4 } { line = line " " $2 " " $3 } END { if (NR) print line }' \
  "$kept/to_do" > "$kept/chains"
if xargs -r -P "$(nproc)" -L 1 bash -c 'together "$@"' together < "$kept/chains"; then good=1 bad=0; else good=0 bad=1; fi
if "$1/tests/std_names.sh" "$1"; then good=$((good + 1)); else bad=$((bad + 1)); fi
echo "$(find ppma -name '*.hpp' | wc -l) headers, of which $(wc -l < "$kept/to_do") had to be compiled"

find ppma -name '*.hpp' | sort | sed 's/.*/#include "&"/' > "$kept/all.cpp"
if g++ ${flags/-Wno-ignored-pragmas/} -fsyntax-only -DPPMA_HEADER_ONLY=0 "$kept/all.cpp"; then good=$((good + 1)); else bad=$((bad + 1)); fi
echo "$good passed, $bad failed"
[[ $bad -eq 0 ]]
