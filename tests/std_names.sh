#!/usr/bin/env bash
# Every header includes what declares the names of the standard library that it uses, or a header of ours that does, whatever the
# compiler's own headers bring along besides, and so for nlohmann's JSON: std_names.sh ROOT. Which header has which name:
# std_names.txt, a line a header; a name that ends in a dot is there whole, where definitions need it.
set -u
cd "$1/include" || exit 1
find ppma -name '*.hpp' | sort | xargs awk '
  FILENAME == table { for (i = 2; i <= NF; ++i) has[$1, $i] = known[$i] = 1; next }
  FNR == 1 { header[++n] = FILENAME; part = "declares" }
  /^#if PPMA_HEADER_ONLY/ { part = "defines" }
  /^# *include </ { split($0, quoted, /[<>]/); brings[FILENAME, part] = brings[FILENAME, part] " " quoted[2]; next }
  /^# *include "ppma\// { split($0, quoted, "\""); ours[FILENAME, part] = ours[FILENAME, part] " " quoted[2]; next }
  {
    gsub(/"([^"\\]|\\.)*"/, "\"\""); sub(/\/\/.*/, "")
    while (match($0, /(std|nlohmann)::[a-z_0-9]+/)) {
      name = substr($0, RSTART, RLENGTH); $0 = substr($0, RSTART + RLENGTH)
      if (!sub(/^std::/, "", name) && part == "defines") name = name "."  # there it is more than a name
      if (!((FILENAME, part, name) in used)) uses[FILENAME, part] = uses[FILENAME, part] " " name
      used[FILENAME, part, name] = 1
    }
  }
  # What a header sees: what it includes itself, and what the declarations of ours bring.
  function see(h, part,   list, i, k) {
    k = split(brings[h, part], list, " "); for (i = 1; i <= k; ++i) seen[list[i]] = 1
    k = split(ours[h, part], list, " ")
    for (i = 1; i <= k; ++i) if (!(list[i] in visited)) { visited[list[i]] = 1; see(list[i], "declares") }
  }
  function look(h, part,   list, i, k, where, found) {
    k = split(uses[h, part], list, " ")
    for (i = 1; i <= k; ++i) {
      if (!(list[i] in known)) { print list[i] " of " h " is not in tests/std_names.txt: which header has it?"; ++bad; continue }
      found = 0; for (where in seen) if ((where, list[i]) in has) found = 1
      if (!found) { print h " uses " list[i] " and includes no header that has it"; ++bad }
    }
  }
  END {
    for (j = 1; j <= n; ++j) {
      delete seen; delete visited
      see(header[j], "declares"); look(header[j], "declares")
      see(header[j], "defines"); look(header[j], "defines")
    }
    exit bad > 0
  }' table="$1/tests/std_names.txt" "$1/tests/std_names.txt"
