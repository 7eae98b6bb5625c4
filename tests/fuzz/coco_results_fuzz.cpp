// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude
// tests/fuzz/coco_results_fuzz.cpp
// -o coco_results_fuzz
// ./coco_results_fuzz -max_len=4096 NEW_INPUTS_FOLDER SEEDS_FOLDER

#include "coco_targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::coco_results({data, size});
  return 0;
}
