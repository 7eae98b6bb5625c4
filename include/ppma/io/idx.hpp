#pragma once
#include "ppma/core/names_begin.hpp"
// IDX files, MNIST's form (LeCun, http://yann.lecun.com/exdb/mnist/): two zero bytes, the elements'
// type, the number of axes, the axes as big-endian u32, then the elements. Of the types bytes are
// read.

#include <string>
#include <vector>

#include "ppma/io/file.hpp"

namespace ppma::inline PPMA_ABI {

/// An array of bytes in a file.
struct IdxArray {
  std::vector<i64> shape;
  std::size_t begin = 0;  // of its elements, in the file
};

/// What a file in memory holds; `name` is what errors call it. Errors: not IDX; elements other than
/// bytes, by name; more or fewer of them than the header says.
PPMA_API IdxArray parse_idx(Bytes file, const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include "ppma/core/error.hpp"
#include "ppma/io/known_files.hpp"
#include "ppma/io/png.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline const char* idx_type(u8 code) {
  switch (code) {
    case 8:
      return "bytes";
    case 9:
      return "signed bytes";
    case 11:
      return "16-bit numbers";
    case 12:
      return "32-bit numbers";
    case 13:
      return "f32";
    case 14:
      return "f64";
    default:
      return nullptr;
  }
}

}  // namespace detail

IdxArray parse_idx(Bytes file, const std::string& name) {
  using detail::copy_again;
  check(file.size() >= 4, name, ": ", file.size(), " bytes are no IDX file", copy_again);
  const char* const type = detail::idx_type(file[2]);
  check(file[0] == 0 && file[1] == 0 && type != nullptr && file[3] > 0, name,
        ": not an IDX file: it begins with ", int{file[0]}, " ", int{file[1]}, " ", int{file[2]},
        " ", int{file[3]}, copy_again);
  check(file[2] == 8, name, ": an IDX file of ", type, "; of bytes (type 8) alone are they read");
  IdxArray array;
  const std::size_t axes = file[3];
  check(axes <= 8, name, ": an IDX file of ", axes, " axes is not read");
  array.begin = 4 + 4 * axes;
  check(file.size() >= array.begin, name, ": cut short within its header of ", array.begin,
        " bytes", copy_again);
  const u64 there = file.size() - array.begin;
  u64 elements = 1;
  bool fits = true;  // not beyond 64 bits
  for (std::size_t a = 0; a < axes; ++a) {
    const u64 n = detail::big_endian(file.data() + 4 + 4 * a);
    array.shape.push_back(static_cast<i64>(n));
    fits = fits && (n == 0 || elements <= ~u64{0} / n);
    if (fits) elements *= n;
  }
  std::string shape;
  for (const i64 n : array.shape) shape += str(shape.empty() ? "" : " x ", n);
  check(fits && elements == there, name, ": its header says ", shape, ", but ", there,
        " bytes follow: ", !fits || elements > there ? "cut short" : "there is more", copy_again);
  return array;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
