// The kernels of decayed sums beside the same op by op, at sizes that the op table does not reach:
// several chunks, the last one full or not, widths of whole registers and others, decays near 0
// and 1.

#include "ppma/ops/decayed_sums.hpp"

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "distance.hpp"
#include "ppma/ops/layout.hpp"

using namespace ppma;

namespace {

struct Sizes {
  i64 batch, tokens, heads, of_keys, d, p;
};
using Results = std::vector<Tensor>;

Results inputs(const Sizes& s, double least, double most) {
  Rng rng(9);
  const Shape keys{s.batch, s.tokens, s.of_keys, s.d}, values{s.batch, s.tokens, s.heads, s.p};
  const double size = 1 / std::sqrt(static_cast<double>(s.d));
  return {Tensor::randn(keys, rng, size, DType::f64), Tensor::randn(keys, rng, 1, DType::f64),
          Tensor::randn(values, rng, 1, DType::f64),
          Tensor::rand({s.batch, s.tokens, s.heads}, rng, -most, -least, DType::f64),
          Tensor::randn(values, rng, 1, DType::f64)};
}

// y and the gradients of the first `differentiated` inputs; the last one is dy.
template <class F>
Results outcome(F&& f, const Results& in, DType dtype, std::size_t differentiated = 4) {
  Results x;
  for (std::size_t i = 0; i < in.size(); ++i)
    x.push_back(cast(in[i], dtype).clone().requires_grad(i < differentiated));
  Results out{f(x[0], x[1], x[2], x[3])};
  out[0].backward(x[4]);
  for (std::size_t i = 0; i < differentiated; ++i) out.push_back(x[i].grad());
  return out;
}

Results composed(const Results& in, DType dtype = DType::f64) {
  return outcome([](auto&... x) { return decayed_sums_composed(x...); }, in, dtype);
}
Results kernels_give(const Results& in, DType dtype = DType::f64, std::size_t differentiated = 4) {
  return outcome([](auto&... x) { return decayed_sums(x...); }, in, dtype, differentiated);
}

// How far apart gradients of the log decays may be, the others' limits are fixed: composed, they are
// differences of what tokens are to themselves, which is large where the decays are strong.
struct OfDecays {
  double f64 = 1e-12, f32 = 2e-6;
};

void check(const Sizes& s, double least, double most, OfDecays of_decays = {}) {
  INFO(s.batch << " x " << s.tokens << " tokens, " << s.heads << " heads, " << s.of_keys
               << " of keys, widths " << s.d << " and " << s.p << ", decays " << least << " to "
               << most);
  const Results in = inputs(s, least, most), want = composed(in), got = kernels_give(in),
                single = kernels_give(in, DType::f32), fixed = kernels_give(in, DType::f64, 3);
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO("result " << i);
    if (i == 4 && (s.tokens == 1 || least > 100)) {  // nothing reaches another token
      CHECK(largest_difference(got[i], Tensor::zeros(got[i].shape(), DType::f64)) == 0);
      continue;
    }
    CHECK(distance(got[i], want[i]) < (i == 4 ? of_decays.f64 : 1e-12));
    CHECK(distance(cast(single[i], DType::f64), want[i]) < (i == 4 ? of_decays.f32 : 2e-6));
    if (i < fixed.size()) CHECK(distance(fixed[i], got[i]) < 1e-14);
  }
}

}  // namespace

TEST_CASE("decayed sums: every width, whole and begun chunks", "[ops]") {
  for (const i64 tokens : {1, 2, 7, 17, 32, 33, 49, 64, 65, 97, 128, 200}) {
    check({2, tokens, 2, 2, 16, 16}, 0, 1);
    check({1, tokens, 3, 1, 64, 32}, 0, 1);
    check({1, tokens, 2, 1, 5, 3}, 0, 1);
  }
  for (const i64 width : {1, 3, 8, 17, 24, 40, 48, 65, 80}) {
    check({1, 70, 2, 2, width, 16}, 0, 1);
    check({1, 70, 2, 1, 16, width}, 0, 1);
  }
  for (const i64 heads : {1, 4, 5, 9}) check({2, 70, heads, 1, 8, 8}, 0, 1);
}

TEST_CASE("decayed sums: what is forgotten at once, and what never", "[ops]") {
  for (const Sizes& s : {Sizes{1, 150, 2, 1, 64, 64}, Sizes{1, 150, 2, 2, 16, 16}}) {
    check(s, 0, 1e-3);
    check(s, 0, 0);
    check(s, 2, 6, {1e-12, 1e-5});  // sums of decays up to 192, in f32
    check(s, 20, 20, {1e-6, 1e-6});
    check(s, 1e4, 1e5);
  }
}
