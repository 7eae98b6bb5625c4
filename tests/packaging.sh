#!/usr/bin/env bash
# The Debian packages and the pkg-config files of a build: packaging.sh ROOT, with PPMA_BUILT, the folder of the build
set -u
root=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

. "$root/tests/tries.sh"

packages() {
  cpack --config "$PPMA_BUILT/CPackConfig.cmake" -B "$work/packages" &&
    for package in packages/*.deb; do dpkg-deb -x "$package" installed || return 1; done
}
named() {
  dpkg-deb -f packages/libppma-dev_*.deb Package Depends Description | tee fields
  grep -q '^Package: libppma-dev$' fields && grep -q 'tensors, reverse-mode' fields
}
# The tool, from where it was unpacked, with what the package says that it depends on.
tool() {
  dpkg-deb -f packages/ppma_*.deb Depends | grep -q 'libc6' && installed/usr/bin/ppma --help | grep -q train
}
cat > a.cpp << 'CPP'
#include <ppma/models/ppma.hpp>
#include <ppma/ops/reduce.hpp>
int main() { return ppma::sum(ppma::Tensor::ones({3})).item() == 3.0 ? 0 : 1; }
CPP
compiled_program() {
  export PKG_CONFIG_PATH="$work/installed/usr/lib/pkgconfig"
  # shellcheck disable=SC2046  # several words
  g++ -O1 a.cpp $(pkg-config --cflags --libs ppma-compiled) -o a && ./a
}
headers() {  # the version, and that the headers are found; that such a program links, tests/install.sh tries
  export PKG_CONFIG_PATH="$work/installed/usr/lib/pkgconfig"
  pkg-config --exact-version="$(sed -nE 's/^project\(ppma VERSION ([0-9.]+).*/\1/p' "$root/CMakeLists.txt")" ppma &&
    echo '#include <ppma/core/shape.hpp>' | g++ $(pkg-config --cflags ppma) -fsyntax-only -x c++ -
}
with_blas() {  # what the library was built with, its users link
  cmake -S "$root" -B other -DPPMA_BLAS=ON -DPPMA_BUILD_TESTS=OFF -DPPMA_BUILD_EXAMPLES=OFF && cat other/ppma-compiled.pc &&
    pkg-config --libs other/ppma-compiled.pc | grep blas
}
found() {
  mkdir -p app && cp a.cpp app && cat > app/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(app CXX)
find_package(ppma 0.1 REQUIRED COMPONENTS compiled)
add_executable(app a.cpp)
target_link_libraries(app PRIVATE ppma::compiled)
CMAKE
  cmake -S app -B app/build -DCMAKE_PREFIX_PATH="$work/installed/usr" && cmake --build app/build && app/build/app
}

if command -v cpack dpkg-deb > /dev/null; then
  try "Debian packages" packages
  try "their names and descriptions" named
  if [[ -n $(ls packages/ppma_*.deb 2> /dev/null) ]]; then try "the tool of its package runs" tool; fi
  try "find_package finds what a package installs" found
  if command -v pkg-config > /dev/null; then
    try "pkg-config and the compiled library" compiled_program
    try "pkg-config and the headers" headers
    if compgen -G '/usr/lib/*/libopenblas.so' > /dev/null; then try "pkg-config names the BLAS" with_blas
    else skip "no OpenBLAS here (Debian: libopenblas-dev)"; fi
  else
    skip "no pkg-config here"
  fi
else
  skip "no dpkg-deb or cpack here"
fi
# The recipes build everything anew: they are tried where their tools are.
conan_recipe() {
  export CONAN_HOME="$work/conan"
  conan profile detect && conan create "$root/packaging/conan" -s compiler.cppstd=20 --build=missing
}
if command -v conan > /dev/null; then try "the Conan recipe" conan_recipe; else skip "no conan here"; fi
vcpkg_port() {
  vcpkg install ppma --overlay-ports="$root/packaging/vcpkg/ports" --x-install-root="$work/vcpkg"
}
if command -v vcpkg > /dev/null; then try "the vcpkg port" vcpkg_port; else skip "no vcpkg here"; fi

finish
