// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/image_fuzz.cpp
// -o image_fuzz
// ./image_fuzz -max_len=4096 NEW_INPUTS_FOLDER SEEDS_FOLDER
// and -fno-sanitize=nonnull-attribute,shift,signed-integer-overflow: stb_image copies nothing to
// nullptr, shifts out bits that it has run out of and adds up coefficients of nonsense; that gives
// wrong pixels, not wrong memory.

#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::image({data, size});
  return 0;
}
