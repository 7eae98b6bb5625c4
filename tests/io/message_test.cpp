// Every error of the readers and writers of files: the sources are read for the places that fail,
// and damaged files are made until the message of each has been seen. Each names its file, in one
// line that steers no terminal, and says what to do.

#include <algorithm>
#include <functional>
#include <set>

#include "../fuzz/coco_targets.hpp"
#include "help.hpp"
#include "ppma/io/coco.hpp"
#include "ppma/io/json_records.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/pth_save.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"

using namespace io_test;

namespace message_test {

// ---- the places that fail ----

struct Site {
  std::string place;                  // "zip.hpp:88"
  std::vector<std::string> literals;  // pieces of its message, all that tell it from others
};

// The text literals and the end of a call that begins behind its parenthesis; literals of the first
// argument, which is the condition of check() and require(), are left out.
std::vector<std::string> literals_of(const std::string& s, std::size_t at, bool condition) {
  std::vector<std::string> all;
  int depth = 1;
  bool joined = false;  // the literal goes on
  for (; at < s.size() && depth > 0; ++at) {
    const char c = s[at];
    if (c == '\'') {
      at += s[at + 1] == '\\' ? 3u : 2u;
    } else if (c == '"') {
      std::string text;
      for (++at; s[at] != '"'; ++at) {
        if (s[at] == '\\') ++at;
        text += s[at] == 'n' && s[at - 1] == '\\' ? '\n' : s[at];
      }
      if (!condition && joined)
        all.back() += text;
      else if (!condition)
        all.push_back(text);
      joined = true;
      continue;
    } else if (std::strchr("([{", c) != nullptr) {
      ++depth;
    } else if (std::strchr(")]}", c) != nullptr) {
      --depth;
    } else if (c == ',' && depth == 1) {
      condition = false;
    }
    if (std::strchr(" \n", c) == nullptr) joined = false;
  }
  return all;
}

std::vector<Site> sites_of(const std::string& file) {
  const std::vector<u8> bytes =
      read_file(std::string(PPMA_TEST_SOURCE_DIR) + "/include/ppma/io/" + file);
  std::string s(bytes.begin(), bytes.end());
  std::vector<Site> sites;
  for (std::size_t i = 0; i + 1 < s.size(); ++i)  // comments away
    if (s[i] == '/' && s[i + 1] == '/' && (i == 0 || s[i - 1] != ':'))
      for (; s[i] != '\n'; ++i) s[i] = ' ';
  for (const char* call : {"check(", "fail(", "require("}) {
    const std::string word = call;
    for (std::size_t at = s.find(word); at != std::string::npos; at = s.find(word, at + 1)) {
      if (at > 0 && (std::isalnum(static_cast<u8>(s[at - 1])) != 0 || s[at - 1] == '_')) continue;
      Site site{
          file + ":" +
              std::to_string(
                  std::count(s.begin(), s.begin() + static_cast<std::ptrdiff_t>(at), '\n') + 1),
          {}};
      for (const std::string& l : literals_of(s, at + word.size(), word != "fail("))
        if (l.size() >= 6 && !l.starts_with("; ") && l.find("x\\") == std::string::npos)
          site.literals.push_back(l);
      if (!site.literals.empty()) sites.push_back(site);
    }
  }
  return sites;
}

// ---- damaged files ----

// Messages that were seen, and those that are not as they should be.
class Seen {
 public:
  // Runs f, whose errors must name `name`.
  template <class F>
  void run(const std::string& name, F f) {
    try {
      f();
    } catch (const Error& e) {
      const std::string m = e.what();
      if (!messages_.insert(m).second) return;
      const bool steers = std::any_of(
          m.begin(), m.end(), [](char c) { return static_cast<u8>(c) < 0x20 || c == 0x7f; });
      std::string bad;
      if (m.find(name) == std::string::npos)
        bad = "does not name its file";
      else if (steers || !is_utf8(std::string_view(m)))
        bad = "has control characters or is not UTF-8";
      else if (m.size() > name.size() + 900)
        bad = "is too long";
      if (!bad.empty() && shown_.insert(bad + m.substr(0, 20)).second)
        FAIL_CHECK(bad << ": " << printable(m, 400));
    }
  }
  bool has(const Site& site) const {
    return std::any_of(messages_.begin(), messages_.end(), [&](const std::string& m) {
      return std::any_of(site.literals.begin(), site.literals.end(),
                         [&](const std::string& l) { return m.find(l) != std::string::npos; });
    });
  }
  // Whether each message with this piece in it says what to do.
  void all_say_what_to_do() const {
    for (const std::string& m : messages_)
      if (m.find(';') == std::string::npos && m.find("must") == std::string::npos &&
          m.find(": fetch") == std::string::npos)
        FAIL_CHECK("no remedy: " << printable(m, 400));
  }

 private:
  std::set<std::string> messages_, shown_;
};

// What the readers of bytes in memory are told; strange, so that it is not in a message by chance.
const char* const name = "wrong.file";

std::string words(const std::string& s) {
  const Crafted c = Crafted().add("X").number(static_cast<u32>(s.size())).add(s);
  return {c.begin(), c.end()};
}

// A pickle's tensor: its function, storage and the rest, each as operations.
std::string made(const std::string& function, const std::string& id, const std::string& rest) {
  return "ctorch._utils\n_rebuild_tensor" + function + "\n(" + id + rest + "tR";
}
std::string storage(const std::string& type = "FloatStorage", const std::string& key = "0",
                    const std::string& count = "K\x06") {
  return "(" + words("storage") + "ctorch\n" + type + "\n" + words(key) + words("cpu") + count +
         "tQ";
}

std::vector<u8> archive_of(const Folder& folder, const std::string& ops,
                           const std::vector<std::pair<std::string, std::string>>& more = {}) {
  const std::vector<u8> values(24, 255);
  ZipWriter zip(folder / "made.pth");
  zip.add("a/data.pkl", "\x80\x02" + ops);
  zip.add("a/data/0", Bytes(values));
  for (const auto& [entry, contents] : more) zip.add(entry, contents);
  zip.commit();
  return read_file(folder / "made.pth");
}

// One to three bytes or numbers changed, a piece put elsewhere, or cut short.
std::vector<u8> harmed(std::vector<u8> file, Rng& rng) {
  const auto below = [&](std::size_t n) {
    return static_cast<std::size_t>(rng.uniform(0, static_cast<double>(n)));
  };
  static constexpr u32 numbers[] = {0, 1, 2, 0x20, 0x40, 0xff, 0xffff, 0x7fffffff, 0xffffffff};
  for (std::size_t n = 1 + below(3); n > 0 && file.size() > 8; --n) {
    const std::size_t at = below(file.size() - 4);
    switch (below(5)) {
      case 0:
        file[at] = static_cast<u8>(below(256));
        break;
      case 1:
        file[at] = static_cast<u8>(file[at] ^ (1u << below(8)));
        break;
      case 2:
        std::memcpy(&file[at], &numbers[below(std::size(numbers))], 1 + below(4));
        break;
      case 3:
        std::memmove(&file[at], &file[below(file.size() - 4)], 1 + below(4));
        break;
      default:
        if (below(8) == 0) file.resize(at);
    }
  }
  return file;
}

void read_pickle(Seen& seen, const std::string& ops) {
  seen.run(name, [&] {
    const Crafted bytes = Crafted().add("\x80\x02").add(ops);
    parse_pickle(bytes, name).item(0).integer();
  });
}

void read_weights(Seen& seen, const Folder& folder, const std::vector<u8>& bytes,
                  const WeightOptions& options = {}) {
  seen.run(name, [&] {
    weights_of_file((write_file(folder / name, Bytes(bytes)), folder / name), options);
  });
  seen.run(name, [&] {
    ppma::detail::weights_of_pth(PthFile(fuzz::without_checksums(bytes), name), options);
  });
}

void pickles_and_archives(Seen& seen, const Folder& folder) {
  const auto le = [](u64 n) {
    const Crafted c = Crafted().number(n);
    return std::string(c.begin(), c.end());
  };
  for (const std::string& ops :
       std::initializer_list<std::string>{"",
                                          "K",
                                          "N.N",
                                          "\x80\x09N.",
                                          "\x95" + le(99) + "N.",
                                          "\x95" + le(12) + "N\x95" + le(1) + "N.",
                                          "\x95" + le(3) + "J\1\2\3\4.",
                                          "X\2" + std::string(3, '\0') + "\xc0\x80.",
                                          ".",
                                          "t.",
                                          std::string(999, ']') + ".",
                                          "\x86.",
                                          "h\x05.",
                                          "Nr\xff\xff\xff\xff.",
                                          "NNa.",
                                          "NNNs.",
                                          "(Nd.",
                                          "I1\n.",
                                          "NN\x93.",
                                          "ccollections\nOrderedDict\n]Na\x85R.",
                                          "ccollections\nOrderedDict\nN\x85R.",
                                          "ccollections\nCounter\nN\x85R.",
                                          "ctorch\nSize\nN\x85R.",
                                          "N)R.",
                                          "}]Ns.",
                                          "}]\x85Ns.",
                                          "}}b.",
                                          "].",
                                          "K\1.",
                                          "NQ.",
                                          "]N"
                                          "a."})
    read_pickle(seen, ops);
  std::string pairs = "](";
  for (int i = 0; i < 1000; ++i) pairs += "NN\x86";
  pairs += "eq\x01";
  for (int i = 0; i < 1000; ++i) pairs += "ccollections\nOrderedDict\nh\x01\x85R";
  read_pickle(seen, pairs + ".");
  seen.run(name, [&] { parse_pickle(Crafted("\x80\x02}."), name).key(0); });

  const std::string two = "(K\x02K\x03t", steps = "(K\x03K\x01t", end = "\x89}", six = "K\x06";
  const auto with = [&](const std::string& tensor) { return "}" + words("w") + tensor + "s."; };
  for (const std::string& ops : std::initializer_list<std::string>{
           "N.",
           "].",
           "cm\nC\n)R.",
           "}.",
           "}K\x01Ns.",
           "}" + words("model") + "cm\nC\n)Rs.",
           "}" + words("state_dict") + "cm\nC\n)Rs.",
           "}K\x07" + made("_v2", storage(), std::string("K\0", 2) + two + steps + end) + "s.",
           with(
               made("_v2", storage(), std::string("K\0", 2) + two + steps)),  // an argument too few
           with(made("_v2", "N", std::string("K\0", 2) + two + steps + end)),     // no storage
           with(made("_v2", "(NtQ", std::string("K\0", 2) + two + steps + end)),  // an odd one
           with(made("_v2", storage("FloatStorage", "7"),
                     std::string("K\0", 2) + two + steps + end)),
           with(made("_v2", storage("FloatStorage", "0", "K\x63"),
                     std::string("K\0", 2) + two + steps + end)),
           with(made("_v2", storage("FloatStorage", "0", "N"),
                     std::string("K\0", 2) + two + steps + end)),
           with(made("_v2", storage("ComplexFloatStorage"),
                     std::string("K\0", 2) + two + steps + end)),
           with(made("_v2", storage(), "N" + two + steps + end)),
           with(made("_v2", storage(), std::string("K\0", 2) + two + "N" + end)),
           with(made("_v2", storage(), "K\x05" + two + steps + end)),
           with(made("_v2", storage(),
                     std::string("K\0", 2) + "(J\xff\xff\xff\xffK\x03t" + steps + end)),
           with(made(
               "_v2", storage(),
               std::string("K\0", 2) + "(\x8a\x08" + le(u64{1} << 62) + "K\x03t" + steps + end)),
           with(made("_v2", storage(),
                     std::string("K\0", 2) + "(\x8a\x08" + le(u64{1} << 62) + "t(K" +
                         std::string(1, '\0') + "t" + end)),
           with(made("_v2", storage(),
                     std::string("K\0", 2) + "(J" + std::string("\0\0\0\x40t(K\0t", 10) + end)),
           with(made("_v3", storage("UntypedStorage", "0", "K\x18"),
                     std::string("K\0", 2) + two + steps + end + "N")),
           with(made("_v3", storage("UntypedStorage", "0", "K\x18"),
                     std::string("K\0", 2) + "(K\x03t(K\x01t" + end + "ctorch\nuint64\n")),
           with("ctorch._utils\n_rebuild_qtensor\n)R"),
           with(made("_v2", storage(),
                     std::string("K\0", 2) + two + steps + end + "}" + words("neg") + "\x88s"))})
    read_weights(seen, folder, archive_of(folder, ops));
  seen.run(name, [&] {
    const PthFile file(archive_of(folder, "N."), name);
    file.tensor(file.root());
  });
  seen.run(name, [&] {
    const PthFile file(archive_of(folder, "ctorch._utils\n_rebuild_qtensor\n)R."), name);
    file.tensor(file.root());
  });
  const std::vector<u8> plain =
      archive_of(folder, with(made("_v2", storage(), std::string("K\0", 2) + two + steps + end)));
  read_weights(seen, folder, plain, {.entry = "best", .strip = {}});
  read_weights(seen, folder, plain, {.entry = "w", .strip = {}});
  // One storage of 64 KiB in very many tensors.
  std::string many = "}(" + words("w") +
                     made("_v2", storage("ByteStorage", "1", std::string("J\0\0\1\0", 5)),
                          std::string("K\0", 2) + "(J" + std::string("\0\0\1\0t(K\1t", 9) + end) +
                     "q\x01";
  for (int i = 0; i < 600; ++i) many += words(std::to_string(i)) + "h\x01";
  read_weights(seen, folder,
               archive_of(folder, many + "u.", {{"a/data/1", std::string(1 << 16, 'x')}}));
  using Entries = std::vector<std::pair<std::string, std::string>>;
  for (const Entries& more :
       {Entries{{"b/data.pkl", "\x80\x02N."}}, Entries{{"a/data.pkl", "N"}},
        Entries{{"a/byteorder", "big"}}, Entries{{"a/version", "77\n"}},
        Entries{{"a/constants.pkl", "N"}}, Entries{{"a/.data/extern_modules", ""}},
        Entries{{"a/archive_format", "pt2"}}, Entries{{"a/extra/metadata.json", "[]"}},
        Entries{{"a/extra/metadata.json", "{\"a\": 1}"}}})
    read_weights(seen, folder, archive_of(folder, "}.", more));
  for (const char* inside : {"a.npy", "model.weights.h5", "x/best.pth", "readme"}) {
    ZipWriter zip(folder / "made.zip");
    zip.add(inside, "N");
    zip.commit();
    read_weights(seen, folder, read_file(folder / "made.zip"));
  }
  std::vector<u8> gap = plain;  // two entries at one place
  const u32 directory = ppma::detail::load<u32>(gap.data() + gap.size() - 6);
  const u32 first = ppma::detail::load<u32>(gap.data() + directory + 28) & 0xffff;
  std::memcpy(gap.data() + directory + 46 + first + 42, gap.data() + directory + 42, 4);
  read_weights(seen, folder, gap);
  for (const std::string& bytes :
       {std::string(), std::string("PK\3\4"), std::string("PK\3\4") + std::string(40, 'x'),
        std::string("hello there"),
        std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15),
        std::string("\1\2\3\4\5\6\7\b\t\x0e", 10)})
    read_weights(seen, folder, {bytes.begin(), bytes.end()});

  seen.run(name, [&] { parse_zip({}, name); });
  for (const u32 extra :
       {0x00630001u,
        0x00020001u}) {  // an extra field longer than there is room; one too short for zip64
    std::vector<u8> bytes = plain;
    const u8* entry = bytes.data() + directory;
    const std::size_t length = ppma::detail::load<std::uint16_t>(entry + 28);
    const u32 wide = 0xffffffff;
    std::memcpy(bytes.data() + directory + 24, &wide, 4);
    bytes[directory + 30] = 6;
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(directory + 46 + length), 6, 0);
    std::memcpy(bytes.data() + directory + 46 + length, &extra, 4);
    bytes[bytes.size() - 10] =
        static_cast<u8>(bytes[bytes.size() - 10] + 6);  // the directory's size
    seen.run(name, [&] { parse_zip(bytes, name); });
  }

  Rng rng(3);
  for (const char* file : {"torch215_ddp", "torch113_ddp", "torch215_nocrc"})
    for (int i = 0; i < 1200; ++i) {
      const std::vector<u8> bytes =
          harmed(read_file(reference("pth/" + std::string(file) + ".pth")), rng);
      seen.run(name, [&] { ppma::detail::weights_of_pth(PthFile(bytes, name), {}); });
      seen.run(name, [&] {
        ppma::detail::weights_of_pth(PthFile(fuzz::without_checksums(bytes), name), {});
      });
    }
  // Of the directory alone: a change there is rare in the whole file.
  for (int i = 0; i < 4000; ++i) {
    std::vector<u8> bytes = plain, tail(plain.begin() + directory, plain.end());
    tail = harmed(std::move(tail), rng);
    bytes.resize(directory);
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    seen.run(name, [&] { PthFile(bytes, name); });
  }
}

void safetensors_files(Seen& seen, const Folder& folder) {
  const auto read = [&](const std::string& header, std::size_t data) {
    Crafted file;
    file.number<u64>(header.size()).add(header).insert(file.end(), data, 255);
    seen.run(name, [&] { parse_safetensors(file, name); });
  };
  const auto one = [&](const std::string& fields, std::size_t data = 24) {
    read("{\"a\":{" + fields + "}}", data);
  };
  one(R"("dtype":"F32","shape":[6],"data_offsets":[0,24])", 20);
  one(R"("dtype":"F32","shape":[6],"data_offsets":[0,24])", 25);
  one(R"("dtype":"F32","shape":[7],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[6],"data_offsets":[24,0])");
  one(R"("dtype":"F8_E5M2","shape":[6],"data_offsets":[0,24])");
  one(R"("dtype":"U64","shape":[3],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[-6],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[6.5],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":null,"data_offsets":[0,24])");
  one(R"("dtype":"F32","shape":7,"data_offsets":[0,24])");
  one(R"("dtype":[],"shape":7)"), one(R"("dtype":{})"), one(R"("shape":"6")"), one(R"("x":1)");
  one(R"("dtype":"F32","dtype":"F32")"), one(R"("dtype":"F32")"), one(R"("dtype":true)"),
      one(R"("dtype":"F32)");
  read(R"({"a":{},"a":{}})", 0), read(R"({"__metadata__":{"a":"1","a":"2"}})", 0), read(R"([])", 0),
      read("{} x", 0);
  read(
      R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
      1);
  read(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2);
  for (const std::string& bytes : {std::string(), std::string("abc"), std::string(8, '\xff') + "{}",
                                   std::string("\x1f\x8b\1\1\1\1\1\1\1")})
    seen.run(name, [&] { parse_safetensors(Crafted(bytes.c_str()), name); });
  const std::string path = folder / name;
  const Tensor t = Tensor::zeros({1});
  for (const TensorMap& tensors : {TensorMap{{"a", t}, {"a", t}}, TensorMap{{"a", Tensor()}},
                                   TensorMap{{"\xff", t}}, TensorMap{{"__metadata__", t}}}) {
    seen.run(name, [&] { write_safetensors(path, tensors); });
    seen.run(name, [&] { save_pth(path, tensors); });
  }
  seen.run(name, [&] { save_pth(path, {{"a", t}}, "", {{"b", "\xff"}}); });
  seen.run(name, [&] { save_weights(path, {{"a", t}}); });
  seen.run("w.safetensors", [&] {
    save_weights(folder / "w.safetensors", {{"a", t}}, {}, "model");
  });
  write_safetensors(path, {{"a", t}, {"module.a", t}});
  seen.run(name, [&] { weights_of_file(path); });
  seen.run(name, [&] { weights_of_file(path, {.entry = "best", .strip = {}}); });
}

void paths(Seen& seen, const Folder& folder) {
  std::filesystem::create_directory(folder / "sub");
  for (const std::string& path : {folder / "absent", folder / "sub", std::string("/dev/zero")}) {
    seen.run(path, [&] { read_file(path); });
    seen.run(path, [&] { read_coco(path); });
  }
  for (const std::string& path : {folder / "sub", folder / "no/file", std::string("/dev/full")})
    seen.run(path, [&] { write_file(path, "x"); });
  if (std::filesystem::exists("/dev/full"))
    seen.run("/dev/full", [&] {
      FileWriter file("/dev/full");
      file.write(std::string(1 << 20, 'x'));
    });
  seen.run("gone", [&] {
    FileWriter file(folder / "sub/gone");
    std::filesystem::remove_all(folder / "sub");
    file.commit();
  });
}

void json(Seen& seen) {
  const auto read = [&](const std::string& text) {
    const Bytes bytes(reinterpret_cast<const u8*>(text.data()), text.size());
    seen.run(name, [&] { parse_coco(bytes, name); });
    seen.run(name, [&] { parse_coco_results(bytes, name); });
  };
  const std::string images =
      R"({"images":[{"id":1,"height":4,"width":4}],"categories":[{"id":1,"name":"x"}],"annotations":[)";
  const std::string box = R"("id":1,"image_id":1,"category_id":1,"bbox":[0,0,1,1])",
                    result = R"("image_id":1,"category_id":1,"score":0.5,)";
  for (
      const std::string& text : std::initializer_list<std::string>{
          "",
          "{",
          "[",
          "7",
          "{}",
          "[7]",
          "[[]]",
          R"({"images":{}})",
          R"({"images":7})",
          R"({"images":[],"images":[]})",
          R"({"images":["\)",
          R"({"images":[7]})",
          R"({"images":[{"id":1},{"id":1}],"categories":[],"annotations":[]})",
          R"({"images":[{"id":"x"}]})",
          R"({"images":[{"id":1,"height":-4,"width":4}]})",
          "[{" + std::string(40, '[') + "}]",
          R"([{"a":)" + std::string(40, '[') + "]",
          R"([{"a":1)" + std::string(400, '7') + "e999}]",
          images + "{" + box + "},{" + box + "}]}",
          images + R"({"id":1,"image_id":9,"category_id":1,"bbox":[0,0,1,1]}]})",
          images + R"({"id":1,"image_id":1,"category_id":9,"bbox":[0,0,1,1]}]})",
          images + R"({"id":1,"image_id":1,"category_id":1,"bbox":[0,0,1]}]})",
          images + R"({"id":1,"image_id":1,"category_id":1,"bbox":[0,0,-1,1]}]})",
          images + R"({"id":1,"image_id":1,"category_id":1,"bbox":7}]})",
          images + R"({"id":1,"image_id":1,"category_id":1,"bbox":[0,0,"x",1]}]})",
          images + R"({"id":1,"image_id":1,"category_id":1}]})",
          images + "{" + box + R"(,"segmentation":[[1,2]]}]})",
          images + "{" + box + R"(,"segmentation":"x"}]})",
          images + "{" + box + R"(,"segmentation":{"size":[0,4],"counts":[]}}]})",
          images + "{" + box + R"(,"segmentation":{"size":[4,4],"counts":[-1]}}]})",
          images + "{" + box + R"(,"segmentation":{"size":[4,4],"counts":[1]}}]})",
          images + "{" + box + R"(,"segmentation":{"size":[4,4],"counts":"\u0001"}}]})",
          images + "{" + box + R"(,"segmentation":{"size":[4,4],"counts":"o"}}]})",
          "[{" + result +
              R"("bbox":[0,0,1,"x"]}]", "[{" + result + R"("x":1}]", R"([{"image_id":1.5,"category_id":1,"score":1,"bbox":[0,0,1,1]}])",
          R"([{"image_id":1,"category_id":1,"score":"x","bbox":[0,0,1,1]}])",
          R"({"images":[{"id":1,"file_name":7,"height":4,"width":4}]})",
          R"({"images":[],"annotations":[],"categories":[{"id":1,"name":7}]})"})
    read(text);
}

void images(Seen& seen) {
  Rng rng(4);
  for (const char* file :
       {"rgb.ppm", "grey.pgm", "rgb.png", "palette.png", "grey16.png", "bits.png", "alpha.png",
        "rgb.jpg", "progressive.jpg", "rgb.bmp", "grey.bmp"}) {
    const std::vector<u8> whole = read_file(reference("images/" + std::string(file)));
    for (int i = 0; i < 200; ++i) {
      std::vector<u8> bytes = whole;
      if (i % 2 == 0) {  // of the header alone
        std::vector<u8> head(bytes.begin(),
                             bytes.begin() + std::min<std::ptrdiff_t>(60, std::ssize(bytes)));
        head = harmed(std::move(head), rng);
        bytes.erase(bytes.begin(), bytes.begin() + std::min<std::ptrdiff_t>(60, std::ssize(bytes)));
        bytes.insert(bytes.begin(), head.begin(), head.end());
      } else {
        bytes = harmed(std::move(bytes), rng);
      }
      seen.run(name, [&] { decode_image(bytes, name); });
      seen.run(name, [&] { decode_label_map(bytes, name); });
    }
    for (std::size_t n = 0; n < std::min<std::size_t>(whole.size(), 200); ++n)
      seen.run(name, [&] { decode_image(Bytes(whole).first(n), name); });
  }
}

// Images as no mutation makes them.
void made_images(Seen& seen, const Folder& folder) {
  const auto read = [&](const std::vector<u8>& bytes) {
    seen.run(name, [&] { decode_image(bytes, name); });
  };
  const auto chunk = [](const std::string& type, const std::string& data) {
    const std::string named = type + data;
    const auto big = [](u32 n) {
      return std::string{static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                         static_cast<char>(n >> 8), static_cast<char>(n)};
    };
    return big(static_cast<u32>(data.size())) + named +
           big(crc32(Bytes(reinterpret_cast<const u8*>(named.data()), named.size())));
  };
  const auto png = [&](int bits, int colour, const std::string& rest) {
    std::string head("\0\0\0\2\0\0\0\2", 8);
    (head += static_cast<char>(bits)) += static_cast<char>(colour);
    const std::string all = "\x89PNG\r\n\x1a\n" + chunk("IHDR", head + std::string(3, '\0')) + rest;
    return std::vector<u8>(all.begin(), all.end());
  };
  const std::string end = chunk("IEND", ""), garbage = chunk("IDAT", std::string(40, '\x11'));
  read(png(8, 2, end)), read(png(8, 3, garbage + end)), read(png(8, 2, garbage + end));
  seen.run(name, [&] { decode_label_map(png(16, 0, garbage + end), name); });
  std::vector<u8> iphone = png(8, 2, garbage + end);
  std::memcpy(&iphone[12], "CgBI", 4);
  read(iphone);
  const std::vector<u8> jpeg = read_file(reference("images/rgb.jpg"));
  std::size_t sof = 0;
  while (jpeg[sof] != 0xff || jpeg[sof + 1] != 0xc0) ++sof;
  for (const auto& [at, value] : std::initializer_list<std::pair<std::size_t, int>>{{1, 0xc9},
                                                                                    {1, 0xc3},
                                                                                    {1, 0xc5},
                                                                                    {9, 90},
                                                                                    {4, 12},
                                                                                    {9, 2},
                                                                                    {11, 0x42},
                                                                                    {14, 0x41},
                                                                                    {11, 0x13},
                                                                                    {14, 0x22},
                                                                                    {17, 0x44}}) {
    std::vector<u8> bytes = jpeg;
    bytes[sof + at] = static_cast<u8>(value);
    read(bytes);
  }
  std::vector<u8> again = jpeg;  // a second header, of another height
  std::vector<u8> head(jpeg.begin() + static_cast<std::ptrdiff_t>(sof),
                       jpeg.begin() + static_cast<std::ptrdiff_t>(sof) + 19);
  head[6] = static_cast<u8>(head[6] + 1);
  again.insert(again.begin() + static_cast<std::ptrdiff_t>(sof) + 19, head.begin(), head.end());
  read(again);
  std::vector<u8> bmp = read_file(reference("images/rgb.bmp"));
  bmp[30] = 3, bmp[28] = 32, bmp[14] = 40;
  bmp[54] = 5;  // bits with a gap between them
  read(bmp);
  bmp.resize(60);
  read(bmp);
  const std::string dark = "P2 1 1 65535 9 ";
  read({dark.begin(), dark.end()});
  const std::string lfs = "version https://git-lfs.github.com/spec/v1\n";
  read({lfs.begin(), lfs.end()});
  CocoResult result;
  result.score = std::nan("");
  seen.run(name, [&] { write_coco_results(folder / name, {result}); });
  result.score = 1, result.mask.polygons = {{0, 0, 1, 0, 1, 1}};
  seen.run(name, [&] { write_coco_results(folder / name, {result}); });
}

TEST_CASE("messages: every place in io/ that fails has been seen, and names its file", "[io]") {
  const Folder folder;
  Seen weights, others, pictures;
  pickles_and_archives(weights, folder);
  safetensors_files(weights, folder);
  paths(weights, folder);
  weights.all_say_what_to_do();
  json(others);
  std::vector<const char*> sources = {"zip.hpp",         "pickle.hpp",      "pickle_value.hpp",
                                      "pth.hpp",         "pth_refused.hpp", "pth_save.hpp",
                                      "safetensors.hpp", "checkpoint.hpp",  "element.hpp",
                                      "file.hpp",        "json_records.hpp"};
#if PPMA_STB
  images(pictures), made_images(pictures, folder);
  pictures.all_say_what_to_do();
  sources.insert(sources.end(), {"coco.hpp", "label_map.hpp", "image.hpp", "image_size.hpp",
                                 "bmp.hpp", "pnm.hpp", "png.hpp", "jpeg.hpp"});
#endif

  // What no file of a test's size reaches, or that only the machine can cause.
  const std::set<std::string> beyond = {
      "bytes, more than 64 MiB",  // a pickle
      ": too large for this writer (4 GiB, 65534 entries); write .safetensors instead",
      "bytes could be read (",  // the file shrank meanwhile
      "mask: of ",              // of a mask in memory, not of a file
      ": the image could not be encoded",
      ": no memory for a JPEG",
      " bytes is not read",  // an image file of 2 GiB
      ": damaged JPEG: two headers",
      ": damaged JPEG: its subsampling",                // stb_image sees both first
      ": this program was compiled without stb_image",  // another program
  };
  std::size_t sites = 0;
  for (const char* file : sources)
    for (const Site& site : sites_of(file)) {
      ++sites;
      const bool known =
          std::any_of(site.literals.begin(), site.literals.end(), [&](const std::string& l) {
            return std::any_of(beyond.begin(), beyond.end(), [&](const std::string& b) {
              return l.find(b) != l.npos || b.find(l) != b.npos;
            });
          });
      if (known || weights.has(site) || others.has(site) || pictures.has(site)) continue;
      FAIL_CHECK("never seen: " << site.place << ": " << site.literals.front());
    }
  CHECK(sites > 80);
}

}  // namespace message_test
