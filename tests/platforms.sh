#!/usr/bin/env bash
# Other compilers, standard libraries, processors and systems, each where its tools are installed (Debian's packages behind
# the name): tests/platforms/program.cpp is compiled for it and run, and must print the numbers that it prints here, within
# rounding: platforms.sh ROOT [NAME...]   (no name: all)
set -u
root=$(cd "$1" && pwd); shift
. "$root/tests/tries.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
wanted=" $* "
compile=(-O0 -I"$root/include" -Wno-psabi "$root/tests/platforms/program.cpp" -o)
lacks=  # numbers that a platform does not have

# Numbers by name, a line each: as here, to 5 digits.
same_numbers() {  # here, there
  awk -v lacks=" $lacks " '{ value = $NF; $NF = "" } NR == FNR { want[$0] = value; next } { got[$0] = value }
    END { for (name in want) {
        if (index(lacks, " " name)) continue
        if (!(name in got)) { print name "is missing"; bad = 1; continue }
        far = got[name] - want[name]; if (far < 0) far = -far
        if (!(far <= 1e-5 * (want[name] < 0 ? -want[name] : want[name]))) { print name got[name] " there, " want[name] " here"; bad = 1 }
        ++compared
      }
      if (compared < 10) { print "only " compared + 0 " numbers"; bad = 1 }
      exit bad }' "$1" "$2"
}
here() {  # the numbers to compare with, once
  [[ -s here.txt ]] || { g++ -std=c++20 -fopenmp "${compile[@]}" here && ./here > here.txt; }
}
compiled_and_run() {  # name, command that runs it (empty: itself), compiler...
  local name=$1 runner=$2
  here && "${@:3}" "${compile[@]}" "$name$suffix" ${link[@]+"${link[@]}"} && $runner "./$name$suffix" > "$name.txt" && tr -d '\r' < "$name.txt" > there.txt && same_numbers here.txt there.txt
}
platform() {  # name, packages, command that runs it, compiler...
  local name=$1 packages=$2 runner=$3
  [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
  if ! command -v "$4" > /dev/null; then skip "$name: no $4 here (Debian: $packages)"; return; fi
  if [[ -n $runner ]] && ! command -v ${runner%% *} > /dev/null; then skip "$name: no ${runner%% *} here (Debian: $packages)"; return; fi
  try "$name" compiled_and_run "$name" "$runner" "${@:4}"
}

link=() suffix=.exe
platform clang-15-c++23 clang-15 "" clang++-15 -std=c++2b
platform clang-16 clang-16 "" clang++-16 -std=c++20
for version in 14 19; do
  name=clang-$version-libc++
  if [[ -d /usr/lib/llvm-$version/include/c++/v1 ]]; then platform "$name" "" "" clang++-$version -std=c++20 -stdlib=libc++
  else skip "$name: no libc++ here (Debian: clang-$version, libc++-$version-dev, libc++abi-$version-dev)"; fi
done
platform aarch64 "g++-aarch64-linux-gnu, qemu-user" "qemu-aarch64 -L /usr/aarch64-linux-gnu" aarch64-linux-gnu-g++ -std=c++20 -fopenmp
# Windows.
export WINEPREFIX=$work/wine WINEDEBUG=-all
wine=$(command -v wine64 || command -v wine || ls /usr/lib/wine/wine64 2> /dev/null || echo wine64)
link=(-static -lws2_32)
platform mingw-w64 "g++-mingw-w64-x86-64-posix, wine64" "$wine" x86_64-w64-mingw32-g++-posix -std=c++20
# WebAssembly.
link=() suffix=.js lacks="socket lock"  # locks succeed always
platform emscripten "emscripten, nodejs" "node --no-experimental-fetch" emcc -std=c++20 -fexceptions -sALLOW_MEMORY_GROWTH=1 -sNODERAWFS=1
# g++'s C++23, where numbers are compared anyway: it is on every machine, and costs as much as each of these.
link=() suffix=.exe lacks=
[[ $good$bad == 00 && $wanted == "  " ]] || platform g++-c++23 "" "" g++ -std=c++23
finish
