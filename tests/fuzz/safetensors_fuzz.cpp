// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude
// tests/fuzz/safetensors_fuzz.cpp -o safetensors_fuzz
// ./safetensors_fuzz -max_len=4096 NEW_INPUTS_FOLDER SEEDS_FOLDER

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::safetensors({data, size});
  return 0;
}
