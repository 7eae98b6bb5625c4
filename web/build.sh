#!/usr/bin/env bash
# The page, whole, into a folder: web/build.sh FOLDER. ppma.wasm comes from em++ (Debian: emscripten), and is made again when a source is
# newer. No JavaScript is generated: the module's functions are called as they are (ppma.js).
set -euo pipefail
from=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cp "$from"/{index.html,page.css,ppma.js,play.js,learn.js,worker.js} "$1"
if [[ ! -s $1/ppma.wasm || -n $(find "$from" "$from/../include" -name '*.?pp' -newer "$1/ppma.wasm" -print -quit) ]]; then
  exports=$(sed -nE 's/^[a-z:8]+[a-z* ]* ?\*? ?(web_[a-z_]+)\(.*\{.*/_\1/p' "$from/ppma_web.cpp" | paste -sd,)
  # f64 kernels are left out; errors are WebAssembly's own exceptions.
  em++ -std=c++20 -O3 -msimd128 -fwasm-exceptions -DPPMA_F64=0 -I"$from/../include" "$from/ppma_web.cpp" \
    --no-entry -sSTANDALONE_WASM -sALLOW_MEMORY_GROWTH=1 -sEXPORTED_FUNCTIONS="$exports" -o "$1/new.wasm"
  mv "$1/new.wasm" "$1/ppma.wasm"
fi
