// safetensors: what is written is read back, the stored file is understood, damaged headers are
// refused by name.

#include "ppma/io/safetensors.hpp"

#include <fstream>

#include "help.hpp"

using namespace io_test;

namespace {

// A whole file from a JSON header and a number of zero bytes of data.
Crafted crafted(const std::string& header, std::size_t data) {
  Crafted file;
  file.number<u64>(header.size()).add(header).insert(file.end(), data, 0);
  return file;
}

std::string refusal(const std::string& header, std::size_t data) {
  return error_of([&] { parse_safetensors(crafted(header, data), "x.safetensors"); });
}

const char* const good = R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";

}  // namespace

TEST_CASE("safetensors: the stored network's weights and configuration", "[io]") {
  const Safetensors file = read_safetensors(reference("mini_weights.safetensors"));
  REQUIRE_THAT(file.metadata.at("config"), Contains("\"embed_dims\": [16, 32, 48, 64]"));
  REQUIRE(file.tensors.front().first == "patch_embed.proj.0.weight");
  REQUIRE(file.tensors.front().second.shape() == Shape({8, 3, 3, 3}));
  REQUIRE(file.tensors.back().first == "head.bias");
  const Tensor* tracked = find(file.tensors, "patch_embed.proj.1.num_batches_tracked");
  REQUIRE(tracked != nullptr);
  REQUIRE(tracked->dtype() == DType::int64);
  REQUIRE(tracked->rank() == 0);
  REQUIRE(find(file.tensors, "head") == nullptr);
}

TEST_CASE("safetensors: every dtype survives, names and metadata in any script too", "[io]") {
  const Folder folder;
  Rng rng(7);
  TensorMap tensors;
  tensors.emplace_back("bytes", Tensor::from<u8>({1, 2, 255}, {3}));
  tensors.emplace_back("f32", Tensor::randn({2, 3, 5}, rng));
  tensors.emplace_back("\"quoted\" \\ \x01\x1f\t\xc3\xa9\n",
                       Tensor::randn({4}, rng, 1, DType::f64));
  tensors.emplace_back("bf16", Tensor::randn({7}, rng, 1, DType::bf16));
  tensors.emplace_back("scalar", Tensor::from<i64>({-5}, {}));
  tensors.emplace_back("empty", Tensor::zeros({0, 3}));
  const std::map<std::string, std::string> metadata{{"config", "{\"a\": 1}"}, {"", "\xe6\x97\xa5"}};
  write_safetensors(folder / "t.safetensors", tensors, metadata);
  const Safetensors back = read_safetensors(folder / "t.safetensors");
  REQUIRE(back.metadata == metadata);
  REQUIRE(back.tensors.size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    REQUIRE(back.tensors[i].first == tensors[i].first);
    REQUIRE(same_elements(back.tensors[i].second, tensors[i].second));
  }
  REQUIRE(folder.files() == 1);
}

TEST_CASE("safetensors: foreign element types become the library's", "[io]") {
  Crafted file;
  const std::string header =
      R"({"h":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},"i":{"dtype":"I32","shape":[2],"data_offsets":[10,18]},)"
      R"("b":{"dtype":"BOOL","shape":[2],"data_offsets":[18,20]},"s":{"dtype":"I8","shape":[],"data_offsets":[20,21]},)"
      R"("u":{"dtype":"U16","shape":[1],"data_offsets":[21,23]}})";
  file.number<u64>(header.size()).add(header);
  for (const int half : {0x3c00, 0xc000, 0x0001, 0x7bff, 0xfc00})
    file.number(static_cast<std::uint16_t>(half));
  file.number<std::int32_t>(-7)
      .number<std::int32_t>(1 << 30)
      .number<u8>(0)
      .number<u8>(2)
      .number<u8>(0x80);
  file.number<std::uint16_t>(65535);
  const TensorMap t = parse_safetensors(file, "x").tensors;
  REQUIRE(find(t, "h")->dtype() == DType::f32);
  REQUIRE(find(t, "h")->to_vector<double>() ==
          std::vector<double>{1, -2, 0x1p-24, 65504, -std::numeric_limits<double>::infinity()});
  REQUIRE(find(t, "i")->to_vector<i64>() == std::vector<i64>{-7, 1 << 30});
  REQUIRE(find(t, "b")->dtype() == DType::uint8);
  REQUIRE(find(t, "b")->to_vector<int>() == std::vector<int>{0, 1});
  REQUIRE(find(t, "s")->item() == -128);
  REQUIRE(find(t, "u")->item() == 65535);
}

TEST_CASE("half_to_float: every value agrees with its definition", "[io]") {
  for (u32 bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10) & 31,
              mantissa = static_cast<int>(bits) & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    const float got = half_to_float(static_cast<std::uint16_t>(bits));
    if (exponent == 31 && mantissa != 0) {
      if (!std::isnan(got)) FAIL("bits " << bits);
      continue;
    }
    const double expected = exponent == 31  ? sign * std::numeric_limits<double>::infinity()
                            : exponent == 0 ? sign * std::ldexp(mantissa, -24)
                                            : sign * std::ldexp(1024 + mantissa, exponent - 25);
    if (got != expected || std::signbit(got) != std::signbit(expected))
      FAIL("bits " << bits << " gave " << got);
  }
}

TEST_CASE("safetensors: what is not right is refused, with the reason", "[io]") {
  REQUIRE(refusal(good, 24).empty());
  const auto tensor = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"a\":{\"dtype\":") + dtype + ",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}}";
  };
  CHECK_THAT(refusal(good, 23),
             Contains("\"a\": data_offsets must be two positions in the 23 bytes"));
  CHECK_THAT(refusal(good, 25), Contains("1 bytes after the last tensor"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[2,3]", "[4,28]"), 28), Contains("gap at byte 4"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[2,2]", "[0,24]"), 24),
             Contains("shape (2, 2) of F32 does not have 24 bytes"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[4294967296,4294967296]", "[0,24]"), 24), Contains("2^63"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[4611686018427387904]", "[0,0]"), 0),
             Contains("does not have 0 bytes"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[99999999999999999999]", "[0,24]"), 24),
             Contains("not whole"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[18446744073709551615]", "[0,24]"), 24),
             Contains("too large"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[-2,-3]", "[0,24]"), 24), Contains("negative"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[6.0]", "[0,24]"), 24), Contains("not whole"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[1,1,1,1,1,1,1,1,6]", "[0,24]"), 24),
             Contains("more than 8"));
  CHECK_THAT(refusal(tensor("\"F32\"", "6", "[0,24]"), 24), Contains("unexpected number"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[[6]]", "[0,24]"), 24), Contains("unexpected list"));
  CHECK_THAT(refusal(tensor("\"F32\"", "{}", "[0,24]"), 24), Contains("unexpected object"));
  CHECK_THAT(refusal(tensor("\"F32\"", "null", "[0,24]"), 24), Contains("unexpected null"));
  CHECK_THAT(refusal(tensor("\"F4\"", "[6]", "[0,24]"), 24), Contains("dtype \"F4\""));
  CHECK_THAT(refusal(tensor("7", "[6]", "[0,24]"), 24), Contains("unexpected number"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[6]", "[24,0]"), 24), Contains("data_offsets"));
  CHECK_THAT(refusal(tensor("\"F32\"", "[6]", "[24]"), 24), Contains("data_offsets"));
  CHECK_THAT(
      refusal(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          3),
      Contains("overlap at byte 1"));
  CHECK_THAT(
      refusal(
          R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
          0),
      Contains("occurs twice"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0),
             Contains("twice"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","shape":[0]}})", 0), Contains("lacks"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})", 0),
             Contains("unknown field"));
  CHECK_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), Contains("unexpected number"));
  CHECK_THAT(refusal(R"({"__metadata__":{"a":{}}})", 0), Contains("unexpected object"));
  CHECK_THAT(refusal(R"({"__metadata__":[]})", 0), Contains("unexpected list"));
  CHECK_THAT(refusal("{\"\xff\":1}", 0), Contains("UTF-8 near byte 3"));
  CHECK_THAT(refusal("{\"a\":", 0), Contains("not JSON"));
  CHECK_THAT(refusal("{} x", 0), Contains("not JSON"));
  CHECK_THAT(refusal("[]", 0), Contains("does not begin with {"));
  CHECK_THAT(refusal("", 0), Contains("does not begin with {"));
  CHECK_THAT(refusal("{\"a\":" + std::string(100000, '['), 0), Contains("unexpected list"));
  CHECK_THAT(error_of([] { parse_safetensors(Crafted("short"), "x"); }),
             Contains("not a safetensors file (5 bytes)"));
  CHECK_THAT(
      error_of([] { parse_safetensors(Crafted().number<u64>(u64{1} << 62).add("{}"), "x"); }),
      Contains("cut short"));
  REQUIRE(parse_safetensors(crafted("{}   ", 0), "x").tensors.empty());
}

TEST_CASE("safetensors: what cannot be written leaves the old file alone", "[io]") {
  const Folder folder;
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, {{"a", Tensor::ones({2})}});
  const Tensor t = Tensor::zeros({2});
  CHECK_THAT(error_of([&] {
               write_safetensors(path, {{"a", t}, {"a", t}});
             }),
             Contains("two tensors have the name \"a\""));
  CHECK_THAT(error_of([&] { write_safetensors(path, {{"a", Tensor()}}); }), Contains("undefined"));
  CHECK_THAT(error_of([&] { write_safetensors(path, {{"\xff", t}}); }), Contains("UTF-8"));
  CHECK_THAT(error_of([&] {
               write_safetensors(path, {{"__metadata__", t}});
             }),
             Contains("__metadata__"));
  CHECK_THAT(error_of([&] {
               write_safetensors(folder / "no/w", {{"a", t}});
             }),
             Contains("No such file"));
  REQUIRE(read_safetensors(path).tensors[0].second.to_vector<float>() == std::vector<float>{1, 1});
  REQUIRE(folder.files() == 1);
}

TEST_CASE(
    "safetensors: a file cut short is called that; a shape that overflows names file and tensor",
    "[io]") {
  CHECK_THAT(refusal(good, 23),
             Contains("the file is cut short, its tensors have 24 bytes; copy or download"));
  for (const char* shape : {"[9223372036854775807,9223372036854775807]", "[4294967296,4294967296]"})
    CHECK_THAT(
        refusal(str(R"({"a":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":[0,24]}})"), 24),
        Catch::Matchers::StartsWith("x.safetensors: tensor \"a\": shape (") && Contains("2^63"));
  CHECK_THAT(refusal(str(R"({")", std::string(300, '7'),
                         R"(":{"dtype":"F32","shape":[7],"data_offsets":[0,24]}})"),
                     24),
             Contains("... (300 bytes)"));
  Crafted file = crafted(R"({"n":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}})", 0);
  file.number(~u64{0});
  CHECK_THAT(
      error_of([&] { parse_safetensors(file, "x.safetensors"); }),
      Contains(
          "x.safetensors: tensor \"n\": a uint64 element, 18446744073709551615, does not fit"));
}

TEST_CASE("files: errors name the path and the reason; an uncommitted write leaves nothing",
          "[io]") {
  const Folder folder;
  CHECK_THAT(error_of([&] { read_file(folder / "absent"); }),
             Contains("absent: cannot be read (No such file"));
  CHECK_THAT(error_of([&] { read_file(folder / "."); }), Contains("not a regular file"));
  CHECK_THAT(error_of([] { read_file("/dev/zero"); }), Contains("not a regular file"));
  write_file(folder / "f", "old");
  {
    FileWriter half(folder / "f");
    half.write("new");
    REQUIRE(folder.files() == 2);
  }
  REQUIRE(folder.files() == 1);
  REQUIRE(read_file(folder / "f") == std::vector<u8>{'o', 'l', 'd'});
  write_file(folder / "f", "");
  REQUIRE(read_file(folder / "f").empty());
  std::filesystem::create_directory(folder / "d");
  CHECK_THAT(error_of([&] { write_file(folder / "d", "x"); }), Contains("d: cannot be replaced"));
  REQUIRE(folder.files() == 2);
  // A link is followed; a device is written to, not replaced.
  std::filesystem::create_symlink(folder / "f", folder / "link");
  write_file(folder / "link", "through");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(read_file(folder / "f").size() == 7);
  if (std::filesystem::exists("/dev/full")) {
    CHECK_THAT(error_of([] { write_file("/dev/full", "x"); }),
               Contains("/dev/full: cannot be written (No space left"));
    CHECK(std::filesystem::is_character_file("/dev/full"));
    write_file("/dev/null", "x");
  }
  // What a process of the same number left behind is in nobody's way, and stays.
  for (int i = 0; i < 40; ++i)
    std::ofstream(str(folder / "busy", ".tmp.", static_cast<i64>(::getpid()), ".", i)) << "left";
  write_file(folder / "busy", "new");
  CHECK(read_file(folder / "busy").size() == 3);
}
