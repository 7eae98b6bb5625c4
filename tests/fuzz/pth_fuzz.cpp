// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/pth_fuzz.cpp
// -o pth_fuzz
// ./pth_fuzz -max_len=4096 NEW_INPUTS_FOLDER SEEDS_FOLDER

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::pth({data, size});
  return 0;
}
