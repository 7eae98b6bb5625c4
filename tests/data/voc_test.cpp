// XML as annotation tools write it, and sets in PASCAL VOC's layout.

#include "ppma/data/voc.hpp"

#include <filesystem>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/xml.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;
using io_test::picture;
using io_test::put;

namespace voc_test {

namespace {

Bytes bytes(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}
XmlElement xml(const std::string& text) { return parse_xml(bytes(text), "f.xml"); }
VocAnnotation voc(const std::string& text) { return parse_voc(bytes(text), "f.xml"); }

std::string object(const std::string& name, const std::string& corners,
                   const std::string& more = "") {
  std::string box, rest = corners + " ";
  for (const char* key : {"xmin", "ymin", "xmax", "ymax"}) {
    const std::size_t end = rest.find(' ');
    box += str("<", key, ">", rest.substr(0, end), "</", key, ">");
    rest = rest.substr(end + 1);
  }
  return "<object><name>" + name + "</name>" + more + "<bndbox>" + box + "</bndbox></object>\n";
}
std::string annotation(const std::string& objects, const std::string& size = "") {
  return "<annotation>\n" + size + objects + "</annotation>\n";
}
const std::string sixty_by_forty = "<size><width>60</width><height>40</height></size>\n";

}  // namespace

TEST_CASE("XML: elements, text and what is passed over") {
  const XmlElement e = xml(
      "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- <a> -->\n"
      "<a x='1' y = \"&lt;2\">\n one &amp; <b/>\ntwo<c k=\"/>\"> &#233;&#x20AC;<!-- - -->\n</c >"
      "<b>last</b><![CDATA[ <&]]>\n</a>\n<!-- end -->\n");
  CHECK(e.name == "a");
  CHECK(e.line == 3);
  CHECK(e.text == "one & \ntwo <&");
  REQUIRE(e.children.size() == 3);
  CHECK(e.children[0].text.empty());
  CHECK(e.children[1].text == "\xc3\xa9\xe2\x82\xac");
  CHECK(e.children[1].line == 5);
  CHECK(e.find("b") == e.children.data());
  CHECK(e.find("d") == nullptr);
}

TEST_CASE("XML: what is not well-formed is refused with its line") {
  CHECK(says([] { xml(""); }, "f.xml: line 1: an element must begin here"));
  CHECK(says([] { xml("<a>\n<b>\n</a>"); }, "line 3: </a> ends the element b of line 2"));
  CHECK(says([] { xml("<a>\n<b>"); }, "line 2: the file ends within the element b, which begins"));
  CHECK(says([] { xml("<a/>\n<b/>"); }, "line 2: something stands behind"));
  CHECK(says([] { xml("<!DOCTYPE a [<!ENTITY b 'c'>]>\n<a>&b;</a>"); }, "a DOCTYPE is not read"));
  CHECK(says([] { xml("<a>&b;</a>"); }, "the entity &b; is not known"));
  CHECK(says([] { xml("<a>&#xd800;</a>"); }, "the entity &#xd800; is not known"));
  CHECK(says([] { xml("<a>b & c</a>"); }, "write &amp;"));
  CHECK(says([] { xml("<a b=1/>"); }, "not in quotes"));
  CHECK(says([] { xml("<a b='1'c='2'/>"); }, "a blank is missing"));
  CHECK(says([] { xml("<a b/>"); }, "an attribute without a value"));
  CHECK(says([] { xml("<a><1/></a>"); }, "a name is missing"));
  CHECK(says([] { xml("<a><!DOCTYPE b></a>"); }, "a name is missing"));
  CHECK(says([] { xml("<a><!-- </a>"); }, "a comment that does not end"));
  CHECK(says([] { xml("<a>\xff</a>"); }, "f.xml: is not UTF-8"));
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<a>";
  CHECK(says([&] { xml(deep); }, "within more than 64 others"));
}

TEST_CASE("PASCAL VOC: boxes count from 1 with their corners among them") {
  const VocAnnotation a = voc(annotation(
      object("cat", "1 1 60 40", "<pose>Left</pose>") +
          object("dog", "10 5 10 5", "<difficult>1</difficult><part><name>head</name></part>") +
          object("dog", "0 2.5 20 30", "<difficult/>"),
      sixty_by_forty));
  CHECK(a.height == 40);
  CHECK(a.width == 60);
  REQUIRE(a.objects.size() == 3);
  CHECK(a.objects[0].box == CocoBox{0, 0, 60, 40});
  CHECK(a.objects[1].box == CocoBox{9, 4, 1, 1});
  CHECK(a.objects[1].difficult);
  CHECK(a.objects[2].box == CocoBox{0, 1.5, 20, 28.5});  // one that counts from 0
  CHECK(!a.objects[2].difficult);
  CHECK(voc(annotation("", "<size><width>0</width><height>9</height></size>")).height == 0);

  CHECK(says([] { voc("<label/>"); }, "line 1: the element is \"label\"; PASCAL VOC's"));
  CHECK(says([] { voc(annotation("<object><bndbox/></object>")); }, "line 2: the element object"));
  CHECK(says([] { voc(annotation("<object><name>a</name></object>")); }, "object has no bndbox"));
  CHECK(says([] { voc(annotation(object("", "1 1 2 2"))); }, "line 2: an object whose name"));
  CHECK(
      says([] { voc(annotation(object("a", "1 x 2 2"))); }, "line 2: ymin is \"x\", not a number"));
  CHECK(says([] { voc(annotation(object("a", "1 1 nan 2"))); }, "xmax is \"nan\""));
  CHECK(says([] { voc(annotation(object("a", "9 1 8 2"))); },
             "the box from (9, 1) to (8, 2) has its corners in the wrong order"));
  CHECK(says([] { voc(annotation(object("a", "1 1 2 2", "<difficult>yes</difficult>"))); },
             "difficult is \"yes\"; it must be 0 or 1"));
  CHECK(says([] { voc(annotation("", "<size><width>1.5</width><height>9</height></size>")); },
             "width is 1.5"));
}

TEST_CASE("PASCAL VOC: a set in its layout") {
  const Folder f;
  const std::string root = f / "set";
  const auto add = [&](const std::string& name, const std::string& xml_text) {
    put(root + "/JPEGImages/" + name + ".PGM", picture(60, 40));
    put(root + "/Annotations/" + name + ".xml", xml_text);
  };
  add("a b", annotation(object("dog", "1 1 20 20") + object("cat", "11 11 30 40") +
                            object("cat", "2 2 9 9", "<difficult>1</difficult>"),
                        sixty_by_forty));
  add("c", annotation("", sixty_by_forty));
  add("d", annotation(object("emu", "1 1 20 20")));
  add("unlisted", "not an annotation");
  put(root + "/ImageSets/Main/train.txt", "a b\r\nc \n\n");
  put(root + "/ImageSets/Main/test.txt", "d");
  CocoSkips skips;
  const DetectionSet train = detection_set(voc_files(root, Split::train), false, false, &skips);
  CHECK(train.class_names == std::vector<std::string>{"cat", "dog", "emu"});  // of both parts
  CHECK(train.category_ids == std::vector<i64>{1, 2, 3});
  CHECK(skips.text() == "1 crowds or difficult objects, 1 images without boxes");
  REQUIRE(train.size == 1);
  CHECK(train.wide[0]);
  const DetectionSample s = train.load(0);
  CHECK(s.image.dim(1) == 60);
  CHECK(s.objects.classes == std::vector<i64>{1, 0});
  CHECK((s.objects.boxes[1].x1 == 10 && s.objects.boxes[1].y1 == 10 &&
         s.objects.boxes[1].x2 == 30 && s.objects.boxes[1].y2 == 40));
  const DetectionFiles test = voc_files(root, Split::val);  // there is no val.txt
  CHECK(test.truth->images[0].file_name == "d.PGM");
  CHECK(test.truth->categories.size() == 3);
  CHECK(!test.any_mask());
  CHECK(says([&] { detection_set(test, true); }, "train on boxes alone (`boxes_only`)"));

  put(root + "/classes.txt", "cat\n dog\n");
  CHECK(voc_files(root, Split::train).truth->categories[1].name == "dog");
  CHECK(says([&] { voc_files(root, Split::val); },
             "/Annotations/d.xml: the class \"emu\" is not in " + root + "/classes.txt"));
  put(root + "/classes.txt", "cat\ncat\n");
  CHECK(says([&] { voc_files(root, Split::train); }, "classes.txt: must name the classes"));
  std::filesystem::remove(root + "/classes.txt");

  put(root + "/ImageSets/Main/train.txt", "a b\ngone\nunlisted\n");
  CHECK(says([&] { voc_files(root, Split::train); },
             "train.txt: line 2: there is no image " + root + "/JPEGImages/gone.jpg"));
  std::vector<std::string> broken;
  CHECK(voc_files(root, Split::train, &broken).truth->images.size() == 1);
  REQUIRE(broken.size() == 2);
  CHECK(broken[1].find("/Annotations/unlisted.xml: line 1: an element") != std::string::npos);
  put(root + "/ImageSets/Main/train.txt", "c\nc\n");
  CHECK(says([&] { voc_files(root, Split::train); }, "line 2: c is there twice"));
  put(root + "/ImageSets/Main/train.txt", "\n");
  CHECK(says([&] { voc_files(root, Split::train); }, "train.txt: names no images"));
  std::filesystem::remove(root + "/ImageSets/Main/train.txt");
  CHECK(says([&] { voc_files(root, Split::train); }, "Main/train.txt: cannot be read"));
  CHECK(says([&] { voc_files(f / "", Split::train); }, "has no folder Annotations; give"));
  add("d",
      annotation(object("emu", "1 1 20 20"), "<size><width>61</width><height>40</height></size>"));
  CHECK(says([&] { detection_set(voc_files(root, Split::val), false).load(0); },
             "d.PGM: has 40 x 60 pixels, " + root + "/Annotations says 40 x 61"));
}

}  // namespace voc_test
