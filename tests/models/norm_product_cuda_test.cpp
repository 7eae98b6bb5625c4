// The products of normalised tokens as one kernel of the GPU: what the operations that it stands
// for give, there and on the CPU.

#if PPMA_TEST_GPU

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/models/attention.hpp"
#include "ppma/models/block.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise_gelu.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/autograd.hpp"

using namespace ppma;

namespace {

struct Layers {
  Attention attention;
  LayerNorm norm;
  Linear fc1;
  template <class V>
  void fields(V& v) {
    v.child("attention", attention), v.child("norm", norm), v.child("fc1", fc1);
  }
};

// All parameters drawn, those of products rounded to bf16.
Layers drawn(const StageConfig& c) {
  Rng rng(7);
  Layers l{Attention(c, rng), LayerNorm(c.channels, 1e-6), Linear(c.channels, c.hidden, rng)};
  set_trainable(l, false);
  for (const Field& field : state_dict(l)) {
    const std::string& name = field.name;
    Tensor t = field.tensor;
    const double around = name == "norm.weight" ? 1 : name.find("dt_bias") < name.size() ? -3 : 0;
    Tensor values = Tensor::randn(t.shape(), rng, t.rank() == 2 ? 0.1 : 0.3);
    for (i64 i = 0; i < values.numel(); ++i) values.data<float>()[i] += static_cast<float>(around);
    t.copy_from(cast(cast(values, DType::bf16), DType::f32));
  }
  return l;
}

}  // namespace

TEST_CASE("norm and products in one kernel give what one after the other gives", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const NoGrad off;
  struct Size {
    i64 batch, height, width, channels, heads;
    MaskKind mask;
  };
  // Less than a tile of rows, a few tiles, more than there are blocks; heads of 8 to 64 channels;
  // channels for which there is no such kernel, of which attention turns queries and keys.
  for (const Size& s : {Size{1, 3, 5, 64, 4, MaskKind::polyline},
                        Size{44, 14, 14, 128, 4, MaskKind::polyline},
                        Size{1, 190, 191, 64, 4, MaskKind::polyline},
                        Size{1, 190, 91, 128, 2, MaskKind::polyline},
                        Size{3, 7, 9, 64, 8, MaskKind::polyline},
                        Size{3, 7, 9, 64, 2, MaskKind::none},
                        Size{131, 7, 9, 128, 4, MaskKind::rmt},
                        Size{300, 5, 6, 128, 4, MaskKind::shared},
                        Size{2, 5, 6, 128, 4, MaskKind::polyline},
                        Size{2, 5, 6, 256, 8, MaskKind::polyline},
                        Size{2, 14, 14, 256, 8, MaskKind::polyline},
                        Size{1, 7, 7, 512, 16, MaskKind::polyline},
                        Size{2, 7, 7, 512, 16, MaskKind::polyline},
                        Size{2, 5, 6, 48, 3, MaskKind::polyline},
                        Size{15, 14, 14, 256, 8, MaskKind::polyline},
                        Size{62, 7, 7, 512, 16, MaskKind::rmt},
                        Size{8, 28, 28, 128, 4, MaskKind::polyline},
                        Size{3, 23, 21, 128, 4, MaskKind::none},
                        Size{8, 14, 14, 256, 8, MaskKind::polyline},
                        Size{41, 7, 5, 256, 4, MaskKind::none},
                        Size{44, 14, 14, 128, 16, MaskKind::polyline},
                        Size{44, 14, 15, 128, 8, MaskKind::polyline},
                        Size{70, 14, 14, 64, 8, MaskKind::polyline},
                        Size{70, 15, 15, 64, 1, MaskKind::polyline}}) {
    INFO("batch " << s.batch << ", " << s.height << " x " << s.width << ", channels " << s.channels
                  << ", heads " << s.heads << ", mask " << mask_of(s.mask).name);
    StageConfig c{s.channels, s.heads, 3 * s.channels, true, false, 1e-5, s.mask, true};
    const Positions at(c, 4);
    Layers host = drawn(c), there = drawn(c);
    to(there, Device::cuda);
    narrow_weights(there, DType::bf16);
    Positions at_there = at;
    if (at.angle.defined()) at_there.angle = at.angle.to(Device::cuda);
    if (at.decay.defined()) at_there.decay = at.decay.to(Device::cuda);
    Rng rng(3);
    const Tensor x =
        cast(Tensor::randn({s.batch, s.height, s.width, s.channels}, rng), DType::bf16);

    const Tensor xd = x.to(Device::cuda), xf = cast(x, DType::f32);
    const Projected one = there.attention.projected(xd, there.norm, at_there),
                    two =
                        there.attention.projected(there.attention.normed(xd, there.norm), at_there),
                    cpu = host.attention.projected(host.attention.normed(xf, host.norm), at);
    const auto compare = [](const char* what, const Tensor& got, const Tensor& composed,
                            const Tensor& on_cpu, double rounded) {
      INFO(what);
      REQUIRE(got.defined() == on_cpu.defined());
      if (!got.defined()) return;
      const auto wide = [](const Tensor& t) { return cast(t.to(Device::cpu), DType::f64); };
      CHECK(distance(wide(got), wide(composed)) <= rounded);
      CHECK(distance(wide(got), wide(on_cpu)) <= 6e-3);
    };
    compare("queries", one.q, two.q, cpu.q, 4e-3);  // turned before they are rounded, not after
    compare("keys", one.k, two.k, cpu.k, 4e-3);
    compare("values", one.v, two.v, cpu.v, 1e-3);
    compare("log decays", one.log_decays, two.log_decays, cpu.log_decays, 1e-6);
    const auto host_f64 = [](const Tensor& t) { return cast(t.to(Device::cpu), DType::f64); };
    CHECK(distance(host_f64(there.attention.forward(xd, there.norm, at_there)),
                   host_f64(there.attention.forward(one))) == 0);
    compare("hidden", norm_linear(xd, there.norm, there.fc1),
            there.fc1.forward(there.norm.forward(xd)), host.fc1.forward(host.norm.forward(xf)),
            1e-3);
    const Tensor gelued = norm_linear_gelu(xd, there.norm, there.fc1);
    const bool few = s.batch * s.height * s.width <= (s.channels == 128 ? 8192 : 1000);
    CHECK(gelued.defined() == (few && s.channels % 64 == 0));
    if (gelued.defined())  // GELU of numbers that are not rounded before
      compare("GELU", gelued, gelu(there.fc1.forward(there.norm.forward(xd))),
              gelu(host.fc1.forward(host.norm.forward(xf))), 4e-3);
  }
}

TEST_CASE("the hidden map of a few images in one kernel is what its operations give", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Size {
    i64 batch, height, width, channels;
    bool tiles;
  };
  // Of these a GPU takes those whose tiles are as many as its multiprocessors or somewhat fewer: one
  // tile of an image, two, four, eight and sixteen. Never: few tiles, many; maps of no whole tiles;
  // tiles that see more than a block has room for; channels without a kernel.
  int taken = 0;
  for (const Size& s :
       {Size{5, 7, 14, 256, true},   Size{10, 7, 14, 256, true},  Size{12, 7, 14, 256, true},
        Size{16, 7, 14, 256, true},  Size{20, 7, 14, 256, true},  Size{26, 7, 14, 256, true},
        Size{7, 14, 14, 256, true},  Size{8, 14, 14, 256, true},  Size{8, 28, 28, 128, true},
        Size{4, 56, 28, 128, true},  Size{8, 56, 56, 64, true},   Size{32, 14, 56, 64, true},
        Size{8, 7, 7, 512, true},    Size{1, 7, 14, 256, false},  Size{90, 14, 14, 256, false},
        Size{8, 14, 15, 256, false}, Size{8, 14, 14, 128, false}, Size{4, 28, 28, 256, false},
        Size{128, 7, 14, 64, false}, Size{16, 7, 14, 96, false}}) {
    INFO("batch " << s.batch << ", " << s.height << " x " << s.width << ", channels "
                  << s.channels);
    const i64 hidden = 3 * s.channels;
    const StageConfig c{s.channels, s.channels / 32,    hidden, true, false,
                        1e-5,       MaskKind::polyline, true};
    Rng rng(3);
    const auto drawn_layers = [&] {
      Rng same(11);
      Layers l = drawn(c);
      FeedForward f(s.channels, hidden, true, same);
      f.fc1 = l.fc1, set_trainable(f, false);
      f.dwconv->bias.copy_from(Tensor::randn({hidden}, same, 0.3));
      f.fc2.bias.copy_from(Tensor::randn({s.channels}, same, 0.3));
      return std::pair{l.norm, f};
    };
    auto [norm, host] = drawn_layers();
    auto [norm_there, there] = drawn_layers();
    to(there, Device::cuda), to(norm_there, Device::cuda);
    narrow_weights(there, DType::bf16);
    const Tensor x = cast(Tensor::randn({s.batch, s.height, s.width, s.channels}, rng),
                          DType::bf16),
                 xd = x.to(Device::cuda), xf = cast(x, DType::f32);
    const auto wide = [](const Tensor& t) { return cast(t.to(Device::cpu), DType::f64); };
    const auto map = [](const Tensor& in, const LayerNorm& n, const FeedForward& f) {
      const Tensor h = gelu(f.fc1.forward(n.forward(in)));
      return f.dwconv->forward(h, h);
    };
    const Tensor one = norm_linear_gelu_conv(xd, norm_there, there.fc1, *there.dwconv);
    CHECK((s.tiles || !one.defined()));
    taken += one.defined();
    CHECK(!norm_linear_gelu_conv(xf, norm, host.fc1, *host.dwconv).defined());
    if (one.defined()) {
      CHECK(distance(wide(one), wide(map(xd, norm_there, there))) <= 6e-3);
      CHECK(distance(wide(one), wide(map(xf, norm, host))) <= 6e-3);
      const Tensor again = norm_linear_gelu_conv(xd, norm_there, there.fc1, *there.dwconv);
      CHECK(distance(wide(one), wide(again)) == 0);
    }
    // what follows, by itself or not
    CHECK(distance(wide(there.forward(xd, norm_there, xd)), wide(host.forward(xf, norm, xf))) <=
          6e-3);
    // nothing is recorded of it
    Linear recorded = there.fc1;
    recorded.weight = parameter(there.fc1.weight.clone());
    CHECK(!norm_linear_gelu_conv(xd, norm_there, recorded, *there.dwconv).defined());
  }
  CHECK(taken > 0);
}

TEST_CASE("gradients through norm and products in one kernel", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Size {
    i64 batch, height, width, channels, heads;
    MaskKind mask;
  };
  for (const Size& s :
       {Size{3, 7, 9, 64, 4, MaskKind::polyline}, Size{3, 8, 9, 64, 2, MaskKind::none},
        Size{44, 14, 14, 128, 4, MaskKind::polyline}, Size{131, 7, 9, 128, 4, MaskKind::rmt},
        // many rows of 64 channels: one kernel has all gradients of q, k and v
        Size{1, 190, 191, 64, 4, MaskKind::polyline}, Size{53, 25, 25, 64, 1, MaskKind::none},
        Size{42, 28, 28, 64, 8, MaskKind::polyline},
        // norm and products are no one kernel, gradients are found together: fewer rows than
        // weights have, and more
        Size{2, 5, 6, 256, 8, MaskKind::polyline}, Size{37, 7, 9, 256, 4, MaskKind::rmt},
        Size{40, 7, 7, 512, 16, MaskKind::none}, Size{2, 5, 6, 48, 3, MaskKind::polyline}}) {
    INFO("batch " << s.batch << ", " << s.height << " x " << s.width << ", channels " << s.channels
                  << ", heads " << s.heads << ", mask " << mask_of(s.mask).name);
    StageConfig c{s.channels, s.heads, 3 * s.channels, true, false, 1e-5, s.mask, true};
    const Positions at(c, 4);
    Rng rng(3);
    const Shape shape{s.batch, s.height, s.width, s.channels};
    const Tensor x = cast(Tensor::randn(shape, rng), DType::bf16),
                 dy = cast(Tensor::randn(shape, rng), DType::bf16),
                 dh = cast(Tensor::randn({s.batch, s.height, s.width, 3 * s.channels}, rng),
                           DType::bf16);
    // Gradients of the tokens and all parameters, one kernel or operation by operation.
    const auto gradients = [&](Device device, bool one) {
      Layers l = drawn(c);
      set_trainable(l, true);
      to(l, device);
      Positions there = at;
      if (at.angle.defined()) there.angle = at.angle.to(device);
      if (at.decay.defined()) there.decay = at.decay.to(device);
      const auto placed = [&](const Tensor& t) {
        return device == Device::cpu ? cast(t, DType::f32) : t.to(device);
      };
      Tensor in = placed(x);
      in.requires_grad(true);
      const Tensor y =
          l.attention.forward(one ? l.attention.projected(in, l.norm, there)
                                  : l.attention.projected(l.attention.normed(in, l.norm), there));
      y.backward(placed(dy));
      const Tensor h = one ? norm_linear(in, l.norm, l.fc1) : l.fc1.forward(l.norm.forward(in));
      h.backward(placed(dh));
      std::vector<std::pair<std::string, Tensor>> all{{"tokens", in.grad()}};
      for (const Field& field : state_dict(l)) all.emplace_back(field.name, field.tensor.grad());
      return all;
    };
    const auto one = gradients(Device::cuda, true), two = gradients(Device::cuda, false),
               cpu = gradients(Device::cpu, true);
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      INFO(cpu[i].first);
      REQUIRE(one[i].second.defined() == cpu[i].second.defined());
      if (!cpu[i].second.defined()) continue;
      const auto wide = [](const Tensor& t) { return cast(t.to(Device::cpu), DType::f64); };
      const double apart = distance(wide(two[i].second), wide(cpu[i].second));
      CHECK(distance(wide(one[i].second), wide(cpu[i].second)) <= std::max(1.5 * apart, 1e-3));
    }
  }
}

TEST_CASE("a large hidden map is made again in backward, to the last bit", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Shape& shape : {Shape{3, 14, 13, 64}, Shape{15, 56, 55, 64}, Shape{20, 28, 28, 128},
                             Shape{29, 28, 29, 128}}) {
    INFO("tokens " << str(shape));
    const i64 channels = shape[3], hidden = 3 * channels;
    const StageConfig c{channels, 4, hidden, true, false, 1e-5, MaskKind::polyline, true};
    const i64 bytes = 3 * shape.numel() * 2;  // of the hidden map
    Rng rng(3);
    const Tensor x = cast(Tensor::randn(shape, rng), DType::bf16);
    i64 kept[2] = {};
    std::vector<std::vector<double>> gradients[2];
    for (const bool again : {false, true}) {
      Layers l = drawn(c);
      Rng of_convolution(5);
      DepthwiseConv2d conv(hidden, 3, of_convolution);
      set_trainable(l, true), to(l, Device::cuda), to(conv, Device::cuda);
      Tensor in = x.to(Device::cuda);
      in.requires_grad(true);
      Linear fc1 = l.fc1;
      fc1.bias = fc1.bias.detach();  // comes with the convolution's
      const i64 before = memory_stats(Device::cuda).live_bytes;
      Tensor y;
      {
        const Tensor h = norm_linear(in, l.norm, fc1);
        REQUIRE((h.info()->again != nullptr) == (bytes > (i64{16} << 20)));
        if (!again) h.info()->again = nullptr;
        y = depthwise_gelu(h, conv.weight, conv.bias, l.fc1.bias);
      }
      kept[again] = memory_stats(Device::cuda).live_bytes - before;
      y.backward(Tensor::full(y.shape(), 0.5, DType::bf16, Device::cuda));
      for (const Tensor& t :
           {in, l.norm.weight, l.norm.bias, l.fc1.weight, l.fc1.bias, conv.weight, conv.bias})
        gradients[again].push_back(t.grad().to(Device::cpu).to_vector<double>());
    }
    CHECK(kept[0] - kept[1] >= (bytes > (i64{16} << 20) ? bytes : 0));
    // what reads the normalised tokens too: the kernel's own in one case, those of the norm's
    // kernel in the other
    for (std::size_t i = 0; i < gradients[0].size(); ++i) {
      INFO("gradient " << i);
      if (i != 3) CHECK(gradients[0][i] == gradients[1][i]);
    }
    const Tensor w[2] = {Tensor::from<double>(gradients[0][3], {hidden, channels}),
                         Tensor::from<double>(gradients[1][3], {hidden, channels})};
    CHECK(distance(w[0], w[1]) <= 1e-4);
  }
}

TEST_CASE("gradients of some of an attention's products", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  // So many rows that one kernel has all gradients; others, behind one kernel of norm and products
  // and without one.
  for (const Shape& shape :
       {Shape{1, 182, 181, 64}, Shape{1, 95, 91, 128}, Shape{2, 13, 17, 256}}) {
    INFO("tokens " << str(shape));
    const StageConfig c{shape[3], 4, 192, true, false, 1e-5, MaskKind::polyline, true};
    const Positions at(c, 4);
    Rng rng(3);
    const Tensor x = cast(Tensor::randn(shape, rng), DType::bf16),
                 dy = cast(Tensor::randn(shape, rng), DType::bf16);
    Positions there = at;
    there.angle = at.angle.to(Device::cuda);
    // Of the sum of those results that `of` names, without gradients of the parameter `frozen`.
    const auto gradients = [&](const std::string& of, const std::string& frozen, bool one) {
      Layers l = drawn(c);
      set_trainable(l, true);
      to(l, Device::cuda);
      for_each_field(l, [&](const std::string& name, Tensor& t, Kind) {
        if (name == frozen) t.requires_grad(false);
      });
      Tensor in = x.to(Device::cuda);
      in.requires_grad(true);
      const Projected p = one ? l.attention.projected(in, l.norm, there)
                              : l.attention.projected(l.attention.normed(in, l.norm), there);
      Tensor y;
      for (const auto& [name, result] : {std::pair{'q', p.q}, {'k', p.k}, {'v', p.v}})
        if (of.find(name) < of.size()) y = y.defined() ? y + result : result;
      y.backward(dy.to(Device::cuda));
      std::vector<std::pair<std::string, Tensor>> all{{"tokens", in.grad()}};
      for (const Field& field : state_dict(l)) all.emplace_back(field.name, field.tensor.grad());
      return all;
    };
    for (const std::string of : {"qkv", "v", "kv", "q"})
      for (const std::string frozen : {"", "attention.k_proj.weight", "attention.v_proj.bias"}) {
        const auto one = gradients(of, frozen, true), two = gradients(of, frozen, false),
                   again = gradients(of, frozen, true);
        for (std::size_t i = 0; i < two.size(); ++i) {
          INFO("of " << of << ", without " << frozen << ": " << two[i].first);
          REQUIRE(one[i].second.defined() == two[i].second.defined());
          if (!two[i].second.defined()) continue;
          const auto wide = [](const Tensor& t) { return cast(t.to(Device::cpu), DType::f64); };
          CHECK(distance(wide(one[i].second), wide(two[i].second)) <= 6e-3);
          CHECK(distance(wide(one[i].second), wide(again[i].second)) == 0);
        }
      }
  }
}

TEST_CASE("gradients of log decays where all else is frozen", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const Shape& shape : {Shape{3, 7, 9, 64}, Shape{1, 95, 91, 128}, Shape{2, 13, 17, 256}}) {
    INFO("tokens " << str(shape));
    const StageConfig c{shape[3], 4, 192, true, false, 1e-5, MaskKind::polyline, true};
    Rng rng(3);
    const Tensor x = cast(Tensor::randn(shape, rng), DType::bf16).to(Device::cuda);
    Positions there(c, 4);
    there.angle = there.angle.to(Device::cuda);
    const auto gradients = [&](bool one) {
      Layers l = drawn(c);
      to(l, Device::cuda);
      PathEmbed& e = *l.attention.path_embed;
      for (Tensor* t : {&e.dt_bias, &e.A_log, &e.dt_linear_weight}) t->requires_grad(true);
      const Projected p = one ? l.attention.projected(x, l.norm, there)
                              : l.attention.projected(l.attention.normed(x, l.norm), there);
      REQUIRE(p.log_decays.requires_grad());
      p.log_decays.backward(Tensor::ones(p.log_decays.shape(), DType::f32, Device::cuda));
      return std::vector<Tensor>{e.dt_bias.grad(), e.A_log.grad(), e.dt_linear_weight.grad()};
    };
    const auto one = gradients(true), two = gradients(false);
    for (std::size_t i = 0; i < two.size(); ++i) {
      REQUIRE((one[i].defined() && two[i].defined()));
      CHECK(distance(one[i].to(Device::cpu), two[i].to(Device::cpu)) <= 1e-5);
    }
  }
}

#endif
