#!/usr/bin/env bash
# The page in web/: it compiles, is small, computes what the library computes, and works in a browser. Needs em++ (Debian: emscripten,
# which brings nodejs) and, for the last, chromium.  tests/web.sh SOURCE [LIBRARY]
# SOURCE/build/web keeps ppma.wasm for the next time; PPMA_WEB names another folder.
set -u
root=$(cd "$1" && pwd) library=${2:+$(realpath "$2")}
. "$root/tests/tries.sh"
page=${PPMA_WEB:-$root/build/web}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

for program in em++ node; do
  command -v $program > /dev/null || { skip "the page: no $program here (Debian: emscripten)"; finish; exit; }
done

small() {
  local bytes
  bytes=$(cat "$page"/{index.html,page.css,*.js,ppma.wasm} | wc -c)
  echo "$bytes bytes; at most $((2 << 20))"
  [[ $bytes -gt 100000 && $bytes -le $((2 << 20)) ]]
}
same_numbers() {
  if [[ -n $library ]]; then g++ -std=c++20 -O1 -DPPMA_HEADER_ONLY=0 -I"$root/include" "$root/tests/web/numbers.cpp" "$library" -fopenmp -o numbers
  else g++ -std=c++20 -O1 -DPPMA_F64=0 -I"$root/include" "$root/tests/web/numbers.cpp" -o numbers; fi || return 1
  ./numbers > here.txt && node "$root/tests/web/numbers.mjs" "$page" > there.txt || return 1
  awk '{ value = $NF; $NF = "" } NR == FNR { want[$0] = value; next } { got[$0] = value }
    END { for (name in want) {
        far = got[name] - want[name]; if (far < 0) far = -far
        if (!(name in got) || !(far <= 1e-4 * (want[name] < 0 ? -want[name] : want[name]))) { print name got[name] " in wasm, " want[name] " here"; bad = 1 }
        ++compared }
      if (compared < 100) { print "only " compared + 0 " numbers"; bad = 1 }
      exit bad }' here.txt there.txt
}
in_browser() { node "$root/tests/web/page.mjs" "$page" "$browser" "$1"; }

try "the page compiles" "$root/web/build.sh" "$page"
if [[ $bad -eq 0 ]]; then
  try "it has at most 2 MiB" small
  try "it computes what the library computes" same_numbers
  browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
  if [[ -z $browser ]]; then skip "the page in a browser: no chromium here (Debian: chromium)"
  else
    try "its first picture is there, without errors, at 1280 and 390 pixels, light and dark" in_browser first
    try "keys, pointer, brush, masks, grids and an image of one's own do what they say" in_browser hands
    try "all controls are labelled and reached by the keyboard, with a visible focus" in_browser labels
    try "a network learns, stops, goes on and starts anew" in_browser learn
  fi
fi
finish
