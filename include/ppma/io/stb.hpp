#pragma once
#include "ppma/core/names_begin.hpp"
#pragma GCC system_header  // no warnings for what is not ours
// Sean Barrett's stb_image and stb_image_write (https://github.com/nothings/stb), private to
// io/jpeg.hpp, io/png.hpp and io/image.hpp.
//
// The functions are static, in a namespace of ours, and no macro of theirs is left behind that
// would change an #include <stb_image.h> elsewhere in the program. Their memory comes from
// StbMemory: it is limited, and freed as a whole, also where they leak on damaged files; a failed
// assertion of theirs becomes an ordinary ppma::Error. PPMA_STB says whether the headers were
// found.

#include "ppma/core/config.hpp"

#if defined(PPMA_NO_STB)
#define PPMA_STB 0
#elif __has_include(<stb/stb_image.h>) && __has_include(<stb/stb_image_write.h>)
#define PPMA_STB 1
#define PPMA_STB_IMAGE <stb/stb_image.h>
#define PPMA_STB_IMAGE_WRITE <stb/stb_image_write.h>
#elif __has_include(<stb_image.h>) && __has_include(<stb_image_write.h>)
#define PPMA_STB 1
#define PPMA_STB_IMAGE <stb_image.h>
#define PPMA_STB_IMAGE_WRITE <stb_image_write.h>
#else
#define PPMA_STB 0
#endif

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <cmath>

#include "ppma/core/error.hpp"

#if PPMA_STB

// All system headers that they include, so that nothing of the system lands in our namespace.
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace ppma::inline PPMA_ABI::detail {

// The memory that stb may use while one of these is alive on this thread.
class StbMemory {
 public:
  explicit StbMemory(std::size_t limit) : left_(limit), outer_(current()) { current() = this; }
  ~StbMemory() {
    while (first_ != nullptr) give(first_ + 1);
    current() = outer_;
  }
  StbMemory(const StbMemory&) = delete;
  StbMemory& operator=(const StbMemory&) = delete;

  static void* take(std::size_t bytes) {
    StbMemory* m = current();
    if (m == nullptr || bytes > m->left_) return nullptr;
    Block* b = static_cast<Block*>(calloc(1, sizeof(Block) + bytes));
    if (b == nullptr) return nullptr;
    *b = {nullptr, m->first_, bytes};
    if (m->first_ != nullptr) m->first_->before = b;
    m->first_ = b;
    m->left_ -= bytes;
    return b + 1;
  }
  static void give(void* p) {
    if (p == nullptr) return;
    StbMemory* m = current();
    Block* b = static_cast<Block*>(p) - 1;
    (b->before != nullptr ? b->before->after : m->first_) = b->after;
    if (b->after != nullptr) b->after->before = b->before;
    m->left_ += b->bytes;
    free(b);
  }
  static void* resize(void* p, std::size_t bytes) {
    void* q = take(bytes);
    if (p == nullptr || q == nullptr) return q;
    const std::size_t old = (static_cast<Block*>(p) - 1)->bytes;
    memcpy(q, p, old < bytes ? old : bytes);
    give(p);
    return q;
  }

 private:
  struct alignas(16) Block {
    Block *before, *after;
    std::size_t bytes;
  };
  static StbMemory*& current() {
    thread_local StbMemory* top = nullptr;
    return top;
  }
  std::size_t left_;
  StbMemory* outer_;
  Block* first_ = nullptr;
};

}  // namespace ppma::inline PPMA_ABI::detail

#pragma push_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma push_macro("stbi__err")
#pragma push_macro("stbi__errpf")
#pragma push_macro("stbi__errpuc")
#pragma push_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma push_macro("STB_IMAGE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_STATIC")
#pragma push_macro("STB_IMAGE_WRITE_STATIC")
#pragma push_macro("STBIDEF")
#pragma push_macro("STBIWDEF")
#pragma push_macro("STBI_ASSERT")
#pragma push_macro("STBI_MALLOC")
#pragma push_macro("STBI_REALLOC")
#pragma push_macro("STBI_REALLOC_SIZED")
#pragma push_macro("STBI_FREE")
#pragma push_macro("STBIW_ASSERT")
#pragma push_macro("STBIW_MALLOC")
#pragma push_macro("STBIW_REALLOC")
#pragma push_macro("STBIW_REALLOC_SIZED")
#pragma push_macro("STBIW_FREE")
#pragma push_macro("STBI_NO_STDIO")
#pragma push_macro("STBI_WRITE_NO_STDIO")
#pragma push_macro("STBI_ONLY_JPEG")
#pragma push_macro("STBI_ONLY_PNG")
#pragma push_macro("STBI_ONLY_BMP")
#pragma push_macro("STBI_NO_JPEG")
#pragma push_macro("STBI_NO_PNG")
#pragma push_macro("STBI_NO_BMP")
#pragma push_macro("STBI_NO_PSD")
#pragma push_macro("STBI_NO_TGA")
#pragma push_macro("STBI_NO_GIF")
#pragma push_macro("STBI_NO_HDR")
#pragma push_macro("STBI_NO_LINEAR")
#pragma push_macro("STBI_NO_PIC")
#pragma push_macro("STBI_NO_PNM")

#undef STBI_INCLUDE_STB_IMAGE_H
#undef stbi__err
#undef stbi__errpf
#undef stbi__errpuc
#undef INCLUDE_STB_IMAGE_WRITE_H
#undef STBIDEF
#undef STBIWDEF
#undef STBI_ASSERT
#undef STBI_MALLOC
#undef STBI_REALLOC
#undef STBI_REALLOC_SIZED
#undef STBI_FREE
#undef STBIW_ASSERT
#undef STBIW_MALLOC
#undef STBIW_REALLOC
#undef STBIW_REALLOC_SIZED
#undef STBIW_FREE
#undef STBI_NO_JPEG
#undef STBI_NO_PNG
#undef STBI_NO_BMP

#undef STB_IMAGE_IMPLEMENTATION
#undef STB_IMAGE_WRITE_IMPLEMENTATION
#undef STB_IMAGE_STATIC
#undef STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STB_IMAGE_WRITE_STATIC
#undef STBI_NO_STDIO
#undef STBI_WRITE_NO_STDIO
#define STBI_NO_STDIO
#define STBI_WRITE_NO_STDIO
#undef STBI_ONLY_JPEG
#undef STBI_ONLY_PNG
#undef STBI_ONLY_BMP
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#undef STBI_NO_PSD
#undef STBI_NO_TGA
#undef STBI_NO_GIF
#undef STBI_NO_HDR
#undef STBI_NO_LINEAR
#undef STBI_NO_PIC
#undef STBI_NO_PNM
#define STBI_NO_LINEAR
#define STBI_ASSERT(x) \
  ((x) ? void() : ppma::fail("image: stb_image found its own state wrong: " #x))
#define STBI_MALLOC(bytes) ppma::detail::StbMemory::take(bytes)
#define STBI_REALLOC(p, bytes) ppma::detail::StbMemory::resize(p, bytes)
#define STBI_FREE(p) ppma::detail::StbMemory::give(p)
#define STBIW_ASSERT(x) \
  ((x) ? void() : ppma::fail("image: stb_image_write found its own state wrong: " #x))
#define STBIW_MALLOC(bytes) ppma::detail::StbMemory::take(bytes)
#define STBIW_REALLOC(p, bytes) ppma::detail::StbMemory::resize(p, bytes)
#define STBIW_FREE(p) ppma::detail::StbMemory::give(p)

namespace ppma::inline PPMA_ABI::stb {
// The C functions whose names are also operations on tensors (ops/arithmetic.hpp).
using std::abs;
using std::pow;
// They copy 0 bytes to a null pointer where a PNG's first piece of data is empty, which such a file
// may have and memcpy may not.
inline void*(memcpy)(void* to, const void* from, std::size_t bytes) {
  return bytes == 0 ? to : ::memcpy(to, from, bytes);
}
#include PPMA_STB_IMAGE
#include PPMA_STB_IMAGE_WRITE
}  // namespace ppma::inline PPMA_ABI::stb

namespace ppma::inline PPMA_ABI::detail {

// Why the last call of stb failed: at times it does not say.
inline const char* stb_reason() {
  const char* reason = stb::stbi_failure_reason();
  return reason != nullptr && *reason != 0 ? reason : "its data end too early";
}

}  // namespace ppma::inline PPMA_ABI::detail

#pragma pop_macro("STBI_NO_PNM")
#pragma pop_macro("STBI_NO_PIC")
#pragma pop_macro("STBI_NO_LINEAR")
#pragma pop_macro("STBI_NO_HDR")
#pragma pop_macro("STBI_NO_GIF")
#pragma pop_macro("STBI_NO_TGA")
#pragma pop_macro("STBI_NO_PSD")
#pragma pop_macro("STBI_NO_BMP")
#pragma pop_macro("STBI_NO_PNG")
#pragma pop_macro("STBI_NO_JPEG")
#pragma pop_macro("STBI_ONLY_BMP")
#pragma pop_macro("STBI_ONLY_PNG")
#pragma pop_macro("STBI_ONLY_JPEG")
#pragma pop_macro("STBI_WRITE_NO_STDIO")
#pragma pop_macro("STBI_NO_STDIO")
#pragma pop_macro("STBIW_FREE")
#pragma pop_macro("STBIW_REALLOC_SIZED")
#pragma pop_macro("STBIW_REALLOC")
#pragma pop_macro("STBIW_MALLOC")
#pragma pop_macro("STBIW_ASSERT")
#pragma pop_macro("STBI_FREE")
#pragma pop_macro("STBI_REALLOC_SIZED")
#pragma pop_macro("STBI_REALLOC")
#pragma pop_macro("STBI_MALLOC")
#pragma pop_macro("STBI_ASSERT")
#pragma pop_macro("STBIWDEF")
#pragma pop_macro("STBIDEF")
#pragma pop_macro("STB_IMAGE_WRITE_STATIC")
#pragma pop_macro("STB_IMAGE_STATIC")
#pragma pop_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_IMPLEMENTATION")
#pragma pop_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma pop_macro("stbi__errpuc")
#pragma pop_macro("stbi__errpf")
#pragma pop_macro("stbi__err")
#pragma pop_macro("STBI_INCLUDE_STB_IMAGE_H")

#endif  // PPMA_STB

#endif  // definitions

#include "ppma/core/names_end.hpp"
