// Tar archives of several programs, WebDataset's shards in them, and names that stand for several
// files.

#include "ppma/io/tar.hpp"

#include <filesystem>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/tar_shards.hpp"
#include "ppma/io/path_pattern.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;
using io_test::put;
using io_test::reference;

namespace tar_test {

namespace {

Bytes bytes(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

// A file in an archive, as ustar has it; `size` is what its header says.
std::string file(const std::string& name, const std::string& contents, char type = '0',
                 std::string size = "") {
  std::string h(512, '\0');
  const auto set = [&h](std::size_t at, const std::string& text) {
    h.replace(at, text.size(), text);
  };
  char octal[16];
  std::snprintf(octal, sizeof octal, "%011o", static_cast<unsigned>(contents.size()));
  set(0, name), set(124, size.empty() ? octal : size), h[156] = type, set(257, "ustar");
  set(263, "00"), set(148, "        ");
  unsigned sum = 0;
  for (const char c : h) sum += static_cast<u8>(c);
  std::snprintf(octal, sizeof octal, "%06o", sum);
  set(148, octal), h[154] = '\0';
  std::string padded = contents;
  padded.resize((contents.size() + 511) / 512 * 512);
  return h + padded;
}
const std::string end(1024, '\0');

std::vector<TarEntry> entries(const std::string& archive) {
  return parse_tar(bytes(archive), "f.tar");
}
std::string picture(char level) { return std::string("P5 1 1 255\n") + level; }

}  // namespace

TEST_CASE("tar: archives of Python's tarfile and of GNU tar, in each of their formats") {
  for (const std::string kind : {"ustar", "gnu", "pax", "tar_v7", "tar_oldgnu", "tar_posix"}) {
    INFO(kind);
    const std::string path = reference("tar/" + kind + ".tar");
    const std::vector<u8> archive = read_file(path);
    const std::vector<TarEntry> all = read_tar(path), same = parse_tar(archive, path);
    std::map<std::string, std::string> found;
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK((all[i].name == same[i].name && all[i].begin == same[i].begin));
      const std::vector<u8> part = read_part(path, all[i].begin, all[i].bytes);
      found[all[i].name] = std::string(part.begin(), part.end());
    }
    CHECK(found.size() == (kind == "tar_v7" ? 3 : 4));
    CHECK(found["a/b.txt"] == "one");
    CHECK(found["empty"].empty());
    CHECK(found["caf\xc3\xa9 .jpg"].size() == 512);
    CHECK(found["caf\xc3\xa9 .jpg"][300] == ',');
    if (kind != "tar_v7")
      CHECK(found["deep/" + std::string(130, 'x') + "/" + std::string(91, 'y') + ".z"] == "long");
    // Cut anywhere it is an error, but for the second of the two blocks at the end.
    for (std::size_t size = 0; size < archive.size() - 512; size += 256)
      CHECK(says([&] { parse_tar(Bytes(archive).first(size), "cut"); }, "cut short"));
  }
}

TEST_CASE("tar: sizes in binary and in pax headers, and what is refused") {
  const std::string binary = std::string("\x80\0\0\0\0\0\0\0\0\0\0\3", 12);
  CHECK(entries(file("a", "xyz", '0', binary) + file("b", "") + end)[0].bytes == 3);
  // The header of the file says 0, its pax header 3.
  const auto all = entries(file("p", "9 size=3\n", 'x') + file("a", "xyz", '0', "00000000000") +
                           file("b", "cd") + end);
  REQUIRE(all.size() == 2);
  CHECK((all[0].bytes == 3 && all[1].name == "b" && all[1].bytes == 2));
  CHECK(entries(file("g", "15 path=global\n", 'g') + file("a", "x") + end)[0].name == "a");

  CHECK(says([] { entries(file("a", "x")); }, "f.tar: cut short: a tar archive without its end"));
  CHECK(says([] { entries(file("a", "x", '0', "00000077777") + end); },
             "byte 0: cut short: a file of 32767 bytes"));
  CHECK(
      says([] { entries(file("a", "x", '0', "0000000000x") + end); }, "byte 0: a size that is no"));
  CHECK(says(
      [] {
        entries(file("a", "x", '0',
                     std::string("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12)) +
                end);
      },
      "byte 0: a size that is too large"));
  std::string damaged = file("a", "x") + file("b", "y") + end;
  damaged[1024] = 'c';
  CHECK(says([&] { entries(damaged); }, "byte 1024: a header with a wrong checksum"));
  CHECK(says([] { entries(file("l", "", '2') + end); }, "l is a link; archive files themselves"));
  CHECK(says([] { entries(file("s", "", 'S') + end); }, "s is a sparse file"));
  CHECK(says([] { entries(file("d", "", '3') + end); }, "d is no plain file"));
  CHECK(says([] { entries(file("p", "9 size=x\n", 'x') + end); }, "a pax size that is no number"));
  CHECK(says([] { entries(file("p", "99 size=3\n", 'x') + end); }, "a damaged pax header"));
  CHECK(says([] { entries(file("p", "25 GNU.sparse.major=1234\n", 'x') + end); }, "a sparse file"));
  CHECK(says([] { entries(file("", "x") + end); }, "a file without a name"));
  CHECK(
      says([] { entries("\x1f\x8b and so on"); }, "packed by gzip; files are read where they lie"));
  CHECK(says([] { entries("BZh91"); }, "packed by bzip2"));
  CHECK(says([] { entries(std::string(600, 'x')); }, "damaged, or no tar archive"));
}

TEST_CASE("braces and wildcards stand for names as in a shell") {
  using Names = std::vector<std::string>;
  CHECK(expand_braces("a") == Names{"a"});
  CHECK(expand_braces("a{b,c}d") == Names{"abd", "acd"});
  CHECK(expand_braces("{a,b}-{08..10}") == Names{"a-08", "a-09", "a-10", "b-08", "b-09", "b-10"});
  CHECK(expand_braces("{3..1}") == Names{"3", "2", "1"});
  CHECK(expand_braces("x{a,b{1,2},}") == Names{"xa", "xb1", "xb2", "x"});
  for (const char* kept : {"{a}", "{}", "{a", "a}", "{1..b}", "{a..c}"})
    CHECK(expand_braces(kept) == Names{kept});
  CHECK(says([] { expand_braces("{0..9999999}"); }, "more than a million names"));
  CHECK(says([] { expand_braces("{0..9999}{0..9999}"); }, "more than a million names"));

  struct Match {
    const char *name, *pattern;
    bool fits;
  };
  for (const Match& m : std::initializer_list<Match>{
           {"abc", "abc", true},
           {"abc", "a*", true},
           {"abc", "*c", true},
           {"abc", "*b", false},
           {"aXbXc", "a*X*c", true},
           {"abc", "a?c", true},
           {"ac", "a?c", false},
           {"a1", "a[0-9]", true},
           {"ax", "a[!0-9]", true},
           {"a1", "a[^0-9]", false},
           {"a]", "a[]]", true},
           {"a-", "a[x-]", true},
           {"a[b", "a[b", true},
           {"a*", "a\\*", true},
           {"ab", "a\\*", false},
           {".a", "*", false},
           {".a", ".*", true},
           {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "*a*a*a*a*a*a*a*a*a*a*a*c", false}}) {
    INFO(m.name << " " << m.pattern);
    CHECK(matches_wildcards(m.name, m.pattern) == m.fits);
  }

  const Folder f;
  for (const char* name : {"b.jpg", "a.jpg", "x/c.jpg", "x/y/d.jpg", "x/.h/e.jpg", "x/y/d.png",
                           ".f.jpg", "x1/[g].jpg"})
    put(f / name, "");
  const auto found = [&](const std::string& pattern) {
    std::string all;
    for (const std::string& path : matching_files(f / pattern))
      all += path.substr((f / "").size()) + " ";
    return all;
  };
  CHECK(found("*.jpg") == "a.jpg b.jpg ");
  CHECK(found("**/*.jpg") == "a.jpg b.jpg x/c.jpg x/y/d.jpg x1/[g].jpg ");
  CHECK(found("x*/*") == "x/c.jpg x1/[g].jpg ");
  CHECK(found("x/**/d.*") == "x/y/d.jpg x/y/d.png ");
  CHECK(found("x/y") == "");  // a folder
  CHECK(found("gone/*") == "");
}

TEST_CASE("shards: images, classes and names, read where they lie") {
  const Folder f;
  put(f / "train-0.tar", file("./n1/im1.cls", "1\n") + file("./n1/im1.jpg", picture('\1')) +
                             file("./n1/im1.txt", "dog\n") + file("./n1/.hidden.jpg", "x") + end);
  put(f / "train-1.tar", file("im1.cls", "0") + file("im2.ppm", picture('\3')) +
                             file("im2.json", R"({"label": 2, "class_name": "emu"})") +
                             file("im1.PNG", picture('\2')) + file("im1.txt", "cat") +
                             file("im3.webp", "x") + file("im3.cls", "5") + file("noending", "x") +
                             end);
  put(f / "val.tar", file("a.cls", "0") + file("a.pgm", picture('\4')) + end);
  const auto at = [&](const char* name) { return f / name; };
  const std::string pattern = at("train-{0,1}.tar");
  const TarShards train = read_tar_shards(tar_paths(pattern, Split::train)),
                  val = read_tar_shards(tar_paths(pattern, Split::val));
  CHECK(train.classes == 3);
  CHECK(train.left_out.find("1 sample without an image (.jpg") == 0);
  CHECK(train.left_out.find("such as im3.webp") != std::string::npos);
  const std::vector<std::string> classes = tar_classes({&train, &val});
  CHECK(classes == std::vector<std::string>{"cat", "dog", "emu"});
  const Dataset set = tar_set(train, classes), test = tar_set(val, classes);
  REQUIRE(set.size == 3);
  CHECK(set.name == at("train-0.tar") + " and 1 more");
  CHECK((set.get(0).label == 1 && int{set.get(0).image.data<u8>()[0]} == 1));
  CHECK((set.get(1).label == 0 && int{set.get(1).image.data<u8>()[0]} == 2));
  CHECK((set.get(2).label == 2 && int{set.get(2).image.data<u8>()[0]} == 3));
  CHECK(set.get(1).name == at("train-1.tar") + ": im1.PNG");
  CHECK((test.size == 1 && test.classes() == 3 && int{test.get(0).image.data<u8>()[0]} == 4));

  CHECK(tar_classes({&val}) == std::vector<std::string>{"0"});  // nothing names them
  TarShards captions = train;  // two samples of a class say different things: no names
  captions.names[1] = "";
  CHECK(tar_classes({&captions}) == std::vector<std::string>{"0", "1", "2"});
  put(f / "classes.txt", "a\nb\nc\nd\n");
  CHECK(tar_classes({&train}) == std::vector<std::string>{"a", "b", "c", "d"});
  put(f / "classes.txt", "a\nb\n");
  CHECK(says([&] { tar_classes({&train}); }, "classes.txt: names 2 classes; the shards have the"));

  const auto refused = [&](const std::string& archive, const std::string& piece) {
    put(f / "bad.tar", archive);
    CHECK(says([&] { read_tar_shards({at("bad.tar")}); }, piece));
  };
  refused(file("a.jpg", "x") + end, "bad.tar: a.jpg: has no class: neither a .cls beside it");
  refused(file("a.jpg", "x") + file("a.json", "{\"label\": -1}") + end, "a.jpg: has no class");
  refused(file("a.jpg", "x") + file("a.json", "{") + end, "a.json: is no JSON");
  refused(file("a.jpg", "x") + file("a.cls", "cat") + end, "a.cls: the class is \"cat\"; it must");
  refused(file("a.jpg", "x") + file("a.png", "x") + end, "a.png: its sample has two images");
  refused(file("a.cls", "1") + file("a.cls", "1") + end, "a.cls: is there twice");
  refused(file("a.txt", "x") + end, "has no images, but 1 sample without an image");
  refused(end, "has no images");
  put(f / "bad.tar", file("a.cls", "0") + file("a.jpg", "not much of a picture") + end);
  CHECK(says([&] { tar_set(read_tar_shards({at("bad.tar")}), {"a"}).get(0); },
             "bad.tar: a.jpg: not a PNG"));
}

TEST_CASE("shards: which of them are learnt from, and which tested on") {
  const Folder f;
  for (const char* name : {"train-00.tar", "train-01.tar", "val-00.tar", "test.tar", "more.tar"})
    put(f / name, end);
  const auto names = [&](const std::string& path, Split split) {
    std::string all;
    for (const std::string& p : tar_paths(path, split))
      all += std::filesystem::path(p).filename().string() + " ";
    return all;
  };
  CHECK(names(f / "", Split::train) == "more.tar train-00.tar train-01.tar ");
  CHECK(names(f / "", Split::val) == "val-00.tar ");
  CHECK(names(f / "train-{00..01}.tar", Split::train) == "train-00.tar train-01.tar ");
  CHECK(names(f / "train-{00..01}.tar", Split::test) == "test.tar ");
  CHECK(names(f / "{train-01,val-00}.tar", Split::val) == "val-00.tar ");
  CHECK(names(f / "train-*.tar", Split::train) == "train-00.tar train-01.tar ");
  CHECK(names(f / "test.tar", Split::train).empty());
  CHECK(says([&] { tar_paths(f / "train-{00..02}.tar"); }, "train-02.tar: there is no such file"));
  CHECK(says([&] { tar_paths(f / "other-*.tar"); }, "other-*.tar: there is no such file"));
  std::filesystem::create_directories(f / "none");
  CHECK(says([&] { tar_paths(f / "none"); }, "none: has no .tar"));
}

}  // namespace tar_test
