// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/tar_fuzz.cpp
// -o tar_fuzz, with the switches of image_fuzz.cpp
// ./tar_fuzz -max_len=16384 NEW_INPUTS_FOLDER SEEDS_FOLDER

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::tar({data, size});
  return 0;
}
