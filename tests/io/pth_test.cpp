// .pth files of two PyTorch versions and four pickle protocols (tests/reference/make_pth.py wrote
// them and says what is in them), and hostile ones made by hand: an error with a reason, never a
// crash or a large allocation.

#include "help.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/pth_save.hpp"
#include "ppma/nn/state_dict.hpp"

using namespace io_test;

namespace {

std::string pth(const std::string& name) { return reference("pth/" + name + ".pth"); }

std::vector<double> ramp(int n) {
  std::vector<double> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<double>(i);
  return v;
}

// ---- checkpoints by hand ----

Crafted pickled(const std::string& ops) { return Crafted().add("\x80\x02").add(ops); }

std::string text(const std::string& s) {
  const Crafted c = Crafted().add("X").number(static_cast<u32>(s.size())).add(s);
  return {c.begin(), c.end()};
}
std::string integer(i64 n) {
  const Crafted c = Crafted().add("\x8a\x08").number(n);
  return {c.begin(), c.end()};
}
std::string tuple(const std::vector<i64>& values) {
  std::string s = "(";
  for (const i64 n : values) s += integer(n);
  return s + "t";
}

struct View {
  std::string type = "FloatStorage", key = "0", class_name = "_rebuild_tensor_v2";
  i64 count = 6, offset = 0;
  std::vector<i64> shape{2, 3}, strides{3, 1};
};

std::string tensor(const View& v) {
  return "ctorch._utils\n" + v.class_name + "\n((" + text("storage") + "ctorch\n" + v.type + "\n" +
         text(v.key) + text("cpu") + integer(v.count) + "tQ" + integer(v.offset) + tuple(v.shape) +
         tuple(v.strides) + "\x89NtR";
}

// A checkpoint with one storage of 24 bytes, the floats 0..5.
std::vector<u8> archive(const Folder& folder, const std::string& ops,
                        const std::string& order = "little") {
  const std::vector<float> values{0, 1, 2, 3, 4, 5};
  const Crafted pickle = pickled(ops);
  ZipWriter zip(folder / "a.pth");
  zip.add("a/data.pkl", pickle);
  zip.add("a/byteorder", order);
  zip.add("a/data/0", Bytes(reinterpret_cast<const u8*>(values.data()), 24));
  zip.commit();
  return read_file(folder / "a.pth");
}

std::string refusal(const View& v) {
  const Folder folder;
  return error_of([&] {
    const PthFile file(archive(folder, tensor(v) + "."), "x.pth");
    file.tensor(file.root());
  });
}

std::string pickle_refusal(const std::string& ops) {
  return error_of([&] { parse_pickle(pickled(ops), "x"); });
}

template <class T>
void put(std::vector<u8>& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace

TEST_CASE("pth: every tensor that two PyTorch versions write in four protocols", "[io]") {
  for (const char* version : {"torch113", "torch215"})
    for (const char* protocol : {"_p2", "_p3", "_p4", "_p5"}) {
      INFO(version << protocol);
      const TensorMap model = load_weights(pth(std::string(version) + protocol));
      const auto values = [&](const char* name) { return find(model, name)->to_vector<double>(); };
      REQUIRE(model.size() == (std::string(version) == "torch215" ? 23 : 20));
      REQUIRE(find(model, "ramp")->shape() == Shape({2, 3, 4}));
      REQUIRE(values("ramp") == ramp(24));
      REQUIRE(values("tied") == ramp(24));
      REQUIRE(find(model, "transposed")->shape() == Shape({3, 2}));
      REQUIRE(values("transposed") == std::vector<double>{0, 3, 1, 4, 2, 5});
      REQUIRE(find(model, "channels_last")->shape() == Shape({1, 2, 3, 4}));
      REQUIRE(values("channels_last") == ramp(24));
      REQUIRE(values("tail") == std::vector<double>{4, 5, 6, 7, 8, 9});
      REQUIRE(values("odd") == std::vector<double>{1, 3, 5, 7, 9});
      REQUIRE(find(model, "expanded")->shape() == Shape({2, 5}));
      REQUIRE(values("expanded") == std::vector<double>{1, 1, 1, 1, 1, 2, 2, 2, 2, 2});
      REQUIRE(values("parameter") == std::vector<double>(4, 0.5));
      REQUIRE(find(model, "scalar")->rank() == 0);
      REQUIRE(find(model, "scalar")->item() == 7);
      REQUIRE(find(model, "empty")->shape() == Shape({0, 3}));
      const std::pair<const char*, DType> dtypes[] = {
          {"float64", DType::f64},   {"float32", DType::f32},  {"float16", DType::f32},
          {"bfloat16", DType::bf16}, {"int64", DType::int64},  {"int32", DType::int64},
          {"int16", DType::int64},   {"int8", DType::int64},   {"uint8", DType::uint8},
          {"uint16", DType::int64},  {"uint32", DType::int64}, {"uint64", DType::int64}};
      for (const auto& [name, dtype] : dtypes) {
        if (find(model, name) == nullptr) continue;  // 1.13 has no uint16 and wider
        INFO(name);
        REQUIRE(find(model, name)->dtype() == dtype);
        REQUIRE(values(name) == ramp(5));
      }
      REQUIRE(find(model, "bool")->dtype() == DType::uint8);
      REQUIRE(values("bool") == std::vector<double>{1, 0, 1});
    }
}

TEST_CASE("pth: what is no weight is data, and foreign classes are opaque", "[io]") {
  for (const char* version : {"torch113", "torch215"})
    for (const char* protocol : {"_p2", "_p3", "_p4", "_p5"}) {
      INFO(version << protocol);
      const PthFile file = read_pth(pth(std::string(version) + protocol));
      const PickleValue root = file.root();
      REQUIRE(root.find("epoch").integer() == 299);
      REQUIRE(root.find("negative").integer() == -(i64{1} << 40));
      REQUIRE(root.find("big").is(PickleKind::large_integer));
      REQUIRE(root.find("big").bytes().size() == 13);
      REQUIRE(root.find("text").text() == "caf\xc3\xa9 \xf0\x9f\x98\x80");
      REQUIRE(root.find("args").class_name() == "argparse.Namespace");
      const PickleValue args = root.find("args").state();
      REQUIRE(args.find("model").text() == "mini");
      REQUIRE(args.find("lr").real() == 1e-3);
      REQUIRE(args.find("sizes").item(1).integer() == 256);
      REQUIRE(args.find("betas").item(1).real() == 0.999);
      REQUIRE(args.find("resume").is(PickleKind::none));
      REQUIRE(root.find("counter").find("a").integer() == 2);
      REQUIRE(root.find("default").find("a").item(0).integer() == 1);
      REQUIRE(root.find("set").is(PickleKind::set));
      REQUIRE(root.find("set").item(0).integer() == 1);
      REQUIRE(root.find("size").item(1).integer() == 3);
      REQUIRE(root.find("device").class_name() == "torch.device");
      REQUIRE(root.find("dtype").is(PickleKind::global));
      REQUIRE(root.find("dtype").class_name() == "torch.float16");
      REQUIRE_THAT(root.find("max_accuracy").class_name(),
                   Catch::Matchers::EndsWith("multiarray.scalar"));
      REQUIRE(root.find("array").is(PickleKind::object));
      const PickleValue moment = root.find("optimizer").find("state").value(0).find("exp_avg");
      REQUIRE(file.is_tensor(moment));
      REQUIRE(file.tensor(moment).shape() == Shape({2, 2}));
      REQUIRE(file.tensor(moment).to_vector<float>()[0] == 0.1f);  // (1 - 0.9) times the gradient 1
      REQUIRE(root.find("optimizer").find("param_groups").item(0).find("lr").real() == 0.25);
      REQUIRE_FALSE(root.find("absent").defined());
      CHECK_THAT(error_of([&] { file.tensor(root.find("complex_tensor")); }),
                 Contains("torch.ComplexFloatStorage, which is not read"));
      CHECK_THAT(error_of([&] { file.tensor(root.find("args")); }),
                 Contains("argparse.Namespace is not a tensor"));
      CHECK_THAT(error_of([&] { root.find("text").integer(); }),
                 Contains("expected int, found a str"));
    }
}

TEST_CASE("load_weights: the three stored files hold the same network", "[io]") {
  const TensorMap expected = load_weights(reference("mini_weights.safetensors"));
  const TensorMap raw = load_weights(reference("mini_checkpoint.pth"));
  const TensorMap half = load_weights(reference("mini_mm_half.pth"));
  const TensorMap averaged = load_weights(reference("mini_checkpoint.pth"), {.entry = "model_ema"});
  REQUIRE(expected.size() == raw.size());
  REQUIRE(expected.size() == half.size());
  REQUIRE(expected.size() == averaged.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& [name, t] = expected[i];
    INFO(name);
    REQUIRE(raw[i].first == name);
    REQUIRE(half[i].first == name);
    REQUIRE(averaged[i].first == name);
    REQUIRE(same_elements(raw[i].second, t));
    REQUIRE(half[i].second.shape() == t.shape());
    REQUIRE(half[i].second.dtype() == t.dtype());
    const std::vector<double> e = t.to_vector<double>(), h = half[i].second.to_vector<double>(),
                              a = averaged[i].second.to_vector<double>();
    for (std::size_t k = 0; k < e.size(); ++k) {
      // Half an ulp of 11 significant bits; below 2^-14, of the subnormals' 2^-24.
      if (std::abs(h[k] - e[k]) > std::max(std::abs(e[k]) * 0x1p-11, 0x1p-25))
        FAIL(e[k] << " became " << h[k]);
      if (t.dtype() == DType::f32 && a[k] != e[k] / 2) FAIL(e[k] << " averaged is " << a[k]);
    }
  }
  CHECK_THAT(error_of([] { load_weights(reference("mini_checkpoint.pth"), {.entry = "ema"}); }),
             Contains("no entry \"ema\"; there are: model"));
}

TEST_CASE("load_weights: prefixes, bare dicts, whole modules, old formats", "[io]") {
  for (const char* version : {"torch113", "torch215"}) {
    const TensorMap plain = load_weights(pth(std::string(version) + "_ddp"));
    REQUIRE(plain.size() == 2);
    REQUIRE(plain[0].first == "weight");
    REQUIRE(plain[0].second.shape() == Shape({2, 3}));
    REQUIRE(load_weights(pth(std::string(version) + "_ddp"), {.entry = "", .strip = {}})[1].first ==
            "module.bias");
    CHECK_THAT(
        error_of([&] { load_weights(pth(std::string(version) + "_module")); }),
        Contains(
            "an object of torch.nn.modules.linear.Linear, not weights; save its state_dict()"));
    CHECK_THAT(error_of([&] { load_weights(pth(std::string(version) + "_legacy")); }),
               Contains("before 1.6") && Contains("torch.save(torch.load("));
  }
  REQUIRE(load_weights(pth("torch215_nocrc"))[0].second.to_vector<double>() == ramp(3));
  const Folder folder;
  save_pth(folder / "both.pth", {{"a", Tensor::ones({1})}, {"backbone.a", Tensor::ones({1})}});
  CHECK_THAT(error_of([&] { load_weights(folder / "both.pth"); }),
             Contains("two tensors have the name \"a\" (after removing prefixes)"));
  REQUIRE(load_weights(folder / "both.pth", {.entry = "", .strip = {"module."}}).size() == 2);
  for (const char* entry : {"models", "state_dict", "model_ema"}) {
    save_pth(folder / "entry.pth", {{"module.a", Tensor::ones({1})}}, entry);
    REQUIRE(load_weights(folder / "entry.pth")[0].first == "a");
  }
  write_file(folder / "cut.safetensors", "short");
  CHECK_THAT(error_of([&] { load_weights(folder / "cut.safetensors"); }),
             Contains("not a safetensors file (5 bytes)"));
  // content goes before the ending
  save_pth(folder / "wrong.safetensors", {{"a", Tensor::ones({1})}});
  REQUIRE(load_weights(folder / "wrong.safetensors").size() == 1);
  write_file(folder / "text.pth", "hello, I am no checkpoint");
  CHECK_THAT(error_of([&] { load_weights(folder / "text.pth"); }),
             Contains("text.pth: not a checkpoint of torch.save"));
  write_file(folder / "empty.pth", "");
  CHECK_THAT(error_of([&] { load_weights(folder / "empty.pth"); }), Contains("not a zip archive"));
  write_file(folder / "list.pth", Bytes(archive(folder, "].")));
  CHECK_THAT(error_of([&] { load_weights(folder / "list.pth"); }),
             Contains("holds a list of 0, not a dict"));
  write_file(folder / "meta.pth", Bytes(archive(folder, "}(" + text("epoch") + "K\x01u.")));
  CHECK_THAT(error_of([&] { load_weights(folder / "meta.pth"); }),
             Contains("no tensors in a dict of 1"));
}

TEST_CASE("save_weights: by ending, and back", "[io]") {
  const Folder folder;
  Rng rng(3);
  TensorMap tensors;
  tensors.emplace_back("w", Tensor::randn({2, 3, 4}, rng));
  tensors.emplace_back("d", Tensor::randn({3}, rng, 1, DType::f64));
  tensors.emplace_back("b", Tensor::randn({3}, rng, 1, DType::bf16));
  tensors.emplace_back("n", Tensor::from<i64>({-1, i64{1} << 40}, {2, 1}));
  tensors.emplace_back("u\xc3\xa9", Tensor::from<u8>({0, 255}, {2}));
  tensors.emplace_back("s", Tensor::scalar(2.5));
  tensors.emplace_back("e", Tensor::zeros({2, 0, 3}));
  for (const char* name : {"w.pth", "w.pt", "w.safetensors"}) {
    INFO(name);
    save_weights(folder / name, tensors);
    const TensorMap back = load_weights(folder / name);
    REQUIRE(back.size() == tensors.size());
    for (std::size_t i = 0; i < back.size(); ++i) {
      REQUIRE(back[i].first == tensors[i].first);
      REQUIRE(same_elements(back[i].second, tensors[i].second));
    }
  }
  save_pth(folder / "m.pth", tensors, "model");
  REQUIRE(read_pth(folder / "m.pth").root().find("model").size() == tensors.size());
  REQUIRE(load_weights(folder / "m.pth").size() == tensors.size());
  save_pth(folder / "none.pth", {});
  REQUIRE(load_weights(folder / "none.pth").empty());
  CHECK_THAT(error_of([&] { save_weights(folder / "w.onnx", tensors); }),
             Contains("ending should be"));
  CHECK_THAT(error_of([&] {
               save_pth(folder / "x.pth", {{"a", Tensor()}});
             }),
             Contains("undefined"));
  CHECK_THAT(error_of([&] {
               save_pth(folder / "x.pth", {{"\xff", tensors[0].second}});
             }),
             Contains("UTF-8"));
  REQUIRE(folder.files() == 5);
}

TEST_CASE("pth: a tensor must lie in its storage", "[io]") {
  REQUIRE(refusal({}).empty());
  REQUIRE(refusal({.type = "DoubleStorage", .count = 3, .shape = {3}, .strides = {1}}).empty());
  REQUIRE(refusal({.offset = 6, .shape = {0, 3}}).empty());
  const i64 huge = std::numeric_limits<i64>::max();
  CHECK_THAT(refusal({.shape = {3, 3}}),
             Contains("(3, 3) at element 0 reaches outside of its storage data/0 of 6"));
  CHECK_THAT(refusal({.offset = 1}), Contains("reaches outside"));
  CHECK_THAT(refusal({.offset = -1}), Contains("reaches outside"));
  CHECK_THAT(refusal({.offset = huge}), Contains("reaches outside"));
  CHECK_THAT(refusal({.offset = 7, .shape = {0, 3}}), Contains("reaches outside"));
  CHECK_THAT(refusal({.strides = {-3, 1}}), Contains("reaches outside"));
  CHECK_THAT(refusal({.offset = 5, .strides = {-1, -1}}), Contains("reaches outside"));
  CHECK_THAT(refusal({.strides = {huge, huge}}), Contains("reaches outside"));
  CHECK_THAT(refusal({.shape = {5, 5}, .strides = {huge, huge}}), Contains("reaches outside"));
  CHECK_THAT(refusal({.shape = {-2, -3}}), Contains("must not be negative"));
  CHECK_THAT(refusal({.shape = {huge, huge}}), Contains("2^63"));
  CHECK_THAT(refusal({.shape = {huge}, .strides = {0}}), Contains("too large"));
  CHECK_THAT(refusal({.shape = {i64{1} << 30}, .strides = {0}}),
             Contains("repeats a small storage"));
  CHECK_THAT(refusal({.shape = {2, 3}, .strides = {1}}), Contains("sizes and strides"));
  CHECK_THAT(refusal({.shape = std::vector<i64>(9, 1), .strides = std::vector<i64>(9, 1)}),
             Contains("at most 8"));
  CHECK_THAT(refusal({.count = 7}), Contains("should have 7 elements, but has 24 bytes"));
  CHECK_THAT(refusal({.count = -1}), Contains("should have -1"));
  CHECK_THAT(refusal({.type = "DoubleStorage"}), Contains("should have 6 elements"));
  CHECK_THAT(refusal({.key = "1"}), Contains("data/1 is not in the file"));
  CHECK_THAT(refusal({.key = "../data.pkl"}), Contains("is not in the file"));
  CHECK_THAT(refusal({.type = "QInt8Storage"}), Contains("torch.QInt8Storage, which is not read"));
  CHECK_THAT(refusal({.class_name = "_rebuild_tensor_v3"}), Contains("with 6 arguments"));
  CHECK_THAT(refusal({.class_name = "_rebuild_sparse_tensor"}),
             Contains("is not a tensor that is read"));
}

TEST_CASE("pth: one storage in very many tensors does not fill the memory", "[io]") {
  const Folder folder;
  // The storage is 1 MiB; each of the 20000 tensors is all of it: 20 GB from a file of 1.6 MB.
  const std::vector<u8> storage(std::size_t{1} << 20, 1);
  const std::string view =
      tensor({.type = "ByteStorage", .count = 1 << 20, .shape = {1 << 20}, .strides = {1}});
  std::string ops = "}(" + text("first") + view + "q\x01";
  for (int i = 0; i < 20000; ++i) ops += text(std::to_string(i)) + "h\x01";
  const Crafted pickle = pickled(ops + "u.");
  ZipWriter zip(folder / "many.pth");
  zip.add("many/data.pkl", pickle);
  zip.add("many/data/0", storage);
  zip.commit();
  reset_peak_memory();
  const i64 before = memory_stats().peak_bytes;
  CHECK_THAT(error_of([&] { load_weights(folder / "many.pth"); }),
             Contains("share their storages too often"));
  REQUIRE(memory_stats().peak_bytes == before);
}

TEST_CASE("pickle: damage is named with its place", "[io]") {
  REQUIRE(pickle_refusal("N.").empty());
  CHECK_THAT(pickle_refusal(""),
             Contains("x: damaged pickle: it ends in the middle") && Contains("at byte 2"));
  CHECK_THAT(pickle_refusal("X"), Contains("ends in the middle"));
  CHECK_THAT(pickle_refusal(text("abc").substr(0, 6)), Contains("ends in the middle"));
  CHECK_THAT(pickle_refusal("X\xff\xff\xff\xff"
                            "abc."),
             Contains("4294967295 more bytes"));
  CHECK_THAT(pickle_refusal("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
                            "abc."),
             Contains("18446744073709551615 more bytes"));
  CHECK_THAT(pickle_refusal("\x8b\xff\xff\xff\xff"
                            "abc."),
             Contains("more bytes"));
  CHECK_THAT(pickle_refusal("."), Contains("nothing left on the stack"));
  CHECK_THAT(pickle_refusal("K\x01(."), Contains("nothing left on the stack"));
  CHECK_THAT(pickle_refusal("R."), Contains("nothing left on the stack"));
  CHECK_THAT(pickle_refusal("K\x01\x86."), Contains("nothing left on the stack"));
  CHECK_THAT(pickle_refusal("t."), Contains("no mark"));
  CHECK_THAT(pickle_refusal("h\x05."), Contains("nothing in memo 5"));
  CHECK_THAT(pickle_refusal("Nr\xff\xff\xff\xff."), Contains("a memo index of 4294967295"));
  CHECK_THAT(pickle_refusal("NNa."), Contains("no list"));
  CHECK_THAT(pickle_refusal("NNNs."), Contains("no dict"));
  CHECK_THAT(pickle_refusal("}(Nu."), Contains("no dict"));
  CHECK_THAT(pickle_refusal("(Nd."), Contains("key without a value"));
  CHECK_THAT(pickle_refusal("\x80\x06."), Contains("protocol 6"));
  CHECK_THAT(pickle_refusal("I01\n."), Contains("opcode 73"));
  CHECK_THAT(pickle_refusal("\x82\x01."), Contains("opcode 130"));
  CHECK_THAT(pickle_refusal("X\x02" + std::string(3, '\0') + "\xc0\x80."),
             Contains("not valid UTF-8"));
  CHECK_THAT(pickle_refusal("cos\xff\nsystem\n."), Contains("not valid UTF-8"));
  CHECK_THAT(pickle_refusal("cos"), Contains("ends in the middle"));
  CHECK_THAT(pickle_refusal("NN\x93."), Contains("class whose name is no text"));
  CHECK_THAT(pickle_refusal("ccollections\nOrderedDict\n]Na\x85R."), Contains("pairs"));
}

TEST_CASE("pickle: a call is only a description of it", "[io]") {
  const PickleValue v =
      parse_pickle(pickled("cos\nsystem\n" + text("touch /tmp/x") + "\x85R."), "x");
  REQUIRE(v.is(PickleKind::object));
  REQUIRE(v.class_name() == "os.system");
  REQUIRE(v.args().item(0).text() == "touch /tmp/x");
  REQUIRE(v.state().is(PickleKind::none));
  // An object that is called, appended to, set on, and given a state.
  const PickleValue o = parse_pickle(pickled("cm\nC\n)\x81K\x01"
                                             "aNN"
                                             "s}b."),
                                     "x");
  REQUIRE(o.list_items().item(0).integer() == 1);
  REQUIRE(o.dict_items().size() == 1);
  REQUIRE(o.state().is(PickleKind::dict));
  REQUIRE(parse_pickle(pickled("cm\nC\n)R)R."), "x").class_name() == "(computed)");
}

TEST_CASE("pickle: depth, cycles and sharing cost no recursion and no copies", "[io]") {
  // 200000 lists in each other; a list that contains itself; 2^40 items behind forty shared lists.
  const int depth = 200000;
  PickleValue v =
      parse_pickle(pickled(std::string(depth, ']') + std::string(depth - 1, 'a') + "."), "x");
  int found = 1;
  for (; v.size() == 1; v = v.item(0)) ++found;
  REQUIRE(found == depth);
  const PickleValue cycle = parse_pickle(pickled("]q\x01h\x01"
                                                 "a."),
                                         "x");
  REQUIRE(cycle.item(0).item(0).item(0).size() == 1);
  std::string bomb = "]";
  for (int i = 0; i < 40; ++i) bomb += "2\x86";
  REQUIRE(parse_pickle(pickled(bomb + "."), "x").size() == 2);
  CHECK_THAT(pickle_refusal(std::string(100000, ']') + "."),
             Contains("more containers than it can hold"));
  // OrderedDicts made again and again from one long list of pairs: quadratic if copied.
  std::string pairs = "](";
  for (int i = 0; i < 1000; ++i) pairs += "NN\x86";
  pairs += "eq\x01";
  for (int i = 0; i < 1000; ++i) pairs += "ccollections\nOrderedDict\nh\x01\x85R";
  CHECK_THAT(pickle_refusal(pairs + "."), Contains("more copies of a list"));
}

TEST_CASE("zip: damaged and hostile archives", "[io]") {
  const Folder folder;
  const std::vector<u8> good = archive(folder, tensor({}) + ".");
  const auto refused = [&](std::vector<u8> bytes) {
    return error_of([&] { PthFile(std::move(bytes), "x.pth"); });
  };
  const auto patched = [&](std::size_t at, auto value) {
    std::vector<u8> bytes = good;
    put(bytes, at, value);
    return refused(std::move(bytes));
  };
  REQUIRE(refused(good).empty());
  const std::size_t end = good.size() - 22;
  const u32 directory = detail::load<u32>(good.data() + end + 16);
  CHECK_THAT(refused({good.begin(), good.end() - 1}), Contains("cut short"));
  CHECK_THAT(refused({good.begin(), good.begin() + 60}), Contains("cut short"));
  CHECK_THAT(patched(end + 16, u32{0xfffffff0}), Contains("leaves the file"));
  CHECK_THAT(patched(end + 12, u32{0xfffffff0}), Contains("leaves the file"));
  CHECK_THAT(patched(end + 12, u32{7}), Contains("entry 0 is missing"));
  CHECK_THAT(patched(end + 10, u32{0xffffffff}), Contains("several parts"));
  CHECK_THAT(patched(end + 4, u32{1}), Contains("several parts"));
  CHECK_THAT(patched(directory + 24, u32{0x7fffffff}), Contains("two different sizes"));
  CHECK_THAT(patched(directory + 20, u64{0x7fffffff7fffffff}), Contains("leaves the file"));
  CHECK_THAT(patched(directory + 24, u32{0xffffffff}), Contains("lacks a zip64 size"));
  CHECK_THAT(patched(directory + 42, u32{5}), Contains("no header at byte 5"));
  CHECK_THAT(patched(directory + 42, u32{0xfffffffe}), Contains("no header"));
  CHECK_THAT(patched(directory + 28, std::uint16_t{0xffff}), Contains("cut short"));
  CHECK_THAT(patched(directory + 30, std::uint16_t{4}), Contains("damaged") || Contains("missing"));
  CHECK_THAT(patched(directory + 46, u8{'b'}), Contains("another name in its header"));
  CHECK_THAT(patched(directory + 46, u8{0xff}), Contains("not valid UTF-8"));
  CHECK_THAT(patched(directory + 10, std::uint16_t{8}),
             Contains("is compressed (method 8)") && Contains("zip -0"));
  CHECK_THAT(patched(directory + 8, std::uint16_t{1}), Contains("encrypted"));
  CHECK_THAT(patched(70, u8{0}), Contains("damaged (its checksum differs)"));
  CHECK_THAT(refused(archive(folder, "N.", "big")), Contains("big-endian"));

  // Entries that overlap: the second entry's header inside of the first one's data.
  std::vector<u8> inner = good;
  const std::size_t second = directory + 46 + std::strlen("a/data.pkl");
  put(inner, second + 42, detail::load<u32>(good.data() + directory + 42));
  CHECK_THAT(refused(inner), Contains("another name in its header"));
  ZipWriter twice(folder / "twice.pth");
  twice.add("a/data.pkl", "\x80\x02N.");
  twice.add("a/data.pkl", "\x80\x02N.");
  twice.commit();
  CHECK_THAT(error_of([&] { read_pth(folder / "twice.pth"); }), Contains("occurs twice"));
  // an entry whose data is another archive's entry, listed as well
  ZipWriter nested(folder / "nested.zip");
  nested.add("a/data.pkl", Bytes(good.data(), directory));
  nested.commit();
  std::vector<u8> overlap = read_file(folder / "nested.zip");
  const std::size_t nested_end = overlap.size() - 22,
                    nested_directory = detail::load<u32>(overlap.data() + nested_end + 16);
  std::vector<u8> more(good.begin() + static_cast<std::ptrdiff_t>(second),
                       good.begin() + static_cast<std::ptrdiff_t>(second) + 46 + 11);
  put(more, 42, detail::load<u32>(more.data() + 42) + 64);
  put(overlap, nested_end + 8, std::uint16_t{2});
  put(overlap, nested_end + 10, std::uint16_t{2});
  put(overlap, nested_end + 12, static_cast<u32>(nested_end - nested_directory + more.size()));
  overlap.insert(overlap.begin() + static_cast<std::ptrdiff_t>(nested_end), more.begin(),
                 more.end());
  CHECK_THAT(refused(overlap), Contains("entries overlap"));
}

// One entry, a/data.pkl, as a writer of 64-bit archives streams it: no sizes in front, a data
// descriptor behind, and 32-bit fields that say "see the wide ones". `extra` is what the
// directory's wide field claims to have.
Crafted zip64(u64 size, u64 offset, std::uint16_t extra = 24) {
  const auto half = [](int n) { return static_cast<std::uint16_t>(n); };
  const std::string name = "a/data.pkl", content = "\x80\x02N.";
  Crafted f;
  f.add("PK\3\4")
      .number(half(45))
      .number(half(0x808))
      .number(half(0))
      .number<u32>(0)
      .number<u32>(0);
  f.number<u64>(0).number(half(10)).number(half(0)).add(name).add(content);
  f.add("PK\7\b").number<u32>(0).number<u64>(4).number<u64>(4);
  const u64 directory = f.size();
  f.add("PK\1\2").number<u32>(45).number(half(0x808)).number(half(0)).number<u32>(0).number<u32>(0);
  f.number(~u64{0}).number(half(10)).number(half(28)).number(half(0)).number<u64>(0).number(
      ~u32{0});
  f.add(name).number(half(1)).number(extra).number(size).number(size).number(offset);
  const u64 end = f.size();
  f.add("PK\6\6").number<u64>(44).number<u32>(45).number<u64>(0).number<u64>(1).number<u64>(1);
  f.number(end - directory).number(directory);
  f.add("PK\6\7").number<u32>(0).number(end).number<u32>(1);
  return f.add("PK\5\6").number<u32>(0).number(~u64{0}).number(~u32{0}).number(half(0));
}

TEST_CASE("zip: zip64 directories and sizes", "[io]") {
  REQUIRE(PthFile(zip64(4, 0), "x").root().is(PickleKind::none));
  const auto refused = [](const Crafted& bytes) { return error_of([&] { PthFile(bytes, "x"); }); };
  CHECK_THAT(refused(zip64(~u64{0}, 0)), Contains("leaves the file"));
  CHECK_THAT(refused(zip64(u64{1} << 40, 0)), Contains("leaves the file"));
  CHECK_THAT(refused(zip64(4, ~u64{0} - 20)), Contains("no header"));
  CHECK_THAT(refused(zip64(4, 0, 16)),
             Contains("lacks a zip64 size") || Contains("damaged extra field"));
  CHECK_THAT(refused(zip64(4, 0, 99)), Contains("damaged extra field"));
  Crafted moved = zip64(4, 0);
  put(moved, moved.size() - 34, ~u64{0});  // where the wide end of the directory would be
  CHECK_THAT(refused(moved), Contains("no zip64 end of directory"));
}

TEST_CASE("pickle: what torch.load and CPython refuse is refused", "[io]") {
  const auto le = [](u64 n) {
    const Crafted c = Crafted().number(n);
    return std::string(c.begin(), c.end());
  };
  CHECK_THAT(pickle_refusal("N.x"), Contains("1 bytes follow its end"));
  CHECK_THAT(pickle_refusal("N.N."), Contains("2 bytes follow its end"));
  // Frames: whole values, within the pickle, one after the other.
  CHECK(pickle_refusal("\x95" + le(2) + "N.").empty());
  CHECK(pickle_refusal("\x95" + le(1) + "N" + "\x95" + le(2) + "0" + "N.").empty());
  CHECK(pickle_refusal("\x95" + le(0) + "N.").empty());
  CHECK_THAT(pickle_refusal("\x95" + le(3) + "N."),
             Contains("a frame of 3 bytes, more than follow"));
  CHECK_THAT(pickle_refusal("\x95" + le(~u64{0}) + "N."),
             Contains("a frame of 18446744073709551615 bytes"));
  CHECK_THAT(pickle_refusal("\x95" + le(12) + "N" + "\x95" + le(2) + "N."),
             Contains("a frame within a frame"));
  CHECK_THAT(pickle_refusal("\x95" + le(3) + "J\x01\x02\x03\x04."),
             Contains("a frame ends within a value"));
  // Keys that Python cannot hash.
  CHECK_THAT(pickle_refusal("}]Ns."), Contains("a list as a key"));
  CHECK_THAT(pickle_refusal("}(}Nu."), Contains("a dict as a key"));
  CHECK_THAT(pickle_refusal("}]\x85Ns."), Contains("a list in a key"));
  CHECK_THAT(pickle_refusal("\x8f(]\x90."), Contains("a list as a key"));
  CHECK(pickle_refusal("}K\x01K\x02\x86Ns.").empty());
  // Calls and states that Python has no meaning for.
  CHECK_THAT(pickle_refusal("ccollections\nOrderedDict\nK\x01\x85R."),
             Contains("an OrderedDict of something else"));
  CHECK_THAT(pickle_refusal("ctorch\nSize\nK\x01\x85R."),
             Contains("a torch.Size of something else"));
  CHECK_THAT(pickle_refusal("ccollections\nCounter\nK\x01\x85R."),
             Contains("a Counter of something else"));
  CHECK_THAT(pickle_refusal("N)R."), Contains("a call of something that is no function"));
  CHECK_THAT(pickle_refusal("}}b."), Contains("a state for something that has none"));
  CHECK_THAT(pickle_refusal("K\x01}b."), Contains("a state for something that has none"));
  CHECK_THAT(pickle_refusal("ccollections\nOrderedDict\n)RK\x01"
                            "b."),
             Contains("a state for something that has none"));
  CHECK(pickle_refusal("ccollections\nOrderedDict\n)R}b.").empty());
  CHECK_THAT(pickle_refusal("K\x01Q."), Contains("a persistent id that is no tuple"));
  CHECK_THAT(pickle_refusal("\x8f(K\x01"
                            "e."),
             Contains("no list"));
  // Python 2's str is text where it is UTF-8, as torch.load takes it; else bytes.
  REQUIRE(parse_pickle(pickled("U\x03"
                               "abc."),
                       "x")
              .text() == "abc");
  REQUIRE(parse_pickle(pickled("U\x01\xff."), "x").is(PickleKind::bytes));
}

TEST_CASE("zip: flags, comments and strangers", "[io]") {
  const Folder folder;
  const std::vector<u8> good = archive(folder, tensor({}) + ".");
  const u32 directory = detail::load<u32>(good.data() + good.size() - 6);
  const auto flagged = [&](std::uint16_t flags) {
    std::vector<u8> bytes = good;
    put(bytes, directory + 8, flags);
    return error_of([&] { PthFile(std::move(bytes), "x.pth"); });
  };
  REQUIRE(flagged(0x0800).empty());
  REQUIRE(flagged(0x0008).empty());  // streamed
  for (const int flag : {0x1, 0x40, 0x2000})
    CHECK_THAT(flagged(static_cast<std::uint16_t>(flag)),
               Contains("entry \"a/data.pkl\" is encrypted"));
  CHECK_THAT(flagged(0x20), Contains("is a patch of another file"));
  std::vector<u8> more = good;
  for (const char c : std::string("\r\n")) more.push_back(static_cast<u8>(c));
  // as torch.load reads it
  REQUIRE(PthFile(more, "x.pth").is_tensor(PthFile(more, "x.pth").root()));

  const auto saved = [&](std::vector<std::string> names, bool compressed = false) {
    ZipWriter zip(folder / "s.zip");
    for (const std::string& n : names) zip.add(n, n.ends_with("version") ? "99\n" : "\x80\x02N.");
    zip.commit();
    std::vector<u8> bytes = read_file(folder / "s.zip");
    if (compressed)
      for (std::size_t i = 0; i + 12 < bytes.size(); ++i)
        if (std::memcmp(bytes.data() + i, "PK\1\2", 4) == 0) put(bytes, i + 10, std::uint16_t{8});
    return error_of([&] { PthFile(std::move(bytes), "x.pt"); });
  };
  for (const bool compressed : {false, true}) {
    CHECK_THAT(
        saved({"m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"}, compressed),
        Contains("x.pt: a TorchScript program, not a checkpoint; save the module's state_dict()"));
    CHECK_THAT(saved({"m/model.json", "m/code/m.py"}, compressed),
               Contains("a TorchScript program"));
    CHECK_THAT(saved({"weight.npy", "bias.npy"}, compressed),
               Contains("x.pt: arrays of NumPy (.npz)"));
    CHECK_THAT(saved({"config.json", "model.weights.h5"}, compressed), Contains("a Keras network"));
    CHECK_THAT(saved({"run/best.pth"}, compressed),
               Contains("around \"run/best.pth\"") && Contains("unpack"));
    CHECK_THAT(saved({"m/.data/extern_modules", "m/data.pkl"}, compressed),
               Contains("torch.package"));
    CHECK_THAT(saved({"m/archive_format", "m/models/model.json"}, compressed),
               Contains("torch.export"));
  }
  CHECK_THAT(saved({"readme.txt"}), Contains("a zip archive without data.pkl"));
  CHECK_THAT(saved({"m/data.pkl"}, true),
             Contains("is compressed (method 8)") && Contains("zip -0"));
  CHECK_THAT(saved({"m/data.pkl", "m/version"}), Contains("version 99\\n of PyTorch's format"));
}

TEST_CASE("load_weights: what people hand over instead of weights is named, with the remedy",
          "[io]") {
  struct Handed {
    std::string bytes;
    const char *what, *remedy;
  };
  std::string tar(1024, '\0'), npy = "\x93NUMPY\x01";
  tar.replace(0, 8, "storages").replace(257, 5, "ustar");
  const Handed all[] = {
      {"", "an empty file", "download the file again"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
       "a Git LFS pointer, not the file", "git lfs pull"},
      {"<!DOCTYPE html>\n<html></html>", "an HTML page", "download the file itself"},
      {"\n  <HTML lang=en>", "an HTML page", "download the file itself"},
      {"\xef\xbb\xbf<html>", "an HTML page", "download the file itself"},
      {"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML text",
       "download the file again"},
      {"{\"metadata\": {}, \"weight_map\": {\"a\": \"model-1-of-2.safetensors\"}}",
       "an index of weights", "one at a time"},
      {"{\"lr\": 1}", "a JSON text", "give the .safetensors"},
      {"Entry not found", "a text that begins with \"Entry not found\"", "give the file"},
      {std::string("\x1f\x8b\x08\0\0\0\0\0\0\0", 10), "compressed by gzip", "gunzip"},
      {std::string("\xfd"
                   "7zXZ\0\0\0\0\0",
                   10),
       "compressed by xz", "unxz"},
      {"BZh91AY&SY", "compressed by bzip2", "bunzip2"},
      {std::string("\x28\xb5\x2f\xfd\0\0\0\0\0\0", 10), "compressed by Zstandard", "unzstd"},
      {std::string("\x89HDF\r\n\x1a\n\0\0\0", 11), "an HDF5 file (Keras or TensorFlow)", "h5py"},
      {npy + std::string(20, '\0'), "a NumPy array", "safetensors.numpy"},
      {std::string("\x08\x08\x12\x07pytorch\x1a", 12) + std::string(20, '\0'), "an ONNX network",
       ".safetensors"},
      {tar, "a tar archive", "tar xf"},
      {std::string("\x80\x04\x95\0\0\0\0\0\0\0\0N.", 13), "a pickle that torch.save did not write",
       "torch.save"},
      {std::string(300, '\0'), "nothing but zeros", "get it again"},
      {std::string("\x89PNG\r\n\x1a\n\0\0\0\0", 12), "a PNG image", "exchanged"},
      {std::string("GGUF\3\0\0\0\0\0\0\0", 12), "a GGUF file", ".safetensors"}};
  const Folder folder;
  for (const Handed& h : all)
    for (const char* name : {"w.pth", "w.bin", "w.safetensors"}) {
      INFO(h.what << " as " << name);
      write_file(folder / name, h.bytes);
      const std::string message = error_of([&] { load_weights(folder / name); });
      CHECK_THAT(message, Catch::Matchers::StartsWith(folder / name + ": "));
      CHECK_THAT(message, Contains(h.what) && Contains(h.remedy));
      CHECK(message.find('\n') == std::string::npos);
    }
}

TEST_CASE("load_weights: nothing is left out without a word", "[io]") {
  const Folder folder;
  const auto loaded = [&](const std::string& ops) {
    write_file(folder / "w.pth", Bytes(archive(folder, ops)));
    return weights_of_file(folder / "w.pth");
  };
  const std::string call = "ctorch._utils\n_rebuild_", w = text("w") + tensor({});
  CHECK_THAT(error_of([&] { loaded("}(" + w + text("q") + call + "qtensor\n)Ru."); }),
             Contains("w.pth: 1 of its 2 tensors cannot be read, 1 entry: q (quantised; save "
                      ".dequantize() of it)"));
  CHECK_THAT(error_of([&] { loaded("}(" + w + text("s") + call + "sparse_tensor\n)Ru."); }),
             Contains("s (sparse"));
  CHECK_THAT(error_of([&] { loaded("}(" + w + text("s") + call + "sparse_csr_tensor\n)Ru."); }),
             Contains("to_dense()"));
  CHECK_THAT(error_of([&] {
               loaded("}(" + w + text("s") + call + "parameter\n" + call +
                      "sparse_tensor\n)R\x89}\x87Ru.");
             }),
             Contains("s (sparse"));
  CHECK_THAT(
      error_of([&] { loaded("}(" + w + text("m") + call + "meta_tensor_no_storage\n)Ru."); }),
      Contains("\"meta\""));
  CHECK_THAT(error_of([&] {
               loaded("}(" + w + text("a") + "cnumpy.core.multiarray\n_reconstruct\n)Ru.");
             }),
             Contains("a (an array of NumPy"));
  CHECK_THAT(error_of([&] {
               loaded("}(" + w + text("n") + tensor({.class_name = "_rebuild_tensor_v9"}) + "u.");
             }),
             Contains("n (made by torch._utils._rebuild_tensor_v9, which is not known"));
  // torch._neg_view: the elements in the file are those of the other sign
  const std::string plain = tensor({});
  const auto turned = [&](const std::string& truth) {
    return "}(" + text("v") + plain.substr(0, plain.size() - 2) + "}" + text("neg") + truth +
           "stRu.";
  };
  CHECK_THAT(error_of([&] { loaded(turned("\x88")); }),
             Contains("tensor \"v\" is a view with the sign turned (neg)"));
  CHECK(loaded(turned("\x89")).tensors.size() == 1);
  // packed parameters of a quantised layer: a tensor and its bias in a tuple
  CHECK_THAT(error_of([&] { loaded("}(" + w + text("p") + call + "qtensor\n)RN\x86u."); }),
             Contains("p (quantised"));
  CHECK_THAT(error_of([&] { loaded("}(" + w + text("p") + tensor({}) + "N\x86u."); }),
             Contains("p (in a tuple"));

  const WeightsOfFile file =
      loaded("}(" + text("model") + "}(" + w + text("_extra_state") + "}" + text("scale") +
             "K\x01u" + text("epoch") + "K\x07" + text("optimizer") + "}u.");
  REQUIRE(file.tensors.size() == 1);
  CHECK(listed(file.left_out) == "2 entries: _extra_state (a dict of 0), scale (a int)");
  CHECK(listed(file.beside) == "2 entries: epoch (a int), optimizer (a dict of 0)");
  // Two equal keys: the last value, as in Python.
  const WeightsOfFile twice =
      loaded("}(" + text("w") + tensor({.shape = {1}, .strides = {1}}) + w + "u.");
  REQUIRE(twice.tensors.size() == 1);
  REQUIRE(twice.tensors[0].second.shape() == Shape({2, 3}));
  CHECK_THAT(
      error_of([&] { loaded("}(" + text("net") + "}(" + w + "u" + text("epoch") + "K\x07u."); }),
      Contains("name the entry that holds them (net)"));
  CHECK_THAT(
      error_of([&] { loaded("}(" + text("model") + "cmodels\nNet\n)Ru."); }),
      Contains("its \"model\" is an object of models.Net, not weights; save its state_dict()"));
  CHECK_THAT(
      error_of([&] {
        loaded("}(" + text("z") +
               tensor({.type = "ComplexFloatStorage", .count = 3, .shape = {3}, .strides = {1}}) +
               "u.");
      }),
      Contains("tensor \"z\" of torch.ComplexFloatStorage, which is not read; save "
               "torch.view_as_real() of it"));
  CHECK_THAT(error_of([&] { loaded("}(" + text("a\x1b[31m") + tensor({.offset = 9}) + "u."); }),
             Contains("w.pth: tensor \"a\\x1b[31m\" of shape (2, 3) at element 9 reaches outside"));
}

TEST_CASE("load_weights: wrappers' prefixes in any nesting", "[io]") {
  const std::vector<std::string> whole{"module.", "_orig_mod."}, all = WeightOptions().strip;
  for (const char* name :
       {"a.w", "module.a.w", "_orig_mod.a.w", "module._orig_mod.a.w", "_orig_mod.module.a.w",
        "module.module.a.w", "_orig_mod.module._orig_mod.a.w", "a._orig_mod.w", "module.a.module.w",
        "a._orig_mod.module.w"}) {
    INFO(name);
    CHECK(bare_name(name, all) == "a.w");
    CHECK(bare_name(name, whole) == "a.w");
    CHECK(bare_name(name, {}) == name);
  }
  for (const char* name : {"backbone.a.w", "module.backbone.a.w", "backbone.module.a.w",
                           "backbone._orig_mod.module.a.w"}) {
    INFO(name);
    CHECK(bare_name(name, all) == "a.w");
    CHECK(bare_name(name, whole) == "backbone.a.w");
  }
  CHECK(bare_name("submodule.a", all) == "submodule.a");
  CHECK(bare_name("a.modules.b", all) == "a.modules.b");
  const Folder folder;
  for (const char* file : {"w.pth", "w.safetensors"}) {
    save_weights(folder / file, {{"module._orig_mod.backbone.a", Tensor::ones({1})}});
    CHECK(load_weights(folder / file)[0].first == "a");
  }
}

TEST_CASE("save_weights: metadata is kept in a .pth too; parts of our own checkpoints", "[io]") {
  const Folder folder;
  const std::map<std::string, std::string> metadata{{"config", "{\"a\": 1}"},
                                                    {"input", "\xe6\x97\xa5\n\"x\""}};
  for (const char* name : {"w.pth", "w.safetensors"}) {
    save_weights(folder / name, {{"a", Tensor::ones({1})}}, metadata);
    CHECK(weights_of_file(folder / name).metadata == metadata);
  }
  const Tensor one = Tensor::ones({1}), two = Tensor::full({1}, 2);
  save_weights(folder / "t.safetensors",
               {{"model.a", one}, {"ema.a", two}, {"optimizer.a.m", one}});
  const WeightsOfFile ema = weights_of_file(folder / "t.safetensors");
  CHECK(ema.tensors[0].second.item() == 2);
  CHECK(listed(ema.beside) == "2 entries: model (1 tensor), optimizer (1 tensor)");
  CHECK(load_weights(folder / "t.safetensors", {.entry = "model"})[0].second.item() == 1);
  CHECK_THAT(error_of([&] { load_weights(folder / "t.safetensors", {.entry = "best"}); }),
             Contains("has no part \"best\"; there are: ema, model, optimizer"));
}

TEST_CASE("crc32: its check value", "[io]") {
  const std::string digits = "123456789";
  REQUIRE(crc32(Bytes(reinterpret_cast<const u8*>(digits.data()), digits.size())) == 0xcbf43926u);
  REQUIRE(crc32({}) == 0);
}

TEST_CASE("is_utf8: the edges of every range", "[io]") {
  for (const char* good : {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                           "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(is_utf8(std::string_view(good)));
  for (const char* bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x7f", "\xe0\x9f\xbf", "\xe1\x80",
        "\xe1\x80\xc0", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff", "\xf1\x80\x80"})
    CHECK_FALSE(is_utf8(std::string_view(bad)));
}

TEST_CASE("printable: what steers a terminal is shown, not obeyed; long texts are cut", "[io]") {
  CHECK(printable("layers.0.weight") == "layers.0.weight");
  CHECK(printable("caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80") ==
        "caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80");
  CHECK(printable("a\x1b[31mred\x07\x7f\nb\tc\r") == "a\\x1b[31mred\\x07\\x7f\\nb\\tc\\r");
  CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
  CHECK(printable("\xc2\x9b"
                  "31m") ==
        "\\xc2\\x9b"
        "31m");  // C1: the same as ESC [
  CHECK(printable("\xe2\x80\xae"
                  "gnp") ==
        "\\xe2\\x80\\xae"
        "gnp");  // right to left
  CHECK(printable("\xff\xc3"
                  "a\xe6\x97") ==
        "\\xff\\xc3"
        "a\\xe6\\x97");
  CHECK(printable("") == "");
  CHECK(printable(std::string(80, 'a')) == std::string(80, 'a'));
  CHECK(printable(std::string(300, '7')) == std::string(80, '7') + "... (300 bytes)");
  CHECK(printable("\xc3\xa9\xc3\xa9\xc3\xa9", 2) == "\xc3\xa9\xc3\xa9... (6 bytes)");
}
