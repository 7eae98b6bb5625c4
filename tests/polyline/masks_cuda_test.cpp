// Decays, masks of sequences, restrictions and linear attention on the GPU against the CPU in
// float64.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "polyline/help.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/masks.hpp"
#include "ppma/polyline/structured.hpp"
#include "ppma/polyline/types.hpp"

using namespace ppma;
using cuda_test::compare;
using cuda_test::In;
using polyline_test::random;
using polyline_test::random_log_decay;

TEST_CASE("log decays on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // One to eight packs a head in each type; packs of a token that are no power of two, and 256;
  // backward with several tiles a block. Others (12 packs a head, half of one, more than 256 of a
  // token) take the kernels for any size.
  for (const auto& [s, heads] : {std::pair<Shape, i64>{{2, 5, 7, 12}, 3},
                                 {{1, 14, 14, 64}, 2},
                                 {{3, 9, 11, 96}, 1},
                                 {{1, 1, 1, 1}, 1},
                                 {{8, 28, 28, 128}, 4},
                                 {{2, 9, 13, 64}, 4},
                                 {{3, 5, 7, 40}, 5},
                                 {{1, 6, 7, 192}, 3},
                                 {{1, 4, 5, 510}, 255},
                                 {{1, 3, 5, 2048}, 256},
                                 {{1, 70, 70, 512}, 16}})
    for (const i64 rows : {1, 2}) {
      const i64 d = s[3] / heads;
      INFO(s.str() << " heads " << heads << " rows " << rows);
      compare(
          "log_decay", [](In in) { return log_decay(in[0], in[1], in[2], in[3]); },
          {random(s, 1), random({rows, d}, 2, 0.5), random({heads}, 3), random({heads}, 4, 0.3)},
          {1, 2, 3}, {1e-12, 4e-6, 1e-2});
    }
}

TEST_CASE("log decays on the GPU: factors that overflow or vanish, and decays of 0", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // Heads of one channel (any size), and of 8 (packs); the CPU's are held against the formula in
  // decay_test.cpp.
  const std::vector<double> a_log{90, 200, 800, 100, 200, -200, -200, -95, -1e3, 88},
      t{-120, -120, -5, 3, -3e38, 5, -120, -95, 3e38, 1e30};
  const i64 heads = static_cast<i64>(t.size());
  for (const i64 d : {1, 8})
    for (const i64 rows : {1, 2}) {
      Tensor x = Tensor::full({1, 2, 3, heads * d}, 0, DType::f32),
             bias = Tensor::empty({heads}, DType::f32);
      for (i64 e = 0; e < x.numel(); e += d)
        x.data<float>()[e] = static_cast<float>(t[static_cast<std::size_t>(e / d % heads)]);
      for (i64 g = 0; g < heads; ++g)
        bias.data<float>()[g] =
            std::fabs(t[static_cast<std::size_t>(g)]) > 1e38 ? x.data<float>()[g * d] : 0.f;
      const std::vector<Tensor> in{x, Tensor::ones({rows, d}, DType::f32), bias,
                                   cast(Tensor::from<double>(a_log, {heads}), DType::f32)};
      const auto results = [&](Device device) {
        std::vector<Tensor> there;
        for (const Tensor& one : in) there.push_back(one.to(device).requires_grad(true));
        const Tensor y = log_decay(there[0], there[1], there[2], there[3]);
        std::vector<Tensor> all{y.detach().to(Device::cpu)};
        // 0 where the edge is closed, as the masks have it
        Tensor dy = Tensor::full(all[0].shape(), 2, DType::f32);
        for (i64 e = 0; e < dy.numel(); ++e)
          if (is_inf(all[0].data<float>()[e])) dy.data<float>()[e] = 0;
        y.backward(dy.to(device));
        for (const std::size_t k : {std::size_t{0}, std::size_t{2}, std::size_t{3}})
          all.push_back(there[k].grad().to(Device::cpu));
        return all;
      };
      const auto want = results(Device::cpu), got = results(Device::cuda);
      for (std::size_t k = 0; k < want.size(); ++k)
        for (i64 e = 0; e < want[k].numel(); ++e) {
          INFO("result " << k << ", element " << e << ", d " << d << ", rows " << rows);
          const float right = want[k].data<float>()[e], here = got[k].data<float>()[e];
          CHECK(!is_nan(right));
          CHECK((here == right || std::fabs(here - right) <= 2e-5f * std::fabs(right) + 1e-37f));
        }
    }
}

TEST_CASE("sequence masks on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const auto& [h, w] : {std::pair<i64, i64>{3, 4}, {1, 1}, {7, 7}, {9, 14}, {1, 200}}) {
    INFO(h << "x" << w);
    const Tensor decay = random_log_decay({2, 3, h * w}, 1);
    for (const auto& order : {std::vector<i64>{}, column_major_order(h, w), hilbert_order(h, w),
                              hilbert_order(h, w, true)})
      compare("sequence_log_mask", [order](In in) { return sequence_log_mask(in[0], order); },
              {decay}, {0}, {1e-12, 4e-6, 4e-6});
    for (const bool rows : {false, true}) {
      const i64 height = h, width = w;
      compare("restrict_to_lines",
              [=](In in) { return restrict_to_lines(in[0], height, width, rows); },
              {random({2, 2, h * w, h * w}, 3)});
    }
  }
}

TEST_CASE("every mask of the ablation on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const i64 heads = 2, h = 5, w = 6;
  const Shape tokens{2, h, w, heads * 16}, grid{2, heads, h, w};
  for (const Mask& mask : masks())
    for (const bool criss : {false, true}) {
      const MaskKind which = mask.kind;
      if (which == MaskKind::none || which == MaskKind::rmt || which == MaskKind::shared) continue;
      compare(std::string(mask.name) + (criss ? ", criss-cross" : ", whole"),
              [=](In in) {
                const Tensor d = join_decays(in[3], in[4]);
                const Tensor y = criss
                                     ? masked_criss_cross(in[0], in[1], in[2], heads, which, d)
                                     : masked_whole_attention(in[0], in[1], in[2], heads, which, d);
                return y;
              },
              {random(tokens, 1), random(tokens, 2, 0.25), random(tokens, 3),
               random_log_decay(grid, 4), random_log_decay(grid, 5)},
              {3, 4}, {1e-11, 2e-5, 2e-2});
    }
}

TEST_CASE("linear attention on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Size {
    i64 batch, heads, height, width, d;
  };
  for (const Size& s :
       {Size{2, 2, 3, 4, 3}, Size{1, 1, 1, 1, 2}, Size{1, 2, 1, 7, 4}, Size{1, 1, 6, 1, 8},
        Size{2, 2, 9, 5, 32}, Size{1, 1, 5, 17, 19}, Size{1, 1, 7, 6, 40}, Size{1, 2, 14, 14, 64},
        // More than one block of 16 lines, chunk of 64 places, 32 channels; some not full.
        Size{1, 1, 1, 1, 8}, Size{1, 2, 1, 7, 16}, Size{1, 3, 33, 5, 16}, Size{1, 1, 5, 17, 24},
        Size{2, 2, 21, 34, 32}, Size{1, 1, 70, 18, 16}, Size{1, 1, 18, 70, 40},
        Size{1, 2, 18, 70, 64}, Size{1, 1, 3, 130, 8}, Size{1, 1, 130, 3, 32},
        // Several chunks of a line in several blocks of lines.
        Size{1, 2, 35, 150, 32}, Size{2, 1, 200, 20, 24}, Size{1, 1, 40, 70, 56}})
    for (const Paths paths : {Paths::v2h, Paths::h2v, Paths::both})
      for (const LinearForm form : {LinearForm::scan, LinearForm::chunked, LinearForm::quadratic}) {
        if (form != LinearForm::scan && (s.d > 32 || s.height * s.width > 200)) continue;
        INFO(s.height << "x" << s.width << " d " << s.d << " " << to_string(paths) << " "
                      << to_string(form));
        const Shape tokens{s.batch, s.height, s.width, s.heads * s.d},
            grid{s.batch, s.heads, s.height, s.width};
        const i64 heads = s.heads;
        compare("linear_attention",
                [=](In in) {
                  return linear_attention(in[0], in[1], in[2], heads, join_decays(in[3], in[4]),
                                          paths, form);
                },
                {random(tokens, 1), random(tokens, 2), random(tokens, 3), random_log_decay(grid, 4),
                 random_log_decay(grid, 5)},
                {3, 4}, {1e-11, 1e-5, 2e-2});
      }
}

TEST_CASE("structured attention on the GPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const LinearForm form : {LinearForm::scan, LinearForm::chunked, LinearForm::quadratic}) {
    const std::vector<Tensor> in{random({2, 77, 5}, 1), random({2, 77, 5}, 2),
                                 random({2, 77, 3}, 3), random_log_decay({2, 77}, 4)};
    const auto f = [form](In x) { return structured_attention(x[0], x[1], x[2], x[3], form, 16); };
    for (const DType dtype : {DType::f64, DType::f32}) {  // its operands have one dtype
      std::vector<Tensor> here, there;
      for (const Tensor& t : in)
        there.push_back(cast(t, dtype).to(Device::cuda)),
            here.push_back(cast(cast(t, dtype), DType::f64));
      const auto want = cuda_test::outcome(f, here), got = cuda_test::outcome(f, there);
      for (std::size_t k = 0; k < want.size(); ++k) {
        INFO(to_string(form) << ", " << to_string(dtype) << ", result " << k);
        CHECK(distance(got[k], want[k]) <= (dtype == DType::f64 ? 1e-11 : 1e-5));
      }
    }
  }
}

#endif
