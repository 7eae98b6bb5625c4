#!/usr/bin/env bash
# The ways into another project: find_package after an install, add_subdirectory, one plain g++ line; and two source
# files of one program, one compiled with OpenMP and one without: install.sh ROOT
set -eu
root=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# One operation brings the tensor, the tape, threads and errors along; that everything together is inline,
# tests/included.sh tries.
cat > a.cpp << 'CPP'
#include <ppma/ops/reduce.hpp>
double other();  // b.cpp
int main() {
  const double here = ppma::sum(ppma::Tensor::ones({3})).item();
  return here == 3.0 && other() == 3.0 ? 0 : 1;
}
CPP
cat > b.cpp << 'CPP'
#include <ppma/ops/reduce.hpp>
double other() { return ppma::sum(ppma::Tensor::ones({3})).item(); }
CPP

. "$root/tests/tries.sh"

plain() { g++ -std=c++20 -O0 -save-temps=obj -I"$root/include" a.cpp b.cpp -o plain && ./plain; }
try "one plain g++ line" plain

mixed() {
  g++ -std=c++20 -O0 -fopenmp -I"$root/include" -c a.cpp -o a.o && g++ -fopenmp a.o plain-b.o -o mixed && ./mixed
}
try "a file with OpenMP and one without in one program" mixed

target=ppma::ppma
echo 'double other(); int main() { return other() == 3.0 ? 0 : 1; }' > main.cpp
consumer() {  # name, line that finds ppma, configure arguments
  mkdir -p "$1" && cp main.cpp b.cpp "$1" &&
    printf 'cmake_minimum_required(VERSION 3.22)\nproject(app CXX)\n%s\nadd_executable(app main.cpp b.cpp)\ntarget_link_libraries(app PRIVATE %s)\n' "$2" "$target" > "$1/CMakeLists.txt" &&
    cmake -S "$1" -B "$1/build" "${@:3}" && cmake --build "$1/build" && "$1/build/app"
}
installed() {
  cmake -S "$root" -B ppma -DPPMA_BUILD_TESTS=OFF -DPPMA_BUILD_EXAMPLES=OFF && cmake --install ppma --prefix "$work/prefix" &&
    consumer found 'find_package(ppma 0.1 REQUIRED)' -DCMAKE_PREFIX_PATH="$work/prefix"
}
try "install and find_package" installed
# The library that this build has made (PPMA_BUILT: its folder), installed with the headers; what links it is exported itself.
compiled() {
  cmake --install "$PPMA_BUILT" --prefix "$work/with_library" || return 1
  target=ppma::compiled
  consumer compiled 'find_package(ppma 0.1 REQUIRED COMPONENTS compiled)' -DCMAKE_PREFIX_PATH="$work/with_library" || return 1
  target=ppma::ppma
  mkdir library && cp b.cpp library && cat > library/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(other CXX)
find_package(ppma 0.1 REQUIRED COMPONENTS compiled)
add_library(other STATIC b.cpp)
target_link_libraries(other PUBLIC ppma::compiled)
install(TARGETS other EXPORT other ARCHIVE DESTINATION lib)
install(EXPORT other DESTINATION lib/cmake/other)
CMAKE
  cmake -S library -B library/build -DCMAKE_PREFIX_PATH="$work/with_library" && cmake --build library/build &&
    cmake --install library/build --prefix "$work/other"
}
try "add_subdirectory" consumer sub "add_subdirectory($root ppma)"

# A library beside ours in one build, installed and exported; a program that finds both.
exported() {
  mkdir -p beside user && cp b.cpp beside && cat > beside/CMakeLists.txt << CMAKE
cmake_minimum_required(VERSION 3.22)
project(other CXX)
set(PPMA_INSTALL ON)
add_subdirectory($root ppma)
add_library(other STATIC b.cpp)
target_link_libraries(other PUBLIC ppma::ppma)
install(TARGETS other EXPORT other ARCHIVE DESTINATION lib)
install(EXPORT other DESTINATION lib/cmake/other)
CMAKE
  cmake -S beside -B beside/build && cmake --build beside/build --target other &&
    cmake --install beside/build --prefix "$work/beside_installed" || return 1
  cp a.cpp user && cat > user/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.22)
project(app CXX)
find_package(ppma 0.1 REQUIRED)
include(${CMAKE_PREFIX_PATH}/lib/cmake/other/other.cmake)
add_executable(app a.cpp)
target_link_libraries(app PRIVATE other)
CMAKE
  cmake -S user -B user/build -DCMAKE_PREFIX_PATH="$work/beside_installed" && cmake --build user/build && user/build/app
}
try "a library that is exported from a build with ours" exported

# A project above ours that compiles one of its files as CUDA: made ready to build, which needs the language in its own folder.
cuda_consumer() {
  mkdir -p cuda && cp a.cpp b.cpp cuda &&
    printf 'cmake_minimum_required(VERSION 3.22)\nproject(app CXX)\nadd_subdirectory(%s ppma)\nadd_executable(app a.cpp)\nppma_enable_cuda(app)\nadd_executable(plain b.cpp)\ntarget_link_libraries(plain PRIVATE ppma::ppma)\n' "$root" > cuda/CMakeLists.txt &&
    CUDACXX=$nvcc cmake -S cuda -B cuda/build -DPPMA_CUDA=ON -DPPMA_BUILD_EXAMPLES=OFF
}
# A program that g++ alone compiles and that has code for GPUs; here it computes on the CPU.
compiled_cuda() {
  cmake --install "$PPMA_BUILT" --prefix "$work/with_cuda" || return 1
  target=ppma::compiled_cuda
  consumer compiled_cuda 'find_package(ppma 0.1 REQUIRED COMPONENTS compiled_cuda)' -DCMAKE_PREFIX_PATH="$work/with_cuda"
}
if [[ -n ${PPMA_BUILT:-} ]]; then try "the compiled library, installed; a library that links it" compiled; fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)
if [[ -n $nvcc ]]; then try "add_subdirectory with CUDA" cuda_consumer; fi
if [[ -f ${PPMA_BUILT:-}/src/cuda/libppma_cuda.a ]]; then try "the library for GPUs, installed" compiled_cuda; else skip "no library for GPUs was built (-DPPMA_CUDA=ON)"; fi

finish
