// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/yolo_fuzz.cpp
// -o yolo_fuzz, with the switches of image_fuzz.cpp
// ./yolo_fuzz -max_len=4096 NEW_INPUTS_FOLDER SEEDS_FOLDER

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::yolo({data, size});
  fuzz::yolo_names({data, size});
  return 0;
}
