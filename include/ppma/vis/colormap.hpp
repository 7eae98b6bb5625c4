#pragma once
#include "ppma/core/names_begin.hpp"
// Colour maps: from a number in [0, 1] to a colour.
//
// viridis and magma are matplotlib's tables of 256 colours (Stefan van der Walt and Nathaniel
// Smith, CC0): lightness rises evenly, and they read the same in grey and to colour-blind eyes.
// greens and red_blue are interpolated between Cynthia Brewer's 9 and 11 colours
// (https://colorbrewer2.org); red_blue is for signed values, with white in the middle.

#include <array>

#include "ppma/core/float_bits.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// See the head of this file.
enum class ColorMap : u8 { viridis, magma, greens, red_blue, grey };

using Color = std::array<u8, 3>;  // red, green, blue, as a screen takes them

/// The colour of t, clamped to [0, 1]; a light grey for NaN.
PPMA_API Color color_of(ColorMap map, double t);

/// The values that the two ends of a colour map stand for.
struct Range {
  double low = 0, high = 1;
  /// Where v lies: 0 at low, 1 at high; 1/2 if the range is empty.
  double place(double v) const {
    return high > low ? (v - low) / (high - low) : is_nan(v) ? v : 0.5;
  }
};

/// Least and greatest value of a map; NaN and infinities are left out.
PPMA_API Range range_of(const Tensor& map);

/// A floating map (H,W) in colours: uint8 (H,W,3).
PPMA_API Tensor colorize(const Tensor& map, ColorMap colors, Range range);

/// Over the map's own range.
PPMA_API Tensor colorize(const Tensor& map, ColorMap colors = ColorMap::viridis);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <string>
#include <string_view>

namespace ppma::inline PPMA_ABI {

namespace detail {

// Six hexadecimal digits a colour.
inline constexpr std::string_view viridis_table =
    "44015444025544035745055845065a45085b46095c460b5e460c5f460e61470f624711634712654714664715674716"
    "6947186a48196b"
    "481a6c481c6e481d6f481e70482071482172482273482374472575472676472777472878472a79472b7a472c7b462d"
    "7c462f7c46307d"
    "46317e45327f45347f453580453681443781443982433a83433b83433c84423d84423e854240854141864142864043"
    "874044873f4587"
    "3f47883e48883e49893d4a893d4b893d4c893c4d8a3c4e8a3b508a3b518a3a528b3a538b39548b39558b38568b3857"
    "8c37588c37598c"
    "365a8c365b8c355c8c355d8c345e8d345f8d33608d33618d32628d32638d31648d31658d31668d30678d30688d2f69"
    "8d2f6a8d2e6b8e"
    "2e6c8e2e6d8e2d6e8e2d6f8e2c708e2c718e2c728e2b738e2b748e2a758e2a768e2a778e29788e29798e287a8e287a"
    "8e287b8e277c8e"
    "277d8e277e8e267f8e26808e26818e25828e25838d24848d24858d24868d23878d23888d23898d22898d228a8d228b"
    "8d218c8d218d8c"
    "218e8c208f8c20908c20918c1f928c1f938b1f948b1f958b1f968b1e978a1e988a1e998a1e998a1e9a891e9b891e9c"
    "891e9d881e9e88"
    "1e9f881ea0871fa1871fa2861fa38620a48520a58521a68521a78422a78423a88323a98224aa8225ab8126ac8127ad"
    "8028ae7f29af7f"
    "2ab07e2bb17d2cb17d2eb27c2fb37b30b47a32b57a33b67935b77836b87738b97639b9763bba753dbb743ebc7340bd"
    "7242be7144be70"
    "45bf6f47c06e49c16d4bc26c4dc26b4fc36951c46853c56755c66657c66559c7645bc8625ec96160c96062ca5f64cb"
    "5d67cc5c69cc5b"
    "6bcd596dce5870ce5672cf5574d05477d05279d1517cd24f7ed24e81d34c83d34b86d44988d5478bd5468dd64490d6"
    "4392d74195d73f"
    "97d83e9ad83c9dd93a9fd938a2da37a5da35a7db33aadb32addc30afdc2eb2dd2cb5dd2bb7dd29bade27bdde26bfdf"
    "24c2df22c5df21"
    "c7e01fcae01ecde01dcfe11cd2e11bd4e11ad7e219dae218dce218dfe318e1e318e4e318e7e419e9e419ece41aeee5"
    "1bf1e51cf3e51e"
    "f6e61ff8e621fae622fde724";

inline constexpr std::string_view magma_table =
    "00000300000400000601000701010901010b02020d02020f03031104031304041505041706051907051b08061d0907"
    "1f0a07220b0824"
    "0c09260d0a280e0a2a0f0b2c100c2f110c31120d33140d35150e38160e3a170f3c180f3f1a10411b10441c10461e10"
    "491f114b20114d"
    "2211502311522511552611572811592a115c2b115e2d10602f1062301065321067341068350f6a370f6c390f6e3b0f"
    "6f3c0f713e0f72"
    "400f73420f74430f75450f76470f774810784a10794b10794d117a4f117b50127b52127c53137c55137d57147d5815"
    "7e5a157e5b167e"
    "5d177e5e177f60187f61187f63197f651a80661a80681b80691c806b1c806c1d806e1e816f1e81711f81731f817420"
    "81762181772181"
    "7922817a22817c23817e24817f24818125818225818426818526818727818928818a28818c29808d29808f2a80912a"
    "80922b80942b80"
    "952c80972c7f992d7f9a2d7f9c2e7f9e2e7e9f2f7ea12f7ea3307ea4307da6317da7317da9327cab337cac337bae34"
    "7bb0347bb1357a"
    "b3357ab53679b63679b83778b93778bb3877bd3977be3976c03a75c23a75c33b74c53c74c63c73c83d72ca3e72cb3e"
    "71cd3f70ce4070"
    "d0416fd1426ed3426dd4436dd6446cd7456bd9466ada4769dc4869dd4968de4a67e04b66e14c66e24d65e44e64e550"
    "63e65162e75262"
    "e85461ea5560eb5660ec585fed595fee5b5eee5d5def5e5df0605df1615cf2635cf3655cf3675bf4685bf56a5bf56c"
    "5bf66e5bf6705b"
    "f7715bf7735cf8755cf8775cf9795cf97b5df97d5dfa7f5efa805efa825ffb8460fb8660fb8861fb8a62fc8c63fc8e"
    "63fc9064fc9265"
    "fc9366fd9567fd9768fd9969fd9b6afd9d6bfd9f6cfda16efda26ffda470fea671fea873feaa74feac75feae76feaf"
    "78feb179feb37b"
    "feb57cfeb77dfeb97ffebb80febc82febe83fec085fec286fec488fec689fec78bfec98dfecb8efdcd90fdcf92fdd1"
    "93fdd295fdd497"
    "fdd698fdd89afdda9cfddc9dfddd9ffddfa1fde1a3fce3a5fce5a6fce6a8fce8aafceaacfcecaefceeb0fcf0b1fcf1"
    "b3fcf3b5fcf5b7"
    "fbf7b9fbf9bbfbfabdfbfcbf";

inline constexpr std::string_view greens_table =
    "f7fcf5e5f5e0c7e9c0a1d99b74c47641ab5d238b45006d2c00441b";
inline constexpr std::string_view red_blue_table =
    "67001fb2182bd6604df4a582fddbc7f7f7f7d1e5f092c5de4393c32166ac053061";
inline constexpr std::string_view grey_table = "000000ffffff";

inline constexpr std::string_view table_of(ColorMap map) {
  switch (map) {
    case ColorMap::viridis:
      return viridis_table;
    case ColorMap::magma:
      return magma_table;
    case ColorMap::greens:
      return greens_table;
    case ColorMap::red_blue:
      return red_blue_table;
    case ColorMap::grey:
      return grey_table;
  }
  return grey_table;
}

inline Color table_entry(std::string_view table, std::size_t i) {
  const auto digit = [&](std::size_t k) {
    const char c = table[6 * i + k];
    return c <= '9' ? c - '0' : c - 'a' + 10;
  };
  return {static_cast<u8>(digit(0) * 16 + digit(1)), static_cast<u8>(digit(2) * 16 + digit(3)),
          static_cast<u8>(digit(4) * 16 + digit(5))};
}

}  // namespace detail

Color color_of(ColorMap map, double t) {
  if (is_nan(t)) return {221, 221, 221};
  const std::string_view table = detail::table_of(map);
  const std::size_t last = table.size() / 6 - 1;
  const double at = std::clamp(t, 0.0, 1.0) * static_cast<double>(last);
  const std::size_t i = std::min(static_cast<std::size_t>(at), last - 1);
  const Color a = detail::table_entry(table, i), b = detail::table_entry(table, i + 1);
  Color c{};
  for (std::size_t k = 0; k < 3; ++k)
    c[k] = static_cast<u8>(a[k] + (b[k] - a[k]) * (at - static_cast<double>(i)) + 0.5);
  return c;
}

Range range_of(const Tensor& map) {
  Range r{positive_infinity<double>(), negative_infinity<double>()};
  for (const double v : map.to_vector<double>())
    if (is_finite(v)) r = {std::min(r.low, v), std::max(r.high, v)};
  return r.low <= r.high ? r : Range{0, 1};
}

Tensor colorize(const Tensor& map, ColorMap colors, Range range) {
  check(map.defined() && map.rank() == 2 && is_floating(map.dtype()),
        "colorize: needs a floating map (H,W), got ",
        map.defined() ? map.shape().str() : std::string("nothing"), " ", map.dtype());
  Tensor image = Tensor::empty({map.dim(0), map.dim(1), 3}, DType::uint8);  // (H,W,3)
  u8* to = image.data<u8>();
  for (const double v : map.to_vector<double>())
    to = std::copy_n(color_of(colors, range.place(v)).data(), 3, to);
  return image;
}

Tensor colorize(const Tensor& map, ColorMap colors) { return colorize(map, colors, range_of(map)); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
