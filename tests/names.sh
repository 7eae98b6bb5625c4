#!/usr/bin/env bash
# Every header's line after #pragma once sets other headers' macros aside (core/names_begin.hpp), and its last line gives
# them back (core/names_end.hpp). Says which headers lack them: names.sh ROOT; adds them: names.sh ROOT add
set -u
first='#include "ppma/core/names_begin.hpp"' last='#include "ppma/core/names_end.hpp"' missing=0
while read -r header; do
  [[ $(sed -n 2p "$header") == "$first" && $(tail -n 1 "$header") == "$last" ]] && continue
  if [[ ${2:-} == add ]]; then
    body=$(grep -vxF -e "$first" -e "$last" "$header" | tail -n +2)  # without #pragma once
    printf '#pragma once\n%s\n%s\n\n%s\n' "$first" "$body" "$last" > "$header"
  else
    echo "$header: lacks the lines; run tests/names.sh . add"
    missing=1
  fi
done < <(find "$1/include/ppma" \( -name '*.hpp' -o -name '*.cuh' \) ! -name 'names_*' | sort)
# The two lists are one, and no name is a macro of the system's headers that we include: it would be gone behind them.
begun=$(sed -n 's/#pragma push_macro("\(.*\)")/\1/p' "$1/include/ppma/core/names_begin.hpp")
ended=$(sed -n 's/#pragma pop_macro("\(.*\)")/\1/p' "$1/include/ppma/core/names_end.hpp")
if [[ $begun != "$ended" ]]; then echo "names_begin.hpp and names_end.hpp list different names"; missing=1; fi
exit $missing
