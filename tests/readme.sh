#!/usr/bin/env bash
# The README's program compiles: readme.sh ROOT
set -u
awk '/^```cpp/ { p = 1; next } /^```/ { p = 0 } p' "$1/README.md" > "${TMPDIR:-/tmp}/ppma-readme-$$.cpp"
trap 'rm -f "${TMPDIR:-/tmp}/ppma-readme-$$.cpp"' EXIT
if g++ -std=c++20 -fsyntax-only -I"$1/include" "${TMPDIR:-/tmp}/ppma-readme-$$.cpp"; then echo "1 passed, 0 failed"
else echo "0 passed, 1 failed"; exit 1; fi
