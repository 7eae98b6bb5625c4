// CSV as RFC 4180 has it, and lists of images in it.

#include "ppma/data/image_list.hpp"

#include <filesystem>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/csv.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;

namespace image_list_test {

namespace {

Bytes bytes(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}
std::vector<CsvRecord> csv(const std::string& text) { return parse_csv(bytes(text), "f.csv"); }
std::vector<std::vector<std::string>> fields(const std::string& text) {
  std::vector<std::vector<std::string>> all;
  for (const CsvRecord& r : csv(text)) all.push_back(r.fields);
  return all;
}
using Fields = std::vector<std::vector<std::string>>;

ImageList listed(const std::string& text) { return parse_image_list(bytes(text), "f.csv"); }

}  // namespace

TEST_CASE("CSV: fields, quotes and line breaks of RFC 4180") {
  CHECK(fields("").empty());
  CHECK(fields("\n\r\n").empty());
  CHECK(fields("aaa,bbb,ccc\r\nzzz,yyy,xxx\r\n") ==
        Fields{{"aaa", "bbb", "ccc"}, {"zzz", "yyy", "xxx"}});
  CHECK(fields("a,b\nc,d") == Fields{{"a", "b"}, {"c", "d"}});                // no break at the end
  CHECK(fields("\"a\",\"b \r\nbb\",c\n") == Fields{{"a", "b \r\nbb", "c"}});  // a break in a field
  CHECK(fields("\"a\",\"b\"\"bb\"") == Fields{{"a", "b\"bb"}});
  CHECK(fields("\"\",\"\"\"\"\n, \n") == Fields{{"", "\""}, {"", " "}});
  CHECK(fields("\xef\xbb\xbf"
               "a,b,\n") == Fields{{"a", "b", ""}});
  CHECK(fields("\"\"") == Fields{{""}});
  const std::vector<CsvRecord> lines = csv("a\n\n\"b\nb\"\nc");
  REQUIRE(lines.size() == 3);
  CHECK(lines[1].line == 3);
  CHECK(lines[2].line == 5);

  CHECK(says([] { csv("a,b\nc\n"); }, "f.csv: line 2: has 1 field, the first line 2"));
  CHECK(says([] { csv("a\nb\"c\n"); }, "f.csv: line 2: a quote within a field"));
  CHECK(says([] { csv("a\n\"b\"c\n"); }, "line 2: something stands behind a closing quote"));
  CHECK(says([] { csv("a\n\n\"b\n\n"); }, "line 3: a quote that is not closed"));
  CHECK(says([] { csv("a\rb\n"); }, "line 1: a carriage return without a line feed"));
  CHECK(says([] { csv(std::string("a\nb\0", 4)); }, "line 2: a zero byte"));
  CHECK(says([] { csv(std::string("a\n\"b\n\0\"", 7)); }, "line 3: a zero byte"));
}

TEST_CASE("a list of images: columns, classes and parts") {
  const Folder f;
  const auto picture = [](char level) { return std::string("P5 1 1 255\n") + level; };
  std::filesystem::create_directories(f / "deep");
  write_file(f / "deep/a, \"b\".pgm", std::string_view(picture('\1')));
  write_file(f / "c.pgm", std::string_view(picture('\2')));
  write_file(f / "caf\xe9.pgm", std::string_view(picture('\3')));  // paths are bytes
  write_file(f / "list.csv",
             std::string_view("label,split,path\r\nzebra,train,\"deep/a, \"\"b\"\".pgm\"\r\n"
                              "\"ant\",val,c.pgm\r\nemu,train,caf\xe9.pgm\r\nzebra,val," +
                              (f / "c.pgm") + "\r\n"));
  const ImageList list = read_image_list(f / "list.csv");
  CHECK(list.class_names == std::vector<std::string>{"ant", "emu", "zebra"});
  CHECK(list.has_splits());
  CHECK(!list.has(Split::test));
  const Dataset train = image_list(list, Split::train), val = image_list(list, Split::val);
  REQUIRE(train.size == 2);
  REQUIRE(val.size == 2);
  CHECK(train.class_names == val.class_names);
  CHECK(train.get(0).label == 2);
  CHECK(int{train.get(0).image.data<u8>()[0]} == 1);
  CHECK(train.get(1).label == 1);
  CHECK(int{train.get(1).image.data<u8>()[0]} == 3);
  CHECK(val.get(0).label == 0);
  CHECK(int{val.get(1).image.data<u8>()[0]} == 2);  // an absolute path
  CHECK(says([&] { image_list(list, Split::test); }, "list.csv: no image has the split test"));

  write_file(f / "plain.csv", std::string_view("path,label\nc.pgm,x\n\ngone.pgm,y\ndeep,y\n"));
  const ImageList plain = read_image_list(f / "plain.csv");
  CHECK(says([&] { image_list(plain, Split::test); },
             "plain.csv: line 4: " + (f / "gone.pgm") + " is not there"));
  CHECK(says([&] { image_list(plain, Split::train); }, "plain.csv: has no column split"));
  const Dataset later = image_list(plain, Split::test, {}, false);
  CHECK(later.size == 3);
  CHECK(later.get(0).label == 0);
  CHECK(says([&] { later.get(1); }, "plain.csv: line 4: " + (f / "gone.pgm: cannot be read")));
  write_file(f / "gone.pgm", std::string_view("not much of a picture"));
  CHECK(says([&] { later.get(1); }, "plain.csv: line 4: " + (f / "gone.pgm: not a PNG")));
  CHECK(says([&] { image_list(plain, Split::test); }, "plain.csv: line 5: "));  // a folder
}

TEST_CASE("a list of images: what is refused, with its line") {
  CHECK(says([] { listed(""); }, "f.csv: is empty"));
  CHECK(says([] { listed("path,label\n"); }, "f.csv: lists no images"));
  CHECK(
      says([] { listed("path,label,size\na,b,c\n"); }, "line 1: the column \"size\" is not known"));
  CHECK(says([] { listed("path, label\na,b\n"); }, "line 1: the column \" label\" is not known"));
  CHECK(says([] { listed("a.png,cat\n"); }, "line 1: the column \"a.png\" is not known"));
  CHECK(says([] { listed("path,path,label\na,b,c\n"); }, "line 1: two columns path"));
  CHECK(says([] { listed("\npath\na\n"); }, "line 2: has no column label"));
  CHECK(says([] { listed("label,split\na,train\n"); }, "line 1: has no column path"));
  CHECK(says([] { listed("path,label\na,b\n,b\n"); }, "line 3: the path is empty"));
  CHECK(says([] { listed("path,label\na,b\nc,\n"); }, "line 3: the label is empty"));
  CHECK(says([] { listed("path,label\na,\xff\n"); }, "line 2: the label \"\\xff\" is not UTF-8"));
  CHECK(says([] { listed("path,label\na, b\n"); }, "line 2: the label \" b\" has a space"));
  CHECK(says([] { listed("path,label,split\na,b,train\nc,d,\n"); }, "line 3: the split is \"\""));
  CHECK(says([] { listed("path,label,split\na,b,Train\n"); },
             "line 2: the split is \"Train\"; it must be train, val or test"));
}

}  // namespace image_list_test
